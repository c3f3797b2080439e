"""From a file's reference to its bytes: whole files, ranges, members of zips, and copies in the spool."""

import zlib

from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.records import FileRef, Spooled, ZipMember
from pipeline.sources.archives.spool import parts_of
from pipeline.sources.archives.unpacking import inflated
from pipeline.sources.archives.zip import DEFLATED, LOCAL_HEADER, LOCAL_MARK
from pipeline.storage import filesystem

# What a local header may hold besides the name: times and owners of Unix tools, alignment of others. More costs a
# second request, not the picture.
_USUAL_EXTRA_BYTES = 64


class FileReader:
    """Reads what references name; shared by all threads of a process.

    Args:
        output: the job's absolute folder or bucket prefix, which holds the spool.
        max_bytes: a whole file is not read further than to one byte beyond; None for no limit. A manifest names files
            in buckets without their sizes.
    """

    def __init__(self, output: str, max_bytes: int | None = None) -> None:
        self._spool = filesystem.join(output, SPOOL_FOLDER)
        self._max_bytes = max_bytes

    def __call__(self, file: FileRef) -> bytes:
        """Reads a file's bytes.

        Args:
            file: where they are.

        Returns:
            Exactly the picture's bytes.

        Raises:
            OSError: they can't be read.
            ValueError: what is there is not what was listed.
        """
        match file.packing:
            case ZipMember() as packing:
                return _zip_member(file, packing)
            case Spooled() as place:
                return self._spooled(place, file.size_bytes)
            case None if file.offset_bytes < 0:
                return filesystem.read_bytes(file.uri, self._max_bytes)
            case None:
                return _exactly(file.uri, file.offset_bytes, file.size_bytes)

    def _spooled(self, place: Spooled, size_bytes: int) -> bytes:
        copy = b"".join(_exactly(filesystem.join(self._spool, part), *within) for part, *within in parts_of(place))
        data = inflated(copy, size_bytes) if place.is_deflated else copy
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
        raise ValueError("the archive's directory points to something that is no member")
    *_, name_length, extra_length = LOCAL_HEADER.unpack_from(first)
    begin = LOCAL_HEADER.size + name_length + extra_length
    packed = first[begin : begin + packed_bytes]
    if len(packed) < packed_bytes:
        packed += _exactly(file.uri, file.offset_bytes + begin + len(packed), packed_bytes - len(packed))
    data = inflated(packed, file.size_bytes) if packing.method == DEFLATED else packed
    if len(data) != file.size_bytes or zlib.crc32(data) != packing.crc32:
        raise ValueError("the archive's member is not what its directory says: its size or checksum differs")
    return data
