"""A picture's files into memory: what can't be read costs the picture, and what is too large is never read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.limits import max_file_bytes
from pipeline.core.ranged_file import RangedFile
from pipeline.core.records import FileRef, Located
from pipeline.core.tiff_windows import TIFF_SIGNATURES
from pipeline.segmenting.stage_clock import Seconds, timed
from pipeline.storage import filesystem

RANGED_FILE_BYTES = 64 << 20
"""Smaller files are read whole, which takes one request to a store."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture's files.

    Args:
        image: the whole file, or a large TIFF that is read by range.
        truth: the mask's whole file, or why it can't be read, which matters only if the picture itself is sound; None
            where there is no mask.
    """

    image: bytes | RangedFile
    truth: bytes | PictureError | None

    @property
    def image_bytes(self) -> int:
        """The size of the picture's file."""
        return len(self.image) if isinstance(self.image, bytes) else self.image.size_bytes

    @property
    def size_bytes(self) -> int:
        """The memory that both files take."""
        return sum(len(data) for data in (self.image, self.truth) if isinstance(data, bytes))


def expected_bytes(picture: Located) -> int:
    """The size of a picture's files as listed; 0 if unknown."""
    return sum(max(0, file.size_bytes) for file in (picture.image, picture.truth) if file is not None)


class Fetcher:
    """Reads pictures and masks; thread-safe.

    Args:
        read: reads a file by its reference.
        max_pixels: files larger than any picture of `max_pixels` can be are rejected.
        open_ranged: opens a file to be read by range, None where that isn't possible; without it all files are read
            whole.
    """

    def __init__(
        self,
        read: Callable[[FileRef], bytes],
        max_pixels: int,
        open_ranged: Callable[[FileRef], RangedFile | None] | None = None,
    ) -> None:
        self._read = read
        self._open_ranged = open_ranged
        self._max_pixels = max_pixels
        self._max_bytes = max_file_bytes(max_pixels)

    def fetch(self, picture: Located, seconds: Seconds) -> Fetched:
        """Reads one picture and its mask.

        Args:
            picture: the located picture.
            seconds: receives the time of the stage `read`.

        Returns:
            The files.

        Raises:
            PictureError: stage `read`; the picture can't be read or is too large.
        """
        with timed("read", seconds):
            image = self._ranged(picture.image) or self._one(picture.image, "read")
            truth: bytes | PictureError | None = None
            if picture.truth is not None:
                try:
                    truth = self._one(picture.truth, "truth")
                except PictureError as error:
                    truth = error
            return Fetched(image, truth)

    def _ranged(self, file: FileRef) -> RangedFile | None:
        """A large TIFF, to be read by range; None for other files."""
        if self._open_ranged is None or file.size_bytes < RANGED_FILE_BYTES:
            return None
        opened = self._open_ranged(file)
        if opened is None:
            return None

        def read_range(offset: int, length: int) -> bytes:
            with _read_errors(file, "read"):
                return opened.read_at(offset, length)

        checked = RangedFile(read_range, opened.size_bytes)
        return checked if checked.read_at(0, 4) in TIFF_SIGNATURES else None

    def _one(self, file: FileRef, stage: str) -> bytes:
        with _read_errors(file, stage):
            data = self._read(file) if file.size_bytes <= self._max_bytes else None
        if data is None or len(data) > self._max_bytes:
            message = f"the file is larger than any picture of --max_pixels {self._max_pixels} can be"
            raise PictureError(stage, ErrorType.FILE_TOO_LARGE, f"{message}, {self._max_bytes} bytes")
        return data


@contextmanager
def _read_errors(file: FileRef, stage: str) -> Iterator[None]:
    """Turns what reading a file raises into a `PictureError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise PictureError(stage, ErrorType.MISSING, f"no such file: {file.display_uri}") from error
    except filesystem.StoreFaultError as error:
        reason = error.strerror or str(error)
        raise PictureError(
            stage, ErrorType.STORE_FAULT, f"{file.display_uri}: the store kept failing: {reason}"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureError(stage, ErrorType.UNREADABLE, f"{file.display_uri} can't be read: {reason}") from error
