"""Bytes of archives by their place: of a stored file by ranged reads, of a compressed one as a stream."""

import zlib
from collections.abc import Iterator

from pipeline.core.errors import ErrorType
from pipeline.sources.archives.members import Fault
from pipeline.storage import filesystem

GZIP_MARK = b"\x1f\x8b"
_PIECE_BYTES = 256 << 10


class StoredBytes:
    """A stored file, read by range; an offset beyond its end costs no request.

    Args:
        uri: absolute path or URI.
        size_bytes: its length. File systems refuse offsets far beyond it, so they are not asked.
    """

    def __init__(self, uri: str, size_bytes: int) -> None:
        self._uri = uri
        self._size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ByteSource.read_at`."""
        length = min(length, self._size_bytes - offset)
        return filesystem.read_range(self._uri, offset, length) if length > 0 else b""


class GunzippedBytes:
    """A gzip file's content as a stream: places ascend, what is skipped is unpacked and forgotten.

    A file that is cut off or broken ends early; `fault` says why.

    Args:
        uri: absolute path or URI.
    """

    def __init__(self, uri: str) -> None:
        self._pieces = self._unpack(filesystem.read_pieces(uri))
        self._buffer = b""
        self._offset = 0
        self.packed_bytes = 0
        """How much of the file has been unpacked."""
        self.unpacked_bytes = 0
        """What it was unpacked to."""
        self.fault: Fault | None = None
        """Why the content ended before its end."""

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
        """Goes on by so many bytes, or to the end."""
        while count > 0 and (self._buffer or self._refill()):
            step = min(count, len(self._buffer))
            self._buffer = self._buffer[step:]
            self._offset += step
            count -= step

    def _refill(self) -> bool:
        self._buffer = next(self._pieces, b"")
        return bool(self._buffer)

    def _unpack(self, packed_pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Unpacks the members of a gzip file one after the other, never more than a piece at a time."""
        inflater = zlib.decompressobj(31)
        begun, read_bytes = False, 0
        for packed in packed_pieces:
            read_bytes += len(packed)
            pending, is_full = packed, False
            # A full piece may leave more in the inflater although all of its input is taken.
            while pending or is_full:
                if inflater.eof:
                    # A further gzip member, or the zeros with which tapes are filled up.
                    pending = pending.lstrip(b"\0")
                    inflater, begun = zlib.decompressobj(31), False
                    continue
                try:
                    data = inflater.decompress(pending, _PIECE_BYTES)
                except zlib.error as error:
                    self.fault = Fault(ErrorType.BROKEN_ARCHIVE, f"the compressed data is broken: {error}")
                    return
                begun, is_full = True, len(data) == _PIECE_BYTES and not inflater.eof
                pending = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                # A read of storage is many pieces long: what of it waits is not unpacked yet.
                self.packed_bytes, self.unpacked_bytes = read_bytes - len(pending), self.unpacked_bytes + len(data)
                if data:
                    yield data
        if begun and not inflater.eof:
            self.fault = Fault(ErrorType.TRUNCATED, "the compressed data is cut off")
