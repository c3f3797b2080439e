"""Reads the members of a zip file from its central directory, or without one from local headers, in constant memory.

The format is PKWARE's APPNOTE 6.3.10. Python's `zipfile` reads the whole directory and keeps an object for every
member, about a gigabyte for a million; here the directory is read in pieces.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.core.errors import ErrorType
from pipeline.core.records import ZipMember
from pipeline.sources.archives.members import ByteSource, Fault, Member

STORED, DEFLATED = 0, 8
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
LOCAL_MARK = b"PK\3\4"
_CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
_CENTRAL_MARK = b"PK\1\2"
_END = struct.Struct("<4s4H2LH")
_END_MARK = b"PK\5\6"
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_MAX_COMMENT_BYTES = 65_535
_MAX_OVERHEAD_BYTES = 64 << 10
_IN_EXTRA = 0xFFFFFFFF
_ENCRYPTED, _SIZES_FOLLOW, _UTF8 = 0x1, 0x8, 0x800
_DIRECTORY_PIECE_BYTES = 256 << 10
_STREAM_PIECE_BYTES = 64 << 10
_FOLDER_ATTRIBUTE = 0x10
_UNIX, _DOS = 3, 0
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}
_UNIX_TYPES = {
    0o120000: "a symbolic link",
    0o020000: "a character device",
    0o060000: "a block device",
    0o010000: "a named pipe",
    0o140000: "a socket",
}


@dataclass(frozen=True, slots=True)
class _Directory:
    """The location of the central directory; offsets are shifted by the number of bytes before the archive."""

    offset: int
    size: int
    entries: int
    shift: int


def walk_zip(source: ByteSource, size: int) -> Iterator[Member | Fault]:
    """Yields the members of a zip file in the order of its directory, or without one in the order of their data.

    Args:
        source: the archive.
        size: its length, bytes.

    Yields:
        The members, without folders; if the archive is truncated or broken, last a fault.

    Raises:
        OSError: the source can't be read.
    """
    try:
        directory = _find_directory(source, size)
    except ValueError:
        directory = None
    if directory is not None:
        yield from _walk_directory(source, size, directory)
        return
    if size and source.read_at(0, len(LOCAL_MARK)) != LOCAL_MARK:
        yield Fault(
            ErrorType.BROKEN_ARCHIVE, "the archive has neither a directory at its end nor a member at its start"
        )
        return
    yield from _walk_local_headers(source, size)
    yield Fault(ErrorType.TRUNCATED, "the archive has no directory at its end: it is truncated")


def _find_directory(source: ByteSource, size: int) -> _Directory | None:
    tail_offset = max(0, size - _END.size - _MAX_COMMENT_BYTES)
    # Most archives have no comment; only if the end record is not found, the maximum length of one is read.
    for begin in (max(0, size - _END.size - 512), tail_offset):
        tail = source.read_at(begin, size - begin)
        at = _end_record(tail)
        if at >= 0:
            break
    else:
        return None
    end = begin + at
    _, _, _, _, entries, length, offset, _ = _END.unpack_from(tail, at)
    end_of_directory = end
    locator = source.read_at(max(0, end - _END64_LOCATOR.size), _END64_LOCATOR.size)
    if end >= _END64_LOCATOR.size and locator.startswith(b"PK\6\7"):
        _, _, end64, _ = _END64_LOCATOR.unpack(locator)
        for place in (end64, end - _END64_LOCATOR.size - _END64.size):
            record = source.read_at(place, _END64.size) if 0 <= place < size else b""
            if record.startswith(b"PK\6\6") and len(record) == _END64.size:
                *_, entries, length, offset = _END64.unpack(record)
                end_of_directory = place
                break
    shift = end_of_directory - length - offset
    begin = offset + shift
    if shift < 0 or (entries and source.read_at(begin, 4) != _CENTRAL_MARK):
        return None
    return _Directory(begin, length, entries, shift)


def _end_record(tail: bytes) -> int:
    """The offset of the end record, -1 if there is none; a comment may contain the signature, too."""
    at = len(tail)
    while (at := tail.rfind(_END_MARK, 0, at)) >= 0:
        if len(tail) - at >= _END.size and at + _END.size + _END.unpack_from(tail, at)[7] == len(tail):
            return at
    return -1


def _walk_directory(source: ByteSource, size: int, directory: _Directory) -> Iterator[Member | Fault]:
    position, end = directory.offset, directory.offset + directory.size
    piece, piece_offset = b"", position

    def take(offset: int, length: int) -> bytes:
        nonlocal piece, piece_offset
        if offset + length > piece_offset + len(piece):
            piece_offset, piece = offset, source.read_at(offset, min(_DIRECTORY_PIECE_BYTES, max(length, end - offset)))
        return piece[offset - piece_offset : offset - piece_offset + length]

    for _ in range(directory.entries):
        header = take(position, _CENTRAL_HEADER.size)
        if len(header) < _CENTRAL_HEADER.size or not header.startswith(_CENTRAL_MARK):
            yield Fault(ErrorType.BROKEN_ARCHIVE, f"the archive's directory can't be read beyond byte {position:,}")
            return
        fields = _CENTRAL_HEADER.unpack(header)
        made_by, flags, method, crc32, packed, unpacked = fields[1], fields[3], fields[4], *fields[7:10]
        name_length, extra_length, comment_length = fields[10:13]
        attributes, offset = fields[15:17]
        variable = take(position + _CENTRAL_HEADER.size, name_length + extra_length)
        raw_name, extra = variable[:name_length], variable[name_length:]
        position += _CENTRAL_HEADER.size + name_length + extra_length + comment_length
        unpacked, packed, offset = _zip64(extra, unpacked, packed, offset)
        name = _name(raw_name, extra, flags, made_by >> 8)
        if name.endswith("/") or (made_by >> 8 == _DOS and attributes & _FOLDER_ATTRIBUTE):
            continue
        not_plain = _UNIX_TYPES.get((attributes >> 16) & 0o170000, "") if made_by >> 8 == _UNIX else ""
        offset += directory.shift
        if not not_plain and offset + LOCAL_HEADER.size + packed > size:
            not_plain = "truncated: its data ends beyond the end of the archive"
        yield _member(name, offset, unpacked, packed, method, crc32, flags, not_plain)


def _member(
    name: str, offset: int, unpacked: int, packed: int, method: int, crc32: int, flags: int, not_plain: str
) -> Member:
    if not not_plain and flags & _ENCRYPTED:
        not_plain = "encrypted"
    if not not_plain and method not in (STORED, DEFLATED):
        not_plain = f"compressed by {_METHODS.get(method, f'method {method}')}, which is not supported"
    # Deflate adds only a few bytes to incompressible data.
    max_packed = unpacked if method == STORED else 2 * unpacked + _MAX_OVERHEAD_BYTES
    if not not_plain and (packed > max_packed or (method == STORED and packed < unpacked)):
        not_plain = f"broken: {packed:,} packed bytes can't be {unpacked:,} unpacked ones"
    return Member(name, offset, unpacked, not_plain, ZipMember(method, packed, crc32), packed)


def _walk_local_headers(source: ByteSource, size: int) -> Iterator[Member]:
    """Yields the members of a zip file without a directory; an incomplete one ends the walk."""
    position = 0
    while True:
        header = source.read_at(position, LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(LOCAL_MARK):
            return
        _, _, flags, method, _, _, crc32, packed, unpacked, name_length, extra_length = LOCAL_HEADER.unpack(header)
        variable = source.read_at(position + LOCAL_HEADER.size, name_length + extra_length)
        raw_name, extra = variable[:name_length], variable[name_length:]
        begin = position + LOCAL_HEADER.size + name_length + extra_length
        following = begin
        if flags & _SIZES_FOLLOW:
            measured = _measure_deflated(source, begin) if method == DEFLATED else None
            if measured is None:
                return
            packed, unpacked, crc32 = measured
            descriptor = source.read_at(begin + packed, 4)
            # The descriptor may have a signature, and 4-byte or 8-byte sizes, which the next header's offset shows.
            marked = 4 if descriptor == b"PK\7\x08" else 0
            is_long = source.read_at(begin + packed + marked + 12, 2) != b"PK"
            following = begin + packed + marked + (20 if is_long else 12)
        else:
            unpacked, packed, _ = _zip64(extra, unpacked, packed, 0)
            following = begin + packed
        if begin + packed > size:
            return
        name = _name(raw_name, extra, flags, _UNIX)
        if not name.endswith("/"):
            yield _member(name, position, unpacked, packed, method, crc32, flags, "")
        position = following


def _measure_deflated(source: ByteSource, begin: int) -> tuple[int, int, int] | None:
    """Packed length, unpacked length and CRC-32 of deflated data without sizes in its header; None if truncated."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    position, unpacked, crc32 = begin, 0, 0
    pending, is_full = b"", False
    while not inflater.eof:
        if not pending and not is_full:
            pending = source.read_at(position, _STREAM_PIECE_BYTES)
            position += len(pending)
            if not pending:
                return None
        try:
            data = inflater.decompress(pending, _STREAM_PIECE_BYTES)
        except zlib.error:
            return None
        unpacked += len(data)
        crc32 = zlib.crc32(data, crc32)
        pending, is_full = inflater.unconsumed_tail, len(data) == _STREAM_PIECE_BYTES
    return position - len(inflater.unused_data) - begin, unpacked, crc32


def _zip64(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Replaces values that don't fit into 32 bits by those of the zip64 extra field."""
    wide = _extra_field(extra, 0x0001)
    numbers = [unpacked, packed, offset]
    at = 0
    for index, number in enumerate(numbers):
        if number == _IN_EXTRA and at + 8 <= len(wide):
            (numbers[index],) = struct.unpack_from("<Q", wide, at)
            at += 8
    return numbers[0], numbers[1], numbers[2]


def _extra_field(extra: bytes, wanted: int) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return b""


def _name(raw: bytes, extra: bytes, flags: int, made_by: int) -> str:
    """The member's name: UTF-8 if flagged so or valid, else in code page 437, the default of the format."""
    unicode_field = _extra_field(extra, 0x7075)
    if len(unicode_field) > 5 and struct.unpack_from("<L", unicode_field, 1)[0] == zlib.crc32(raw):
        raw, flags = unicode_field[5:], flags | _UTF8
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")
    # Some tools on Windows write backslashes, which the format does not allow.
    return name.replace("\\", "/") if made_by == _DOS and "/" not in name else name
