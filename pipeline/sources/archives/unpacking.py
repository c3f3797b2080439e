"""How much an archive may unpack to, and copying pictures out of a gzip stream within that, in bounded memory.

One rule holds for every compressed form: a file that unpacks to more than 1 GiB, or to more than 64 MiB and more than
100 times its packed size, is refused. Claims are checked before anything is unpacked, and what a stream really unpacks
to is counted as it is copied. Where the job knows how large a picture's file can be (`--max_pixels`), nothing larger is
copied.
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
"""A file of more bytes is refused: whoever decodes it holds it in memory whole."""
BOMB_BYTES, BOMB_RATIO = 64 << 20, 100
"""A file that unpacks to more than the first and to more than the second times its packed size is refused."""

_PIECE_BYTES, _MAX_PADDING_BYTES = 1 << 20, 1 << 20
# Above it the spool would take far more room than the archive; copies are deflated then, which costs little for what
# deflates so well. Below it are archives of JPEG and PNG, where it would cost time and bring nothing.
_DEFLATE_RATIO = 4
_Item = TypeVar("_Item")


class TooLargeError(ValueError):
    """A file of an archive unpacks to more than is allowed."""


def check_size(size_bytes: int, packed_bytes: int, max_bytes: int = MAX_MEMBER_BYTES) -> None:
    """Holds what a file unpacks to against the limits.

    Args:
        size_bytes: its length, as claimed or as unpacked so far.
        packed_bytes: what it takes in the archive, or took so far.
        max_bytes: the most that it may have.

    Raises:
        TooLargeError: it is above one of them.
    """
    if size_bytes > max_bytes:
        raise TooLargeError(f"it has {size_bytes:,} bytes, more than {max_bytes:,}")
    if size_bytes > BOMB_BYTES and size_bytes > BOMB_RATIO * packed_bytes:
        raise TooLargeError(f"it unpacks to more than {BOMB_BYTES:,} bytes and {BOMB_RATIO} times its packed size")


class Unpacker:
    """Copies pictures out of a file that is compressed by gzip as a whole.

    Args:
        stored: the file.
        spool_root: the output's spool folder; None to find out names alone, without writing anything.
        max_bytes: longer pictures are not copied.
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
            source: `stream`, or what reads from it.
            offset: where the picture begins in the unpacked content.
            length: how long it is.
            name: the member's.

        Returns:
            The copy.

        Raises:
            TooLargeError: it is above the limits; what was read till then is lost.
            EOFError: the content ends before it does.
            StorageError: the spool can't be written.
        """
        check_size(length, length, self._max_bytes)
        is_deflated = self.stream.unpacked_bytes > _DEFLATE_RATIO * self.stream.packed_bytes
        pieces = self._pieces(source, offset, length)
        place = self._spool.add(_deflated(pieces) if is_deflated else pieces, is_deflated=is_deflated)
        return FileRef(self._stored.uri, length, self._stored.version, offset, name, place)

    def explained(self, items: Iterator[_Item | Fault]) -> Iterator[_Item | Fault]:
        """Walks the content, and reports a file that is cut off or broken as such.

        Args:
            items: what a walk of `stream` yields.

        Yields:
            The same; where the file ends before its end, or only its checksum is wrong, one fault that says so.
        """
        has_fault = False
        for item in items:
            if isinstance(item, Fault):
                has_fault = True
                if fault := self.stream.fault:
                    item = Fault(fault.error_type, f"{fault.message}; {item.message}")
            yield item
        if not has_fault:
            # The checksum comes last, behind the zeros with which tar fills up its last block.
            self.stream.skip(_MAX_PADDING_BYTES)
            if self.stream.fault:
                yield self.stream.fault

    def finish(self) -> None:
        """Writes what the spool still holds.

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
    """Unpacks raw deflate data, and never more than was promised and one byte.

    Args:
        packed: the compressed data.
        size_bytes: what it should unpack to.

    Raises:
        ValueError: it is broken.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(packed, size_bytes + 1)
    except zlib.error as error:
        raise ValueError(f"its packed data can't be unpacked: {error}") from error
