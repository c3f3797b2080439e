"""The way of one picture: read, decoded, segmented, back at its own size, its mask written, its numbers recorded."""

import errno
import hashlib
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.decode import DecodedImage, decode_image, decode_mask
from pipeline.core.errors import EngineError, PictureError, StorageError
from pipeline.core.labels import ClassIds, LabelMap
from pipeline.core.records import Failure, FileRef, Located, PictureRecord
from pipeline.core.resize import mask_from_logits, probabilities_from_logits, resize_image
from pipeline.core.scores import confusion_matrix
from pipeline.core.spec import ModelSpec
from pipeline.core.totals import cells_of
from pipeline.stages import storage
from pipeline.stages.encode import encode_mask, encode_overlay, encode_probabilities, palette_of
from pipeline.stages.engines.base import Engine, input_batch
from pipeline.stages.reading import FileReader

# What the file system says of one name, not of the disk: these cost the picture, anything else stops the job.
_NAME_FAULTS = frozenset((errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST))
_OUT_OF_MEMORY = re.compile(r"out of memory|memory exhausted|alloc|\bOOM\b", re.IGNORECASE)
# No format stores a pixel in more than 16 bytes; what a file holds besides pixels fits in the rest.
_BYTES_A_PIXEL, _BYTES_BESIDES = 16, 64 << 20

Outcome = PictureRecord | Failure
Seconds = dict[str, float]


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """All that decides what a picture's outcome is; the same for every picture of a job.

    Args:
        spec: the model's.
        model_digest: SHA-256 of the model file.
        label_map: raw mask values to class ids.
        ignore_label: the raw value that counts for nothing, None for none.
        output: absolute folder or bucket prefix.
        max_pixels: larger pictures are refused before they are decoded.
        mask_format: `png`, `tar` (packed at the end) or `none`.
        probabilities: whether a plane a class is written too.
        backend: the engine.
    """

    spec: ModelSpec
    model_digest: str
    label_map: LabelMap
    ignore_label: int | None
    output: str
    max_pixels: int
    mask_format: str = "png"
    probabilities: bool = False
    backend: str = "litert"

    def digest(self) -> str:
        """A digest of everything that changes results, the output's place left out."""
        parts = (
            self.model_digest,
            sorted(self.label_map.to_metadata().items()),
            self.ignore_label,
            self.max_pixels,
            self.mask_format,
            self.probabilities,
            self.backend,
            self.spec.class_names,
            [c.color for c in self.spec.classes],
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def mask_name(image_id: str) -> str:
    """The name of a picture's mask below the output."""
    return f"masks/{image_id}.png"


def names_beside(mask: str) -> tuple[str, ...]:
    """The names of what else may be written of a mask's picture."""
    name = mask.partition("/")[2]
    return f"overlays/{name}", f"probabilities/{name}"


def fingerprint(picture: Located, settings_digest: str) -> str:
    """A digest of one picture's inputs: equal fingerprints mean equal outcomes, so the work need not be done again."""
    truth = picture.truth and _identity(picture.truth)
    parts = (_identity(picture.image), truth, picture.group, picture.overlay, settings_digest)
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()


def _identity(file: FileRef) -> tuple[str, int, str, int, str]:
    return file.uri, file.size_bytes, file.version, file.offset_bytes, file.member


_Inferred = npt.NDArray[np.float32] | PictureError


@dataclass(slots=True)
class _Ready:
    """A picture that waits for the engine: decoded, its truth in class ids, its pixels at the model's size.

    Its pixels at their own size stay only where an overlay is to be drawn.
    """

    picture: Located
    size: tuple[int, int]
    truth: ClassIds | None
    pixels: npt.NDArray[np.uint8]
    source_bytes: int
    image: npt.NDArray[np.uint8] | None


class Segmenter:
    """Takes batches of located pictures to their outcomes; one a process, used by many threads at a time.

    Args:
        settings: what decides the outcomes.
        engine: the loaded model.
        read: how a file's bytes are had.
        turn: what a thread holds while it runs the engine, so that waiting for it counts as no stage's seconds.
    """

    def __init__(
        self,
        settings: SegmentSettings,
        engine: Engine,
        read: Callable[[FileRef], bytes] | None = None,
        turn: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._settings = settings
        self._settings_digest = settings.digest()
        self._engine = engine
        self._read = read or FileReader(settings.output)
        self._turn = turn or nullcontext()
        self._most_a_batch: int | None = None
        self._palette = palette_of([spec.color for spec in settings.spec.classes][:256])
        self._scratch = storage.scratch_of(settings.output)

    def segment(self, pictures: Sequence[Located]) -> tuple[list[Outcome], Seconds]:
        """Takes a batch through.

        Args:
            pictures: where they lie.

        Returns:
            An outcome a picture in the same order, and the seconds that each stage took.

        Raises:
            EngineError: the engine can't run at all.
            StorageError: the output can't be written.
        """
        seconds: Seconds = defaultdict(float)
        outcomes: dict[int, Outcome] = {}
        ready: dict[int, _Ready] = {}
        for index, picture in enumerate(pictures):
            try:
                ready[index] = self._prepare(picture, seconds)
            except PictureError as error:
                outcomes[index] = self._failure(picture, error)
        for index, logits in self._infer_all(ready, seconds).items():
            try:
                if isinstance(logits, PictureError):
                    raise logits
                outcomes[index] = self._finish(ready[index], logits, seconds)
            except PictureError as error:
                outcomes[index] = self._failure(pictures[index], error)
        return [outcomes[index] for index in range(len(pictures))], seconds

    def _prepare(self, picture: Located, seconds: Seconds) -> _Ready:
        settings = self._settings
        with _timed("read", seconds):
            data = self._read_or_fail(picture.image, "read")
        with _timed("decode", seconds):
            image = decode_image(data, channels=settings.spec.channels, max_pixels=settings.max_pixels)
        truth = None
        if picture.truth is not None:
            with _timed("read", seconds):
                mask_data = self._read_or_fail(picture.truth, "truth")
            with _timed("truth", seconds):
                truth = self._truth(mask_data, image)
        with _timed("resize", seconds):
            pixels = resize_image(image.pixels, settings.spec.height, settings.spec.width)
        height, width = image.pixels.shape[:2]
        kept = image.pixels if picture.overlay else None
        return _Ready(picture, (width, height), truth, pixels, len(data), kept)

    def _truth(self, data: bytes, image: DecodedImage) -> ClassIds:
        settings = self._settings
        height, width = image.pixels.shape[:2]
        raw = decode_mask(
            data,
            max_pixels=settings.max_pixels,
            picture_orientation=image.orientation,
            expected_size=(width, height),
        )
        return settings.label_map.to_class_ids(raw, settings.spec.num_classes, settings.ignore_label)

    def _infer_all(self, ready: dict[int, _Ready], seconds: Seconds) -> dict[int, _Inferred]:
        """Runs the engine over a batch, in parts where an earlier batch of its size was too large for the memory."""
        answers: dict[int, _Inferred] = {}
        left = list(ready)
        while left:
            most = self._most_a_batch or len(left)
            answers |= self._infer({index: ready[index] for index in left[:most]}, seconds)
            left = left[most:]
        return answers

    def _infer(self, ready: dict[int, _Ready], seconds: Seconds) -> dict[int, _Inferred]:
        """Runs the engine; a batch that breaks it is halved until the culprit stands alone."""
        indices = list(ready)
        try:
            with self._turn, _timed("infer", seconds):
                logits = self._engine.logits(
                    input_batch([ready[index].pixels for index in indices], self._settings.spec)
                )
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
                self._most_a_batch = min(self._most_a_batch or middle, middle)
            first = {index: ready[index] for index in indices[:middle]}
            second = {index: ready[index] for index in indices[middle:]}
            return self._infer(first, seconds) | self._infer(second, seconds)
        return dict(zip(indices, logits, strict=True))

    def _finish(self, ready: _Ready, logits: npt.NDArray[np.float32], seconds: Seconds) -> PictureRecord:
        settings = self._settings
        picture, (width, height) = ready.picture, ready.size
        num_classes = settings.spec.num_classes
        if not np.isfinite(logits).all():
            raise PictureError("segment", "NotFinite", "the engine's answer to this picture is not finite")
        with _timed("mask", seconds):
            mask = mask_from_logits(logits, height, width)
        with _timed("count", seconds):
            confusion = None
            if ready.truth is not None:
                confusion = cells_of(confusion_matrix(ready.truth, mask, num_classes))
            area_px = np.bincount(mask.reshape(-1), minlength=num_classes)
        mask_uri, mask_bytes = self._write_outputs(ready, logits, mask, seconds)
        return PictureRecord(
            image_id=picture.image_id,
            source_uri=picture.image.display_uri,
            group=picture.group,
            width=width,
            height=height,
            mask_uri=mask_uri,
            source_bytes=ready.source_bytes,
            fingerprint=fingerprint(picture, self._settings_digest),
            area_px=tuple(area_px.tolist()),
            confusion=confusion,
            mask_bytes=mask_bytes,
        )

    def _write_outputs(
        self, ready: _Ready, logits: npt.NDArray[np.float32], mask: ClassIds, seconds: Seconds
    ) -> tuple[str, int]:
        """Writes all that is asked for of a picture; the mask, whose name and size are returned, last."""
        settings, image_id = self._settings, ready.picture.image_id
        height, width = mask.shape
        files: list[tuple[str, bytes]] = []
        with _timed("encode", seconds):
            if settings.probabilities:
                planes = probabilities_from_logits(logits, height, width)
                files.append((f"probabilities/{image_id}.png", encode_probabilities(planes)))
            if ready.image is not None:
                files.append((f"overlays/{image_id}.png", encode_overlay(ready.image, mask, settings.spec.classes)))
            if settings.mask_format != "none":
                files.append((mask_name(image_id), encode_mask(mask, self._palette)))
        with _timed("write", seconds):
            for name, data in files:
                self._write(name, data)
        return ("", 0) if settings.mask_format == "none" else (files[-1][0], len(files[-1][1]))

    def _write(self, name: str, data: bytes) -> None:
        try:
            storage.write_bytes(storage.join(self._settings.output, name), data, self._scratch)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in _NAME_FAULTS and not storage.is_remote(self._settings.output):
                raise PictureError("write", "UnwritableName", f"no file can bear its name: {reason}") from error
            raise StorageError(f"the output can't be written: {name}: {reason}") from error

    def _read_or_fail(self, file: FileRef, stage: str) -> bytes:
        most_bytes = _BYTES_BESIDES + _BYTES_A_PIXEL * self._settings.max_pixels
        try:
            data = self._read(file) if file.size_bytes <= most_bytes else None
        except FileNotFoundError as error:
            raise PictureError(stage, "Missing", f"no such file: {file.display_uri}") from error
        except storage.StoreFaultError as error:
            reason = error.strerror or str(error)
            raise PictureError(stage, "StoreFault", f"{file.display_uri}: the store kept failing: {reason}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise PictureError(stage, "Unreadable", f"{file.display_uri} can't be read: {reason}") from error
        if data is None or len(data) > most_bytes:
            message = f"the file is larger than any picture of --max_pixels {self._settings.max_pixels} can be"
            raise PictureError(stage, "FileTooLarge", f"{message}, {most_bytes} bytes")
        return data

    def _failure(self, picture: Located, error: PictureError) -> Failure:
        """A failure has no mask: one that an earlier run or a first attempt left goes before the failure is told."""
        mask = mask_name(picture.image_id)
        try:
            for name in (mask, *names_beside(mask)):
                storage.delete(storage.join(self._settings.output, name))
        except OSError as fault:
            if fault.errno not in _NAME_FAULTS or storage.is_remote(self._settings.output):
                reason = fault.strerror or str(fault)
                raise StorageError(f"the output can't be written: {picture.image_id}: {reason}") from fault
        return Failure(
            picture.image_id,
            picture.image.display_uri,
            error.stage,
            error.error_type,
            error.message,
            fingerprint(picture, self._settings_digest),
        )


def _lacks_memory(error: Exception) -> bool:
    """Whether an engine's error is one of too little memory, in the words of LiteRT, TensorFlow and CUDA."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return named or bool(_OUT_OF_MEMORY.search(str(error)))


@contextmanager
def _timed(stage: str, seconds: Seconds) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] += time.perf_counter() - begin
