"""What walking an archive yields, whatever its format, and the bound on every number that an archive claims."""

from dataclasses import dataclass
from typing import Protocol

from pipeline.core.errors import ErrorType
from pipeline.core.records import ZipMember

MAX_BYTES = 1 << 60
"""The largest size or offset that a walk accepts; an exbibyte is more than any store keeps in one file."""


def bounded(number: int) -> int:
    """Checks a size, length or offset that an archive claims.

    Args:
        number: as the archive has it.

    Returns:
        The same number.

    Raises:
        ValueError: it is negative or larger than `MAX_BYTES`.
    """
    if not 0 <= number <= MAX_BYTES:
        raise ValueError(f"it claims {number:,} bytes" if number < 0 else f"it claims more than {MAX_BYTES:,} bytes")
    return number


class ByteSource(Protocol):
    """Bytes by their place; a stream takes places in ascending order only."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Reads `length` bytes from `offset`; fewer where the source ends.

        Raises:
            OSError: the source can't be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive. Nothing in it is trusted: names, sizes and kinds are what the archive claims.

    Args:
        name: as written, `/` between its parts; bytes that are not UTF-8 as surrogates.
        offset_bytes: where its data begins; for a zip member its local header.
        size_bytes: length of the data once unpacked.
        odd_kind: why it is no plain file (`a symbolic link`, …), "" for a plain file.
        packing: how a zip stores the data; None where a range of the archive is the data.
        packed_bytes: length of the data within the archive.
    """

    name: str
    offset_bytes: int
    size_bytes: int
    odd_kind: str = ""
    packing: ZipMember | None = None
    packed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Where an archive ends before its end, or can't be followed any further.

    Args:
        error_type: `TRUNCATED` or `BROKEN_ARCHIVE`.
        message: one sentence for a person.
    """

    error_type: ErrorType
    message: str
