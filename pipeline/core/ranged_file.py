"""A file that is read by ranges, for formats whose parts can be decoded one by one."""

import io
from collections.abc import Callable
from typing import Any

_BLOCK_BYTES = 1 << 16


class RangedFile(io.RawIOBase):
    """A binary file, readable and seekable, whose bytes a function reads by range; used by one thread at a time.

    Args:
        read_range: gives `length` bytes from `offset`, fewer at the end of the file.
        size_bytes: the file's length.
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size_bytes: int) -> None:
        super().__init__()
        self._read_range = read_range
        self.size_bytes = size_bytes
        self._position = 0
        self._block: tuple[int, bytes] = (0, b"")

    @staticmethod
    def of_bytes(data: bytes) -> "RangedFile":
        """A file whose content is in memory."""
        return RangedFile(lambda offset, length: data[offset : offset + length], len(data))

    def read_at(self, offset: int, length: int) -> bytes:
        """Reads a range; fewer bytes at the end of the file. The position does not change."""
        length = max(0, min(length, self.size_bytes - offset))
        return self._read_range(offset, length) if length else b""

    def readable(self) -> bool:
        """As in `io`."""
        return True

    def seekable(self) -> bool:
        """As in `io`."""
        return True

    def tell(self) -> int:
        """As in `io`."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As in `io`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """As in `io`; small reads, as of a header's numbers, share a block."""
        target = memoryview(buffer).cast("B")
        data = (
            self._small(len(target)) if len(target) < _BLOCK_BYTES // 2 else self.read_at(self._position, len(target))
        )
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _small(self, length: int) -> bytes:
        begin, block = self._block
        at = self._position - begin
        if not 0 <= at <= at + length <= len(block):
            self._block = begin, block = self._position, self.read_at(self._position, _BLOCK_BYTES)
            at = 0
        return block[at : at + length]
