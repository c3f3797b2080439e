"""Makes missing outputs and values of pictures whose inference is still valid, from the picture and its mask."""

import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import PictureError
from pipeline.core.labels import ClassIds
from pipeline.core.measures.measures import measure_picture, measures_for
from pipeline.core.raster import Raster
from pipeline.core.recipe import Fingerprints, Recipe
from pipeline.core.records import FileRef, Located, OutputFile, PictureRecord, Update
from pipeline.core.strips import Strip, Window, strip_bounds
from pipeline.core.usage import TILE
from pipeline.output.delivery import Delivery, read_file
from pipeline.output.encode import decode_mask_file
from pipeline.output.mask_output import MASK
from pipeline.output.outputs import Destination, PictureWriter
from pipeline.segmenting.byte_budget import ByteBudget
from pipeline.segmenting.fetcher import Fetcher
from pipeline.segmenting.memory import usable_memory_bytes
from pipeline.segmenting.preparing import open_picture, picture_info, read_truth
from pipeline.segmenting.stage_clock import Seconds, timed
from pipeline.sources.reading import FileReader


class _NeedsEngineError(Exception):
    """The picture and its mask are not sufficient."""


class Updater:
    """Brings pictures of earlier runs up to date; thread-safe, one per process.

    Args:
        recipe: what determines the results.
        destination: where and what to write.
        read: reads a file by its reference; by default a `FileReader`.
        decoding: limits the decoded bytes of all pictures; by default to a quarter of the memory.
    """

    def __init__(
        self,
        recipe: Recipe,
        destination: Destination,
        read: Callable[[FileRef], bytes] | None = None,
        *,
        decoding: ByteBudget | None = None,
    ) -> None:
        self._recipe = recipe
        self._destination = destination
        reader = FileReader(destination.root)
        open_ranged = reader.open_ranged if recipe.mode == TILE and read is None else None
        self._fetcher = Fetcher(read or reader, recipe.max_pixels, open_ranged)
        self.delivery = Delivery(destination.root, packs_masks=destination.packs_masks)
        self._decoding = decoding or ByteBudget(usable_memory_bytes() // 4)
        self._measures = measures_for(recipe.spec.num_classes)
        self._fingerprints = Fingerprints(recipe)

    def update(self, update: Update) -> tuple[PictureRecord | Located, Seconds]:
        """Verifies and makes the outputs and values of an update.

        Args:
            update: from a `ResumePlan`.

        Returns:
            The picture's record; or the picture, to be segmented, if a file differs from its record or the picture is
            needed and can't be read. And the seconds of each stage.

        Raises:
            StorageError: the output can't be written.
        """
        seconds: Seconds = defaultdict(float)
        with timed("verify", seconds):
            altered = {name for name in update.verify if not self._is_as_recorded(update, name)}
        if not altered:
            try:
                return self._made(update, seconds), seconds
            except (PictureError, _NeedsEngineError, OSError, ValueError):
                pass  # segmenting the picture reports its error, if it persists
        kept = tuple(file for file in update.record.files if file.output not in altered)
        return replace(update.picture, kept_files=kept), seconds

    def _is_as_recorded(self, update: Update, output: str) -> bool:
        """Whether a file's content has the recorded checksum."""
        file = update.mask if output == MASK else update.record.file(output)
        if file is None:
            return False
        try:
            return zlib.crc32(self._read(update, file)) == file.crc32
        except OSError:
            return False

    def _read(self, update: Update, file: OutputFile) -> bytes:
        return read_file(self._destination.root, update.picture.image_id, file)

    def _made(self, update: Update, seconds: Seconds) -> PictureRecord:
        """The record of a picture, after everything missing has been made."""
        record = update.record
        if not update.make and not update.measure:
            return record
        if update.mask is None:
            raise _NeedsEngineError
        mask = decode_mask_file(self._read(update, update.mask))
        if mask.shape != (record.height, record.width):
            raise _NeedsEngineError
        fetched = self._fetcher.fetch(update.picture, seconds)
        raster = open_picture(fetched.image, self._recipe, seconds)
        held = self._decoding.hold(raster.decoded_bytes)
        try:
            return self._from_mask(update, mask, raster, fetched.truth, seconds)
        finally:
            raster.close()
            held.release()

    def _from_mask(
        self, update: Update, mask: ClassIds, raster: Raster, truth_file: bytes | PictureError | None, seconds: Seconds
    ) -> PictureRecord:
        """Makes the outputs and values of an update from a picture and its mask."""
        record, (height, width) = update.record, mask.shape
        info = picture_info(raster, seconds)
        if (info.height, info.width) != mask.shape:
            raise _NeedsEngineError
        truth = read_truth(truth_file, info, self._recipe, seconds)
        strips = [
            Strip(
                top,
                mask[top:bottom],
                raster.read(Window(top, 0, bottom - top, width)),
                truth[top:bottom] if isinstance(truth, np.ndarray) else None,
                _no_probabilities,
            )
            for top, bottom in strip_bounds(height, width)
        ]
        if update.measure:
            with timed("count", seconds):
                record = self._measured(record, strips, update.picture, truth)
        with timed("encode", seconds):
            outputs = [output for output in self._destination.wanted(update.picture) if output.name in update.make]
            writer = PictureWriter(outputs, record.image_id, height, width)
            for strip in strips:
                writer.add(strip)
            files = writer.finish()
        with timed("write", seconds):
            written = self.delivery.write(record.image_id, files)
        return replace(record, files=(*record.files, *written))

    def _measured(
        self, record: PictureRecord, strips: Sequence[Strip], picture: Located, truth: ClassIds | PictureError | None
    ) -> PictureRecord:
        error = truth if isinstance(truth, PictureError) else None
        return replace(
            record,
            values=measure_picture(strips, self._measures),
            measured=self._fingerprints.of_measures(picture),
            truth_error_type=error.error_type.value if error else "",
            truth_message=error.message if error else "",
        )


def _no_probabilities() -> npt.NDArray[Any]:
    """Replaces `Strip.probabilities`: measures or outputs that need probabilities need the engine."""
    raise _NeedsEngineError
