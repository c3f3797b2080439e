"""A picture's files into memory: what can't be read costs the picture, and what is too large is never read."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.limits import max_file_bytes
from pipeline.core.records import FileRef, Located
from pipeline.segmenting.stage_clock import Seconds, timed
from pipeline.storage import filesystem


@dataclass(frozen=True, slots=True)
class Fetched:
    """A picture's files.

    Args:
        image: the whole file.
        truth: the mask's whole file, or why it can't be read, which matters only if the picture itself is sound; None
            where there is no mask.
    """

    image: bytes
    truth: bytes | PictureError | None

    @property
    def size_bytes(self) -> int:
        """The size of both files."""
        return len(self.image) + (len(self.truth) if isinstance(self.truth, bytes) else 0)


def expected_bytes(picture: Located) -> int:
    """The size of a picture's files as listed; 0 if unknown."""
    return sum(max(0, file.size_bytes) for file in (picture.image, picture.truth) if file is not None)


class Fetcher:
    """Reads pictures and masks; thread-safe.

    Args:
        read: reads a file by its reference.
        max_pixels: files larger than any picture of `max_pixels` can be are rejected.
    """

    def __init__(self, read: Callable[[FileRef], bytes], max_pixels: int) -> None:
        self._read = read
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
            image = self._one(picture.image, "read")
            truth: bytes | PictureError | None = None
            if picture.truth is not None:
                try:
                    truth = self._one(picture.truth, "truth")
                except PictureError as error:
                    truth = error
            return Fetched(image, truth)

    def _one(self, file: FileRef, stage: str) -> bytes:
        try:
            data = self._read(file) if file.size_bytes <= self._max_bytes else None
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
        if data is None or len(data) > self._max_bytes:
            message = f"the file is larger than any picture of --max_pixels {self._max_pixels} can be"
            raise PictureError(stage, ErrorType.FILE_TOO_LARGE, f"{message}, {self._max_bytes} bytes")
        return data
