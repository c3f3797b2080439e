"""Headers of archives that claim what they like, with checksums that are right."""

import struct
import tarfile

from packing import example_of, tfrecord_of


class BytesSource:
    """Bytes in memory as a walk reads them."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ByteSource.read_at`."""
        return self._data[offset : offset + length]


SIZE_FIELD, CHECKSUM_FIELD = slice(124, 136), slice(148, 156)


def with_checksum(header: bytes) -> bytes:
    """A tar header with its checksum made right."""
    blank = header[:148] + b" " * 8 + header[156:512]
    return header[:148] + b"%06o\0 " % sum(blank) + header[156:]


def tar_header(name: str, size: bytes | int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A ustar header; a size given as bytes is written as it is, left-aligned and padded with NUL."""
    member = tarfile.TarInfo(name)
    member.type = kind
    if isinstance(size, int):
        member.size = size
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    if isinstance(size, bytes):
        header[SIZE_FIELD] = size[:12].ljust(12, b"\0")
    return with_checksum(bytes(header))


def tar_member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A whole member, padded."""
    return tar_header(name, len(data), kind) + data + bytes(-len(data) % 512)


def pax_record(key: bytes, value: bytes, length: bytes | None = None) -> bytes:
    """A record of a pax header, with its own length unless another is given."""
    rest = b" " + key + b"=" + value + b"\n"
    digits = len(str(len(rest) + 1))
    digits = len(str(len(rest) + digits))
    return (b"%d" % (len(rest) + digits) if length is None else length) + rest


def pax_size(name: str, size: bytes) -> bytes:
    """A member whose size is only in its pax header."""
    return tar_member("pax", pax_record(b"size", size), b"x") + tar_header(name)


def base_256(number: int, bytes_long: int = 12) -> bytes:
    """A number as GNU's tar writes those that octal has no room for."""
    return b"\x80" + number.to_bytes(bytes_long - 1, "big")


def masked_crc(data: bytes) -> bytes:
    """The checksum that TFRecord's framing has."""
    framed = tfrecord_of([data])
    return framed[12 + len(data) :]


def record_header(length: int) -> bytes:
    """A TFRecord's header that claims a length, with the checksum that goes with it."""
    claimed = struct.pack("<Q", length)
    return claimed + masked_crc(claimed)


def example(name: str, picture: bytes) -> bytes:
    """A framed Example of one picture."""
    return tfrecord_of([example_of({"image/filename": name.encode(), "image/encoded": picture})])
