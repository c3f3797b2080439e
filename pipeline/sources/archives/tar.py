"""Reads the member headers of a tar file one after the other, in constant memory.

The formats are ustar and pax (POSIX.1-2017, pax, "Extended Description") and GNU's (GNU tar manual, "Basic Tar
Format"). Python's `tarfile` keeps an object for every member and reads extended headers of any length into memory;
here a header with more than `_MAX_EXTENSION_BYTES` ends the walk.
"""

import re
from collections.abc import Iterator

from pipeline.core.errors import ErrorType
from pipeline.sources.archives.members import ByteSource, Fault, Member, bounded

BLOCK_BYTES = 512
_MAX_EXTENSION_BYTES = 1 << 20
_NOT_PLAIN = {
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
# The prefix of GNU's records for sparse files in pax headers.
_SPARSE = "GNU.sparse."
_OCTAL, _DECIMAL = re.compile(rb"[0-7]+"), re.compile(r"[0-9]{1,20}")


def walk_tar(source: ByteSource) -> Iterator[Member | Fault]:
    """Yields the members of a tar file in order.

    Args:
        source: the uncompressed tar file. A member's data may be read from it before the next member is requested.

    Yields:
        The members, without folders; if the archive is truncated or broken, last a fault. The data of a member may be
        truncated.

    Raises:
        OSError: the source can't be read.
    """
    walk = TarWalk(source)
    while not walk.is_over:
        found = walk.step()
        if found is not None:
            yield found


class TarWalk:
    """The state of a walk: an offset in a tar file, and the extended headers that are in effect there.

    Args:
        source: the uncompressed tar file.
        offset: the offset of a header.
    """

    def __init__(self, source: ByteSource, offset: int = 0) -> None:
        self._source = source
        self._shared: dict[str, str] = {}
        self._own: dict[str, str] = {}
        self._header: bytes | None = None
        self.offset = offset
        """The offset of the next header."""
        self.is_over = False
        """Whether the end of the archive or a fault was reached."""

    @property
    def is_plain(self) -> bool:
        """Whether no extended header is in effect, so that what follows depends only on the offset."""
        return not self._shared and not self._own

    def jump(self, offset: int) -> None:
        """Continues from another offset."""
        self.offset, self._header = offset, None

    def step(self) -> Member | Fault | None:
        """Reads one header.

        Returns:
            Its member or a fault; None for a folder, an extended header or the end.

        Raises:
            OSError: the source can't be read.
        """
        header, self._header = self._header, None
        if header is None:
            header = self._source.read_at(self.offset, BLOCK_BYTES)
        if len(header) < BLOCK_BYTES:
            return self._fault(
                ErrorType.TRUNCATED,
                f"the archive ends before the header at byte {self.offset:,}, without an end mark",
            )
        if not header.strip(b"\0"):
            self.is_over = True
            return None
        try:
            return self._parse(header)
        except ValueError as error:
            message = f"the archive can't be read beyond byte {self.offset:,}: {error}"
            return self._fault(ErrorType.BROKEN_ARCHIVE, message)
        except EOFError:
            return self._fault(ErrorType.TRUNCATED, f"the archive is truncated in the header at byte {self.offset:,}")

    def _parse(self, header: bytes) -> Member | None:
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
        # Set before the member is yielded, because its data may be read then.
        self.offset = begin if kind in _WITHOUT_DATA else begin + _padded(size)
        name = records.get("path") or _ustar_name(header)
        if kind == _FOLDER or name.endswith("/"):
            return None
        not_plain = "a sparse file" if _SPARSE in records else _NOT_PLAIN.get(kind, "")
        return Member(name, begin, size, not_plain, packed_bytes=size)

    def _extension(self, size: int) -> bytes:
        """The data of an extended header; the header that it extends is read with the same request."""
        if size > _MAX_EXTENSION_BYTES:
            raise ValueError(f"an extended header has {size:,} bytes")
        data = self._source.read_at(self.offset + BLOCK_BYTES, _padded(size) + BLOCK_BYTES)
        if len(data) < size:
            raise EOFError
        self._header = data[_padded(size) :]
        return data[:size]

    def _fault(self, error_type: ErrorType, message: str) -> Fault:
        self.is_over = True
        return Fault(error_type, message)


def is_header(block: bytes) -> bool:
    """Whether a block of a tar file can be a member's header: whether its checksum is valid."""
    try:
        _check(block)
    except ValueError:
        return False
    return True


def _check(header: bytes) -> None:
    expected = _number(header[148:156])
    rest = header[:148] + b" " * 8 + header[156:]
    # Some old implementations of tar summed signed bytes.
    if expected != sum(rest) != expected + 256 * sum(byte > 127 for byte in rest):
        raise ValueError("invalid header checksum")


def _number(field: bytes) -> int:
    """Parses a number of a header: octal digits, or if the first bit is set GNU's signed base-256 encoding."""
    if field[0] & 0x80:
        # The bit below the marker is the sign.
        return bounded(int.from_bytes([(field[0] & 0x7F) | (field[0] & 0x40) << 1, *field[1:]], "big", signed=True))
    text = field.split(b"\0", 1)[0].strip()
    if text and not _OCTAL.fullmatch(text):
        raise ValueError(f"{text.decode('latin-1')!r:.40} is not an octal number")
    return int(text, 8) if text else 0


def _decimal(text: str | bytes) -> int:
    """Parses a number of a pax header; `int` would also accept signs, underscores and digits of other scripts."""
    digits = text if isinstance(text, str) else text.decode("latin-1")
    if not _DECIMAL.fullmatch(digits):
        raise ValueError(f"{digits!r:.40} is not a number of a pax header")
    return bounded(int(digits))


def _padded(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _pax_records(data: bytes) -> dict[str, str]:
    """Parses the records `LENGTH KEY=VALUE\\n` of a pax header; returns those that the walk uses."""
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
            records[_SPARSE] = ""  # one entry for all of them, because their number is not bounded
        position += length
    return records


def _ustar_name(header: bytes) -> str:
    name, prefix = _text(header[:100]), ""
    # GNU's format has times in place of the prefix.
    if header[257:263] == b"ustar\0":
        prefix = _text(header[345:500])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
