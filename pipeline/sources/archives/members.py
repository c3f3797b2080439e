"""Members of archives of any format, and the bounds on sizes and offsets in archives."""

from dataclasses import dataclass
from typing import Protocol

from pipeline.core.errors import ErrorType
from pipeline.core.records import ZipMember

MAX_BYTES = 1 << 60
"""The largest size or offset that is accepted: an exbibyte, more than any store allows for one file."""


def bounded(number: int) -> int:
    """Checks a size, length or offset in an archive.

    Args:
        number: as in the archive.

    Returns:
        The same number.

    Raises:
        ValueError: it is negative or larger than `MAX_BYTES`.
    """
    if not 0 <= number <= MAX_BYTES:
        raise ValueError(f"it claims {number:,} bytes" if number < 0 else f"it claims more than {MAX_BYTES:,} bytes")
    return number


class ByteSource(Protocol):
    """Random access to bytes; a stream supports ascending offsets only."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Reads `length` bytes from `offset`; fewer at the end of the source.

        Raises:
            OSError: the source can't be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive; its values are those in the archive and are not trusted.

    Args:
        name: as written, with `/` between its parts; bytes that are not UTF-8 are surrogates.
        offset_bytes: offset of its data; of its local header in a zip file.
        size_bytes: length of the unpacked data.
        not_plain: why it is not a plain file (`a symbolic link`, …); "" for a plain file.
        packing: how a zip file stores the data; None if the data is a range of the archive.
        packed_bytes: length of the data in the archive.
    """

    name: str
    offset_bytes: int
    size_bytes: int
    not_plain: str = ""
    packing: ZipMember | None = None
    packed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A truncated archive, or one that can't be read any further.

    Args:
        error_type: `TRUNCATED` or `BROKEN_ARCHIVE`.
        message: one sentence for a person.
    """

    error_type: ErrorType
    message: str
