"""Access to the bytes of archives: by range requests, or as a stream if they are compressed."""

import zlib
from collections.abc import Iterator

from pipeline.core.errors import ErrorType
from pipeline.sources.archives.members import Fault
from pipeline.storage import filesystem

GZIP_MARK = b"\x1f\x8b"
_PIECE_BYTES = 256 << 10


class StoredBytes:
    """A stored file, read by range; reading beyond its end needs no request.

    Args:
        uri: absolute path or URI.
        size_bytes: its length; file systems reject offsets far beyond it.
    """

    def __init__(self, uri: str, size_bytes: int) -> None:
        self._uri = uri
        self._size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ByteSource.read_at`."""
        length = min(length, self._size_bytes - offset)
        return filesystem.read_range(self._uri, offset, length) if length > 0 else b""


class GunzippedBytes:
    """The content of a gzip file as a stream: offsets ascend, and skipped content is decompressed and discarded.

    The content of a truncated or broken file ends early, and `fault` has the reason.

    Args:
        uri: absolute path or URI.
    """

    def __init__(self, uri: str) -> None:
        self._pieces = self._unpack(filesystem.read_pieces(uri))
        self._buffer = b""
        self._offset = 0
        self.packed_bytes = 0
        """Compressed bytes read so far."""
        self.unpacked_bytes = 0
        """Decompressed bytes so far."""
        self.fault: Fault | None = None
        """Why the content ended early; None if it did not."""

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ByteSource.read_at`.

        Raises:
            ValueError: the offset is before what was already read.
        """
        if offset < self._offset:
            raise ValueError("a stream can't be read backwards")
        self.skip(offset - self._offset)
        parts: list[bytes] = []
        while length > 0 and (self._buffer or self._refill()):
            part, self._buffer = self._buffer[:length], self._buffer[length:]
            parts.append(part)
            length -= len(part)
            self._offset += len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Skips a number of bytes, or to the end."""
        while count > 0 and (self._buffer or self._refill()):
            step = min(count, len(self._buffer))
            self._buffer = self._buffer[step:]
            self._offset += step
            count -= step

    def _refill(self) -> bool:
        self._buffer = next(self._pieces, b"")
        return bool(self._buffer)

    def _unpack(self, packed_pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Decompresses the members of a gzip file, at most one piece at a time."""
        inflater = zlib.decompressobj(31)
        started, read_bytes = False, 0
        for packed in packed_pieces:
            read_bytes += len(packed)
            pending, is_full = packed, False
            # After a full piece, the inflater may have more output although all input is consumed.
            while pending or is_full:
                if inflater.eof:
                    # Another gzip member, or zero padding as on tapes.
                    pending = pending.lstrip(b"\0")
                    inflater, started = zlib.decompressobj(31), False
                    continue
                try:
                    data = inflater.decompress(pending, _PIECE_BYTES)
                except zlib.error as error:
                    self.fault = Fault(ErrorType.BROKEN_ARCHIVE, f"the compressed data is broken: {error}")
                    return
                started, is_full = True, len(data) == _PIECE_BYTES and not inflater.eof
                pending = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                # One read of storage has many pieces; the pending ones are not decompressed yet.
                self.packed_bytes, self.unpacked_bytes = read_bytes - len(pending), self.unpacked_bytes + len(data)
                if data:
                    yield data
        if started and not inflater.eof:
            self.fault = Fault(ErrorType.TRUNCATED, "the compressed data is truncated")
