"""Limits for decompression, and copying of pictures from a gzip stream within these limits, in bounded memory.

For all compressed formats, a file that unpacks to more than 1 GiB, or to more than 64 MiB and more than 100 times its
packed size, is rejected. Sizes in headers are checked before anything is unpacked, and the actual size of a stream is
counted while it is copied. No file is copied that is larger than a picture of `--max_pixels` can be.
"""

import zlib
from collections.abc import Iterator
from typing import TypeVar

from pipeline.core.records import FileRef
from pipeline.sources.archives.members import ByteSource, Fault
from pipeline.sources.archives.spool import Spool
from pipeline.sources.archives.streams import GunzippedBytes
from pipeline.storage import filesystem

MAX_MEMBER_BYTES = 1 << 30
"""A larger file is rejected, because a decoder has the whole file in memory."""
BOMB_BYTES, BOMB_RATIO = 64 << 20, 100
"""A file is rejected that unpacks to more than the first, and to more than the second times its packed size."""

_PIECE_BYTES, _MAX_PADDING_BYTES = 1 << 20, 1 << 20
# Above this ratio copies are compressed, because the spool would be far larger than the archive. Below it are archives
# of JPEG and PNG files, where compression has no effect.
_DEFLATE_RATIO = 4
_Item = TypeVar("_Item")


class TooLargeError(ValueError):
    """A file of an archive unpacks to more bytes than allowed."""


def check_size(size_bytes: int, packed_bytes: int, max_bytes: int = MAX_MEMBER_BYTES) -> None:
    """Checks the unpacked size of a file against the limits.

    Args:
        size_bytes: unpacked size, as in the header or so far.
        packed_bytes: packed size, as in the header or so far.
        max_bytes: maximum unpacked size.

    Raises:
        TooLargeError: it is above a limit.
    """
    if size_bytes > max_bytes:
        raise TooLargeError(f"it has {size_bytes:,} bytes, more than {max_bytes:,}")
    if size_bytes > BOMB_BYTES and size_bytes > BOMB_RATIO * packed_bytes:
        raise TooLargeError(f"it unpacks to more than {BOMB_BYTES:,} bytes and {BOMB_RATIO} times its packed size")


class Unpacker:
    """Copies pictures from a file that is compressed by gzip.

    Args:
        stored: the file.
        spool_root: the output's spool folder; None to list names only.
        max_bytes: larger pictures are not copied.
    """

    def __init__(self, stored: filesystem.StoredFile, spool_root: str | None, max_bytes: int) -> None:
        self._stored = stored
        self._spool = Spool(spool_root, (stored.uri, stored.size_bytes, stored.version))
        self._max_bytes = min(max_bytes, MAX_MEMBER_BYTES)
        self.stream = GunzippedBytes(stored.uri)
        """The unpacked content."""

    def copy(self, source: ByteSource, offset: int, length: int, name: str = "") -> FileRef:
        """Copies one picture to the spool.

        Args:
            source: `stream`, or a source that reads from it.
            offset: offset of the picture in the unpacked content.
            length: length of the picture.
            name: name of the member.

        Returns:
            The reference of the copy.

        Raises:
            TooLargeError: it is above the limits.
            EOFError: the content ends within it.
            StorageError: the spool can't be written.
        """
        check_size(length, length, self._max_bytes)
        is_deflated = self.stream.unpacked_bytes > _DEFLATE_RATIO * self.stream.packed_bytes
        pieces = self._pieces(source, offset, length)
        copy = self._spool.add(_deflated(pieces) if is_deflated else pieces, is_deflated=is_deflated)
        return FileRef(self._stored.uri, length, self._stored.version, offset, name, copy)

    def with_stream_faults(self, items: Iterator[_Item | Fault]) -> Iterator[_Item | Fault]:
        """Adds faults of the gzip stream to the items of a walk.

        Args:
            items: from a walk of `stream`.

        Yields:
            The same items; if the stream is truncated or broken, one fault with the reason.
        """
        has_fault = False
        for item in items:
            if isinstance(item, Fault):
                has_fault = True
                if fault := self.stream.fault:
                    item = Fault(fault.error_type, f"{fault.message}; {item.message}")
            yield item
        if not has_fault:
            # The checksum follows the padding of the last block of tar.
            self.stream.skip(_MAX_PADDING_BYTES)
            if self.stream.fault:
                yield self.stream.fault

    def finish(self) -> None:
        """Writes the last part of the spool.

        Raises:
            StorageError: it can't be written.
        """
        self._spool.finish()

    def _pieces(self, source: ByteSource, offset: int, length: int) -> Iterator[bytes]:
        packed_before = self.stream.packed_bytes
        taken = 0
        while taken < length:
            piece = source.read_at(offset + taken, min(_PIECE_BYTES, length - taken))
            if not piece:
                raise EOFError
            taken += len(piece)
            check_size(taken, self.stream.packed_bytes - packed_before, self._max_bytes)
            yield piece


def _deflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def inflated(packed: bytes, size_bytes: int) -> bytes:
    """Decompresses raw deflate data to at most `size_bytes` + 1 bytes.

    Args:
        packed: the compressed data.
        size_bytes: the expected size.

    Raises:
        ValueError: the data is broken.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(packed, size_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"its packed data can't be decompressed: {error}") from error
