"""From the logits of a picture's views to its record and its files, strip by strip."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.errors import PictureError
from pipeline.core.labels import ClassIds
from pipeline.core.measures.measure import Measure
from pipeline.core.measures.measures import PictureMeasuring
from pipeline.core.raster import Raster
from pipeline.core.recipe import Fingerprints
from pipeline.core.records import Located, PictureRecord
from pipeline.core.strips import Strip, Window
from pipeline.engines.base import Logits
from pipeline.output.outputs import EncodedFile, Output, PictureWriter
from pipeline.segmenting.mode import Assembler, FinishedRows, View
from pipeline.segmenting.stage_clock import Seconds, timed


@dataclass(frozen=True, slots=True)
class Segmented:
    """A segmented picture whose files are not written yet.

    Args:
        record: its record.
        files: its encoded files, in the order of writing.
    """

    record: PictureRecord
    files: list[EncodedFile]

    @property
    def size_bytes(self) -> int:
        """The size of all files."""
        return sum(len(file.data) for file in self.files)


class PictureFinisher:
    """Takes the logits of one picture's views, in the mode's order.

    Args:
        picture: the located picture.
        raster: its pixels; open as long as an output needs them.
        truth: its ground truth in class ids, or why it can't be used; None if there is none.
        assembler: the mode's, for this picture.
        measures: what to measure.
        outputs: what to write.
    """

    def __init__(
        self,
        picture: Located,
        raster: Raster,
        truth: ClassIds | PictureError | None,
        *,
        assembler: Assembler,
        measures: Sequence[Measure],
        outputs: Sequence[Output],
    ) -> None:
        self._picture = picture
        self._raster = raster
        self._info = raster.info
        self._truth = None if isinstance(truth, PictureError) else truth
        self._truth_error = truth if isinstance(truth, PictureError) else None
        self._assembler = assembler
        self._measuring = PictureMeasuring(measures)
        self.needs_pixels = any(output.needs_pixels for output in outputs)
        """Whether the raster has to stay open until all rows are finished."""
        self._writer = PictureWriter(outputs, picture.image_id, self._info.height, self._info.width)
        self._rows = 0

    @property
    def is_complete(self) -> bool:
        """Whether all rows are finished."""
        return self._rows == self._info.height

    def add(self, view: View, logits: Logits, seconds: Seconds) -> None:
        """Adds the logits of the next view; measures and encodes the rows that they finish.

        Args:
            view: as the mode yields it.
            logits: (h, w, num_classes) float32, finite.
            seconds: receives the time of the stages `mask`, `count` and `encode`.
        """
        finished = self._assembler.add(view, logits)
        while True:
            with timed("mask", seconds):
                rows = next(finished, None)
            if rows is None:
                return
            strip = self._strip(rows)
            with timed("count", seconds):
                self._measuring.add(strip)
            with timed("encode", seconds):
                self._writer.add(strip)
            self._rows += len(rows.mask)

    def segmented(
        self, source_bytes: int, split: str | None, fingerprints: Fingerprints, seconds: Seconds
    ) -> Segmented:
        """The record and the files, after all rows are finished.

        Args:
            source_bytes: size of the picture's file.
            split: as `PictureRecord.split`.
            fingerprints: of the job.
            seconds: receives the time of the stage `encode`.
        """
        with timed("encode", seconds):
            files = self._writer.finish()
        record = PictureRecord(
            image_id=self._picture.image_id,
            source_uri=self._picture.image.display_uri,
            group=self._picture.group,
            width=self._info.width,
            height=self._info.height,
            source_bytes=source_bytes,
            fingerprint=fingerprints.of_image(self._picture),
            values=self._measuring.values(),
            measured=fingerprints.of_measures(self._picture),
            pixel_area_m2=self._info.pixel_area_m2,
            truth_error_type=self._truth_error.error_type.value if self._truth_error else "",
            truth_message=self._truth_error.message if self._truth_error else "",
            unused=self._info.unused,
            split=split,
        )
        return Segmented(record, files)

    def _strip(self, rows: FinishedRows) -> Strip:
        top, height = rows.top, len(rows.mask)
        pixels = self._raster.read(Window(top, 0, height, self._info.width)) if self.needs_pixels else None
        truth = None if self._truth is None else self._truth[top : top + height]
        return Strip(top, rows.mask, pixels, truth, rows.probabilities)
