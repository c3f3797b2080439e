"""What walking an archive gives, whatever its format."""

from dataclasses import dataclass
from typing import Protocol


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
        codec: as in `FileRef`.
        packed_bytes: length of the data within the archive.
    """

    name: str
    offset_bytes: int
    size_bytes: int
    odd_kind: str = ""
    codec: str = ""
    packed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Where an archive ends before its end, or can't be followed any further.

    Args:
        error_type: `Truncated` or `BrokenArchive`.
        message: one sentence for a person.
    """

    error_type: str
    message: str
