"""Reads the bytes of file references: whole files, ranges, members of zip files, and copies in the spool."""

import zlib

from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.ranged_file import RangedFile
from pipeline.core.records import FileRef, Spooled, ZipMember
from pipeline.sources.archives.spool import parts_of
from pipeline.sources.archives.unpacking import inflated
from pipeline.sources.archives.zip import DEFLATED, LOCAL_HEADER, LOCAL_MARK
from pipeline.storage import filesystem

# Bytes of extra fields that are read with a local header. They hold times and owners, or padding; more than this needs
# a second request.
_USUAL_EXTRA_BYTES = 64


class FileReader:
    """Reads files by reference; thread-safe.

    Args:
        output: the job's absolute folder or bucket prefix, which has the spool.
        max_bytes: maximum number of bytes of a whole file, of which one more is read; None for no limit. Needed because
            a reference may have no size.
    """

    def __init__(self, output: str, max_bytes: int | None = None) -> None:
        self._spool = filesystem.join(output, SPOOL_FOLDER)
        self._max_bytes = max_bytes

    def __call__(self, file: FileRef) -> bytes:
        """Reads a file.

        Args:
            file: its reference.

        Returns:
            Its content.

        Raises:
            OSError: it can't be read.
            ValueError: the content is not the one that was listed.
        """
        match file.packing:
            case ZipMember() as packing:
                return _zip_member(file, packing)
            case Spooled() as copy:
                return self._spooled(copy, file.size_bytes)
            case None if file.offset_bytes < 0:
                return filesystem.read_bytes(file.uri, self._max_bytes)
            case None:
                return _exactly(file.uri, file.offset_bytes, file.size_bytes)

    def open_ranged(self, file: FileRef) -> RangedFile | None:
        """Opens a file to be read by range: a plain one, or an uncompressed member of an uncompressed archive.

        Args:
            file: its reference.

        Returns:
            The file, of which nothing is read yet; None if its size is unknown or it is packed.
        """
        if file.packing is not None or file.size_bytes < 0:
            return None
        begin = max(0, file.offset_bytes)

        def read_range(offset: int, length: int) -> bytes:
            return filesystem.read_range(file.uri, begin + offset, length)

        return RangedFile(read_range, file.size_bytes)

    def _spooled(self, copy: Spooled, size_bytes: int) -> bytes:
        packed = b"".join(_exactly(filesystem.join(self._spool, part), *within) for part, *within in parts_of(copy))
        data = inflated(packed, size_bytes) if copy.is_deflated else packed
        if len(data) != size_bytes:
            raise ValueError(f"its copy in the spool has {len(data):,} bytes, not {size_bytes:,}")
        return data


def _exactly(uri: str, offset: int, length: int) -> bytes:
    data = filesystem.read_range(uri, offset, length)
    if len(data) != length:
        raise ValueError(f"it ends {length - len(data):,} bytes before what was listed")
    return data


def _zip_member(file: FileRef, packing: ZipMember) -> bytes:
    packed_bytes = packing.packed_bytes
    name_bytes = len(file.member.encode("utf-8", "surrogateescape"))
    first = filesystem.read_range(
        file.uri, file.offset_bytes, LOCAL_HEADER.size + name_bytes + _USUAL_EXTRA_BYTES + packed_bytes
    )
    if len(first) < LOCAL_HEADER.size or not first.startswith(LOCAL_MARK):
        raise ValueError("the archive's directory points to an offset without a member")
    *_, name_length, extra_length = LOCAL_HEADER.unpack_from(first)
    begin = LOCAL_HEADER.size + name_length + extra_length
    packed = first[begin : begin + packed_bytes]
    if len(packed) < packed_bytes:
        packed += _exactly(file.uri, file.offset_bytes + begin + len(packed), packed_bytes - len(packed))
    data = inflated(packed, file.size_bytes) if packing.method == DEFLATED else packed
    if len(data) != file.size_bytes or zlib.crc32(data) != packing.crc32:
        raise ValueError("the archive's member has another size or checksum than in the directory")
    return data
