"""The way of one picture: read, decoded, segmented, back at its own size, its mask written, its numbers recorded."""

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.decode import DecodedImage, decode_image, decode_mask
from pipeline.core.errors import EngineError, PictureError
from pipeline.core.labels import ClassIds
from pipeline.core.measures.measures import measure_picture, measures_for
from pipeline.core.model_input import ModelInput, model_input
from pipeline.core.recipe import Recipe, fingerprint
from pipeline.core.records import Failure, FileRef, Located, PictureRecord
from pipeline.core.resize import mask_from_logits, probabilities_from_logits
from pipeline.core.strips import Strip
from pipeline.engines.base import Engine, input_batch
from pipeline.output.delivery import Delivery
from pipeline.output.mask_output import MASK
from pipeline.output.outputs import Destination, EncodedFile, PictureWriter
from pipeline.segmenting.byte_budget import ByteBudget, Held
from pipeline.segmenting.fetcher import Fetched, Fetcher, expected_bytes
from pipeline.segmenting.stage_clock import Seconds, timed
from pipeline.sources.reading import FileReader

_OUT_OF_MEMORY = re.compile(r"out of memory|memory exhausted|alloc|\bOOM\b", re.IGNORECASE)

Outcome = PictureRecord | Failure


_Inferred = npt.NDArray[np.float32] | PictureError


@dataclass(slots=True)
class _Ready:
    """A picture that waits for the engine: decoded, its truth in class ids or why there is none, its pixels at the
    model's size.

    Its pixels at their own size stay only where an overlay is to be drawn.
    """

    picture: Located
    size: tuple[int, int]
    truth: ClassIds | PictureError | None
    pixels: ModelInput
    source_bytes: int
    image: npt.NDArray[np.uint8] | None
    unused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Segmented:
    """A picture that waits to be written: its record and its files."""

    record: PictureRecord
    files: list[EncodedFile]

    @property
    def size_bytes(self) -> int:
        return sum(len(file.data) for file in self.files)


class Batch:
    """Some pictures on their way, and what they hold of the budget; one thread at a time has it.

    Args:
        pictures: where they lie.
        held: their share of the budget.
    """

    def __init__(self, pictures: Sequence[Located], held: Held) -> None:
        self.pictures = pictures
        self.held = held
        self.seconds: Seconds = defaultdict(float)
        self.fetched: deque[Fetched | PictureError] = deque()
        self.segmented: list[_Segmented | PictureError] = []


class Segmenter:
    """Takes batches of located pictures to their outcomes; one a process, used by many threads at a time.

    The way has three parts, so that each is done by threads that suit it: `fetch` and `deliver` wait for files,
    `compute` needs a core.

    Args:
        recipe: what decides the results.
        destination: where and what to write.
        engine: the loaded model.
        read: how a file's bytes are had.
        budget: bounds the bytes of all files that were read and not computed, or computed and not written.
        engine_batch: how many pictures at most the engine takes at a time; None for all that come together.
    """

    def __init__(
        self,
        recipe: Recipe,
        destination: Destination,
        engine: Engine,
        read: Callable[[FileRef], bytes] | None = None,
        budget: ByteBudget | None = None,
        engine_batch: int | None = None,
    ) -> None:
        self._recipe = recipe
        self._destination = destination
        self._digest = destination.digest(recipe)
        self._engine = engine
        self._fetcher = Fetcher(read or FileReader(destination.root), recipe.max_pixels)
        self._delivery = Delivery(destination.root)
        self._budget = budget or ByteBudget()
        self._engine_batch = engine_batch
        self._measures = measures_for(recipe.spec.num_classes)

    def segment(self, pictures: Sequence[Located]) -> tuple[list[Outcome], Seconds]:
        """Takes a batch the whole way, as `fetch`, `compute` and `deliver`."""
        return self.deliver(self.compute(self.fetch(pictures)))

    def fetch(self, pictures: Sequence[Located]) -> Batch:
        """Reads a batch's files, once the budget has room for them.

        Args:
            pictures: where they lie.

        Returns:
            The batch, to be given to `compute`.
        """
        batch = Batch(pictures, self._budget.hold(sum(map(expected_bytes, pictures))))
        with _released_on_error(batch.held):
            batch.fetched.extend(self._fetched(picture, batch.seconds) for picture in pictures)
            batch.held.resize(sum(each.size_bytes for each in batch.fetched if isinstance(each, Fetched)))
        return batch

    def compute(self, batch: Batch) -> Batch:
        """Decodes, infers and encodes; to be called by as many threads as there are cores.

        Args:
            batch: what `fetch` gave.

        Returns:
            The batch, to be given to `deliver`.

        Raises:
            EngineError: the engine can't run at all.
        """
        with _released_on_error(batch.held):
            batch.segmented = list(self._computed(batch))
            batch.held.resize(sum(each.size_bytes for each in batch.segmented if isinstance(each, _Segmented)))
        return batch

    def deliver(self, batch: Batch) -> tuple[list[Outcome], Seconds]:
        """Writes a batch's files.

        Args:
            batch: what `compute` gave.

        Returns:
            An outcome a picture in the same order, and the seconds that each stage took.

        Raises:
            StorageError: the output can't be written.
        """
        try:
            outcomes = [
                self._delivered(picture, segmented, batch.seconds)
                for picture, segmented in zip(batch.pictures, batch.segmented, strict=True)
            ]
        finally:
            batch.held.release()
        return outcomes, batch.seconds

    def _fetched(self, picture: Located, seconds: Seconds) -> Fetched | PictureError:
        try:
            return self._fetcher.fetch(picture, seconds)
        except PictureError as error:
            return error

    def _computed(self, batch: Batch) -> Iterator[_Segmented | PictureError]:
        """All of a batch's way that needs a core, in parts that the engine takes; files go as they are decoded."""
        pictures = deque(batch.pictures)
        while pictures:
            most = self._engine_batch or len(pictures)
            yield from self._run([pictures.popleft() for _ in range(min(most, len(pictures)))], batch)

    def _run(self, pictures: Sequence[Located], batch: Batch) -> list[_Segmented | PictureError]:
        """Takes what the engine takes at a time from the files to their masks."""
        results: dict[int, _Segmented | PictureError] = {}
        ready: dict[int, _Ready] = {}
        for index, picture in enumerate(pictures):
            try:
                ready[index] = self._prepare(picture, batch.fetched.popleft(), batch.seconds)
            except PictureError as error:
                results[index] = error
        for index, logits in (self._infer(ready, batch.seconds) if ready else {}).items():
            try:
                if isinstance(logits, PictureError):
                    raise logits
                results[index] = self._finish(ready.pop(index), logits, batch.seconds)
            except PictureError as error:
                results[index] = error
        return [results[index] for index in range(len(pictures))]

    def _delivered(self, picture: Located, segmented: _Segmented | PictureError, seconds: Seconds) -> Outcome:
        """Writes what a picture came to, its mask last."""
        try:
            if isinstance(segmented, PictureError):
                raise segmented
            with timed("write", seconds):
                self._delivery.write(segmented.files)
        except PictureError as error:
            return self._failure(picture, error)
        return segmented.record

    def _prepare(self, picture: Located, fetched: Fetched | PictureError, seconds: Seconds) -> _Ready:
        if isinstance(fetched, PictureError):
            raise fetched
        spec = self._recipe.spec
        with timed("decode", seconds):
            image = decode_image(fetched.image, channels=spec.channels, max_pixels=self._recipe.max_pixels)
        truth: ClassIds | PictureError | None = None
        if isinstance(fetched.truth, PictureError):
            truth = fetched.truth
        elif fetched.truth is not None:
            with timed("truth", seconds):
                try:
                    truth = self._truth(fetched.truth, image)
                except PictureError as error:
                    truth = error
        with timed("resize", seconds):
            pixels = model_input(image.pixels, spec.input)
        height, width = image.pixels.shape[:2]
        needs_pixels = any(output.needs_pixels for output in self._destination.wanted(picture))
        kept = image.pixels if needs_pixels else None
        return _Ready(picture, (width, height), truth, pixels, len(fetched.image), kept, image.unused)

    def _truth(self, data: bytes, image: DecodedImage) -> ClassIds:
        recipe = self._recipe
        height, width = image.pixels.shape[:2]
        raw = decode_mask(
            data,
            max_pixels=recipe.max_pixels,
            picture_orientation=image.orientation,
            expected_size=(width, height),
        )
        return recipe.label_map.to_class_ids(raw, recipe.spec.num_classes, recipe.ignore_label)

    def _infer(self, ready: dict[int, _Ready], seconds: Seconds) -> dict[int, _Inferred]:
        """Runs the engine; a batch that breaks it is halved until the culprit stands alone."""
        indices = list(ready)
        try:
            with timed("infer", seconds):
                logits = self._engine.logits(input_batch([ready[index].pixels for index in indices]))
        except EngineError:
            raise
        except Exception as error:
            lacks_memory = _lacks_memory(error)
            if len(indices) == 1:
                message = f"the engine fails on this picture: {type(error).__name__}: {error}"
                error_type = "OutOfMemory" if lacks_memory else "EngineFailed"
                return {indices[0]: PictureError("segment", error_type, message)}
            middle = len(indices) // 2
            if lacks_memory:
                self._engine_batch = min(self._engine_batch or middle, middle)
            first = {index: ready[index] for index in indices[:middle]}
            second = {index: ready[index] for index in indices[middle:]}
            return self._infer(first, seconds) | self._infer(second, seconds)
        return dict(zip(indices, logits, strict=True))

    def _finish(self, ready: _Ready, logits: npt.NDArray[np.float32], seconds: Seconds) -> _Segmented:
        picture, (width, height) = ready.picture, ready.size
        truth, truth_error = (None, ready.truth) if isinstance(ready.truth, PictureError) else (ready.truth, None)
        if not np.isfinite(logits).all():
            raise PictureError("segment", "NotFinite", "the engine's answer to this picture is not finite")
        with timed("mask", seconds):
            mask = mask_from_logits(logits, height, width)
        with timed("count", seconds):
            strip = Strip(0, mask, ready.image, truth, lambda: probabilities_from_logits(logits, height, width))
            values = measure_picture([strip], self._measures)
        with timed("encode", seconds):
            writer = PictureWriter(self._destination.wanted(picture), picture.image_id, height, width)
            writer.add(strip)
            files = writer.finish()
        mask_uri, mask_bytes = next(((file.file, len(file.data)) for file in files if file.output == MASK), ("", 0))
        record = PictureRecord(
            image_id=picture.image_id,
            source_uri=picture.image.display_uri,
            group=picture.group,
            width=width,
            height=height,
            mask_uri=mask_uri,
            source_bytes=ready.source_bytes,
            fingerprint=fingerprint(picture, self._digest),
            values=values,
            mask_bytes=mask_bytes,
            truth_error_type=truth_error.error_type if truth_error else "",
            truth_message=truth_error.message if truth_error else "",
            unused=ready.unused,
        )
        return _Segmented(record, files)

    def _failure(self, picture: Located, error: PictureError) -> Failure:
        """A failure has no files: those that an earlier run or a first attempt left go before it is recorded."""
        self._delivery.remove(picture.image_id)
        return Failure(
            picture.image_id,
            picture.image.display_uri,
            error.stage,
            error.error_type,
            error.message,
            fingerprint(picture, self._digest),
        )


def _lacks_memory(error: Exception) -> bool:
    """Whether an engine's error is one of too little memory, in the words of LiteRT, TensorFlow and CUDA."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return named or bool(_OUT_OF_MEMORY.search(str(error)))


@contextmanager
def _released_on_error(held: Held) -> Iterator[None]:
    """Gives a share of the budget back where its batch will never be delivered."""
    try:
        yield
    except BaseException:
        held.release()
        raise
