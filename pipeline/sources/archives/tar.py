"""Walking a tar: the headers of its members, one after the other, in constant memory.

The formats are ustar and pax (POSIX.1-2017, pax, "Extended Description") and GNU's (GNU tar manual, "Basic Tar
Format"). Python's own `tarfile` keeps a record of every member and reads extended headers of any length into memory;
here a header that claims more than `_MAX_EXTENSION_BYTES` ends the walk.
"""

import re
from collections.abc import Iterator

from pipeline.core.errors import ErrorType
from pipeline.sources.archives.members import ByteSource, Fault, Member, bounded

BLOCK_BYTES = 512
_MAX_EXTENSION_BYTES = 1 << 20
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
# What the walk takes from pax records; others, such as the comment with which `git archive` begins, change nothing.
_SPARSE = "GNU.sparse."
_OCTAL, _DECIMAL = re.compile(rb"[0-7]+"), re.compile(r"[0-9]{1,20}")


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
    walk = TarWalk(source)
    while not walk.is_over:
        found = walk.step()
        if found is not None:
            yield found


class TarWalk:
    """A place in a tar, and what the headers before it say of those behind it: with the bytes, all that decides them.

    Args:
        source: the uncompressed tar.
        offset: where a header begins.
    """

    def __init__(self, source: ByteSource, offset: int = 0) -> None:
        self._source = source
        self._shared: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._header: bytes | None = None
        self.offset = offset
        """Where the next header begins."""
        self.is_over = False
        """Whether the archive's end was seen, or a fault."""

    @property
    def is_plain(self) -> bool:
        """Whether no header before this place has a say in what follows, so that the place alone decides it."""
        return not self._shared and not self._own

    def jump(self, offset: int) -> None:
        """Goes on from another place."""
        self.offset, self._header = offset, None

    def step(self) -> Member | Fault | None:
        """Takes one header.

        Returns:
            The member whose header it is, a fault, or None: a folder, an extension of the next header, or the end.

        Raises:
            OSError: the source can't be read.
        """
        header, self._header = self._header, None
        if header is None:
            header = self._source.read_at(self.offset, BLOCK_BYTES)
        if len(header) < BLOCK_BYTES:
            return self._fault(
                ErrorType.TRUNCATED, f"the archive ends before the header at byte {self.offset:,}, without an end mark"
            )
        if not header.strip(b"\0"):
            self.is_over = True
            return None
        try:
            return self._take(header)
        except ValueError as error:
            message = f"the archive can't be followed beyond byte {self.offset:,}: {error}"
            return self._fault(ErrorType.BROKEN_ARCHIVE, message)
        except EOFError:
            return self._fault(ErrorType.TRUNCATED, f"the archive is cut off in the header at byte {self.offset:,}")

    def _take(self, header: bytes) -> Member | None:
        _check(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in _EXTENSIONS:
            data = self._extension(size)
            if kind == b"g":
                self._shared |= _pax_records(data)
            elif kind == b"x":
                self._own |= _pax_records(data)
            elif kind == b"L":
                self._own["path"] = _text(data)
            self.offset += BLOCK_BYTES + _padded(size)
            return None
        records = self._shared | self._own
        if kind not in _WITHOUT_DATA and "size" in records:
            size = _decimal(records["size"])
        self._own = {}
        begin = self.offset + BLOCK_BYTES
        # Set before the member is yielded: its data may be read meanwhile.
        self.offset = begin if kind in _WITHOUT_DATA else begin + _padded(size)
        name = records.get("path") or _ustar_name(header)
        if kind == _FOLDER or name.endswith("/"):
            return None
        odd_kind = "a sparse file" if _SPARSE in records else _ODD_KINDS.get(kind, "")
        return Member(name, begin, size, odd_kind, packed_bytes=size)

    def _extension(self, size: int) -> bytes:
        """An extended header's data, and with it in one read the header that it extends."""
        if size > _MAX_EXTENSION_BYTES:
            raise ValueError(f"a header claims {size:,} bytes")
        data = self._source.read_at(self.offset + BLOCK_BYTES, _padded(size) + BLOCK_BYTES)
        if len(data) < size:
            raise EOFError
        self._header = data[_padded(size) :]
        return data[:size]

    def _fault(self, error_type: ErrorType, message: str) -> Fault:
        self.is_over = True
        return Fault(error_type, message)


def is_header(block: bytes) -> bool:
    """Whether a block of a tar can be a member's header: whether its checksum is right."""
    try:
        _check(block)
    except ValueError:
        return False
    return True


def _check(header: bytes) -> None:
    expected = _number(header[148:156])
    rest = header[:148] + b" " * 8 + header[156:]
    # Some old tars summed signed bytes.
    if expected != sum(rest) != expected + 256 * sum(byte > 127 for byte in rest):
        raise ValueError("what should be a header is none")


def _number(field: bytes) -> int:
    """A number of a header: octal digits, or GNU's base 256 (signed, above a marker bit) where the first bit is set."""
    if field[0] & 0x80:
        # The bit below the marker is the sign.
        return bounded(int.from_bytes([(field[0] & 0x7F) | (field[0] & 0x40) << 1, *field[1:]], "big", signed=True))
    text = field.split(b"\0", 1)[0].strip()
    if text and not _OCTAL.fullmatch(text):
        raise ValueError("what should be an octal number is none")
    return int(text, 8) if text else 0


def _decimal(text: str | bytes) -> int:
    """A number of a pax header. `int` alone takes signs, underscores and the digits of other scripts too."""
    digits = text if isinstance(text, str) else text.decode("latin-1")
    if not _DECIMAL.fullmatch(digits):
        raise ValueError("what should be a number of a pax header is none")
    return bounded(int(digits))


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _pax_records(data: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE\\n` of a pax header, those that the walk takes something from."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data) and data[position]:
        length_text, blank, _ = data[position : position + 20].partition(b" ")
        length = _decimal(length_text) if blank else 0
        record = data[position : position + length]
        if length < 5 or len(record) < length or not record.endswith(b"\n"):
            raise ValueError("a pax header is malformed")
        key, equals, value = record[len(length_text) + 1 : -1].partition(b"=")
        if not equals:
            raise ValueError("a pax header is malformed")
        name = _text(key)
        if name in ("path", "size"):
            records[name] = _text(value)
        elif name.startswith(_SPARSE):
            records[_SPARSE] = ""  # that there is one is enough; kept one by one they could take any amount of memory
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
