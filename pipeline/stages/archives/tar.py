"""Walking a tar: the headers of its members, one after the other, in constant memory.

The formats are ustar and pax (POSIX.1-2017, pax, "Extended Description") and GNU's (GNU tar manual, "Basic Tar
Format"). Python's own `tarfile` keeps a record of every member and reads extended headers of any length into memory;
here a header that claims more than `_LONGEST_EXTENSION_BYTES` ends the walk.
"""

from collections.abc import Iterator

from pipeline.stages.archives.members import ByteSource, Fault, Member

BLOCK_BYTES = 512
_LONGEST_EXTENSION_BYTES = 1 << 20
_ODD_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}
_FOLDER = b"5"
_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_EXTENSIONS = frozenset((b"x", b"g", b"L", b"K"))


def walk_tar(source: ByteSource) -> Iterator[Member | Fault]:
    """Walks a tar's members in their order.

    Args:
        source: the uncompressed tar. The data of a member may be read from it before the next member is asked for.

    Yields:
        The members without folders; where the archive is cut off or broken a fault, and nothing after it. Whether a
        member's data is whole is the caller's to see.

    Raises:
        OSError: the source can't be read.
    """
    offset = 0
    shared: dict[str, str] = {}
    own: dict[str, str] = {}
    while True:
        header = source.read_at(offset, BLOCK_BYTES)
        if len(header) < BLOCK_BYTES:
            yield Fault("Truncated", f"the archive is cut off after {offset + len(header):,} bytes; it has no end mark")
            return
        if not header.strip(b"\0"):
            return
        try:
            _check(header)
            kind, size = header[156:157], _number(header[124:136])
            if kind in _EXTENSIONS:
                data = _extension(source, offset + BLOCK_BYTES, size)
                if kind == b"g":
                    shared |= _pax_records(data)
                elif kind == b"x":
                    own |= _pax_records(data)
                elif kind == b"L":
                    own["path"] = _text(data)
                offset += BLOCK_BYTES + _padded(size)
                continue
            records = shared | own
            if kind not in _WITHOUT_DATA and "size" in records:
                size = int(records["size"])
                if size < 0:
                    raise ValueError("a member has a negative size")
        except ValueError as error:
            yield Fault("BrokenArchive", f"the archive can't be followed beyond byte {offset:,}: {error}")
            return
        except EOFError:
            yield Fault("Truncated", f"the archive is cut off in the header at byte {offset:,}")
            return
        own = {}
        begin = offset + BLOCK_BYTES
        # What comes next is known before the member is handed out: its data may be read meanwhile.
        offset = begin if kind in _WITHOUT_DATA else begin + _padded(size)
        name = records.get("path") or _ustar_name(header)
        if kind != _FOLDER and not name.endswith("/"):
            is_sparse = any(key.startswith("GNU.sparse.") for key in records)
            odd_kind = "a sparse file" if is_sparse else _ODD_KINDS.get(kind, "")
            yield Member(name, begin, size, odd_kind, "", size)


def _check(header: bytes) -> None:
    expected = _number(header[148:156])
    rest = header[:148] + b" " * 8 + header[156:]
    # Some old tars summed signed bytes.
    if expected != sum(rest) != expected + 256 * sum(byte > 127 for byte in rest):
        raise ValueError("what should be a header is none")


def _number(field: bytes) -> int:
    """A number of the header: octal text, or GNU's base 256 where the first bit is set."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise ValueError("a member has a negative size or one beyond all bounds")
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0", 1)[0].strip()
    return int(text, 8) if text else 0


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _extension(source: ByteSource, offset: int, size: int) -> bytes:
    if size > _LONGEST_EXTENSION_BYTES:
        raise ValueError(f"a header claims {size:,} bytes")
    data = source.read_at(offset, size)
    if len(data) < size:
        raise EOFError
    return data


def _pax_records(data: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of a pax header."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position]:
        length_text, blank, _ = data[position : position + 20].partition(b" ")
        length = int(length_text) if blank else 0
        record = data[position : position + length]
        if length < 5 or len(record) < length or not record.endswith(b"\n"):
            raise ValueError("a pax header is malformed")
        key, equals, value = record[len(length_text) + 1 : -1].partition(b"=")
        if not equals:
            raise ValueError("a pax header is malformed")
        records[_text(key)] = _text(value)
        position += length
    return records


def _ustar_name(header: bytes) -> str:
    name, prefix = _text(header[:100]), ""
    # GNU's own format keeps times where ustar keeps the prefix.
    if header[257:263] == b"ustar\0":
        prefix = _text(header[345:500])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
