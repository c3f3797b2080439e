"""Locates the pictures and masks in a TFRecord file of `tf.train.Example`, without TensorFlow.

A record consists of its length, the masked CRC-32C of the length, the data, and the masked CRC-32C of the data
(tensorflow/core/lib/io/record_writer.h). An Example maps names to lists of values
(tensorflow/core/example/feature.proto). In the wire format of protocol buffers
(protobuf.dev/programming-guides/encoding), the length precedes a value, so large values can be skipped. Workers then
read only the bytes of a picture, by range.

The checksum of the length is verified. The checksum of the data is not, because it covers the whole record, which would
have to be read an additional time. Corrupt pictures are detected if their format has checksums, as PNG has, and
compressed files by the checksum of gzip.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.core.errors import ErrorType
from pipeline.sources.archives.members import ByteSource, Fault, bounded

RECORD_HEADER_BYTES = 12
_MAX_NAME_BYTES = 4_096
_MAX_VARINT_BYTES = 10
_WINDOW_BYTES = 1_024
_Located = TypeVar("_Located")


@dataclass(frozen=True, slots=True)
class Features:
    """Names of features of an Example; of several names, the first that it has is used.

    Args:
        image: of the encoded picture.
        mask: of the encoded mask.
        file_name: of the picture's file name.
    """

    image: tuple[str, ...] = ("image/encoded", "image")
    mask: tuple[str, ...] = ("image/segmentation/class/encoded", "segmentation_mask", "segmentation_label")
    file_name: tuple[str, ...] = ("image/filename", "file_name", "filename")


@dataclass(frozen=True, slots=True)
class Record(Generic[_Located]):
    """One Example.

    Args:
        index: its index in the file, from 0.
        name: its file name; "" if it has none.
        image: the result of `locate` for the picture; None if it has none.
        mask: the result of `locate` for the mask; None if it has none.
    """

    index: int
    name: str
    image: _Located | None
    mask: _Located | None


class _Window:
    """Serves small reads, in ascending order, from larger reads of a source."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._begin = 0
        self._data = b""

    def read_at(self, offset: int, length: int) -> bytes:
        at = offset - self._begin
        if at >= 0 and at + length <= len(self._data):
            return self._data[at : at + length]
        held = self._data[at:] if 0 <= at < len(self._data) else b""
        rest = self._source.read_at(offset + len(held), max(length - len(held), _WINDOW_BYTES))
        self._begin, self._data = offset, held + rest
        return self._data[:length]


def walk_records(
    source: ByteSource, features: Features, locate: Callable[[ByteSource, int, int], _Located]
) -> Iterator[Record[_Located] | Fault]:
    """Yields the Examples of a file in order.

    Args:
        source: the uncompressed file.
        features: names of the features to read.
        locate: called with the source and the offset and length of each picture and mask, in ascending order.

    Yields:
        The Examples; if the file is truncated or broken, last a fault.

    Raises:
        OSError: the source can't be read.
    """
    window = _Window(source)
    offset, index = 0, 0
    while header := window.read_at(offset, RECORD_HEADER_BYTES):
        if len(header) < RECORD_HEADER_BYTES:
            yield Fault(ErrorType.TRUNCATED, f"the file is truncated after {offset + len(header):,} bytes")
            return
        if not is_record_header(header):
            yield Fault(ErrorType.BROKEN_ARCHIVE, f"there is no TFRecord at byte {offset:,}")
            return
        try:
            length = bounded(*struct.unpack_from("<Q", header))
        except ValueError as error:
            yield Fault(ErrorType.BROKEN_ARCHIVE, f"the file can't be read beyond byte {offset:,}: {error}")
            return
        begin = offset + RECORD_HEADER_BYTES
        fault, record = None, None
        try:
            record = _example(window, begin, begin + length, index, features, locate)
        except EOFError:
            pass
        except ValueError as error:
            fault = Fault(ErrorType.BROKEN_ARCHIVE, f"record {index} is not a tf.train.Example: {error}")
        if len(window.read_at(begin + length, 4)) < 4:
            yield Fault(ErrorType.TRUNCATED, f"the file is truncated in record {index}, from byte {offset:,}")
            return
        if fault is not None or record is None:
            yield fault or Fault(ErrorType.BROKEN_ARCHIVE, f"record {index} is not a tf.train.Example: it ends early")
        else:
            yield record
        offset, index = begin + length + 4, index + 1


def is_record_header(header: bytes) -> bool:
    """Whether the first bytes of a file or record are a length with its valid checksum."""
    if len(header) < RECORD_HEADER_BYTES:
        return False
    (checksum,) = struct.unpack_from("<L", header, 8)
    crc = _crc32c(header[:8])
    # The masking of record_writer.h.
    return bool(checksum == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _example(
    source: ByteSource,
    begin: int,
    end: int,
    index: int,
    features: Features,
    locate: Callable[[ByteSource, int, int], _Located],
) -> Record[_Located]:
    wanted = {name: rank for names in (features.image, features.mask) for rank, name in enumerate(names)}
    best: dict[tuple[str, ...], tuple[int, _Located]] = {}
    names: dict[str, str] = {}
    for entry_begin, entry_end in _messages(source, begin, end, 1, 1):
        key = ""
        for field, place, stop in _fields(source, entry_begin, entry_end):
            if field == 1 and stop - place <= _MAX_NAME_BYTES:
                key = _whole(source, place, stop).decode("utf-8", "surrogateescape")
            elif field == 2 and key in features.file_name:
                for at, value_end in _messages(source, place, stop, 1, 1):
                    if value_end - at <= _MAX_NAME_BYTES:
                        names.setdefault(key, _whole(source, at, value_end).decode("utf-8", "surrogateescape"))
            elif field == 2 and key in wanted:
                kind = features.image if key in features.image else features.mask
                for at, value_end in _messages(source, place, stop, 1, 1):
                    if kind not in best or wanted[key] < best[kind][0]:
                        best[kind] = wanted[key], locate(source, at, value_end - at)
    name = next((names[key] for key in features.file_name if names.get(key)), "")
    image, mask = best.get(features.image), best.get(features.mask)
    return Record(index, name, image and image[1], mask and mask[1])


def _messages(source: ByteSource, begin: int, end: int, *path: int) -> Iterator[tuple[int, int]]:
    """Start and end of each field at a path of field numbers below a message."""
    for field, place, stop in _fields(source, begin, end):
        if field == path[0]:
            if len(path) == 1:
                yield place, stop
            else:
                yield from _messages(source, place, stop, *path[1:])


def _fields(source: ByteSource, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each length-delimited field of a message."""
    at = begin
    while at < end:
        key, at = _varint(source, at, end)
        kind, length = key & 7, 0
        if kind == 2:
            length, at = _varint(source, at, end)
        elif kind == 0:
            _, at = _varint(source, at, end)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("a field has an unknown wire type")
        if length > end - at:
            raise ValueError("a field is longer than its message")
        if kind == 2:
            yield key >> 3, at, at + length
        at += length


def _varint(source: ByteSource, at: int, end: int) -> tuple[int, int]:
    """A varint and its end; reads nothing beyond `end`, because a stream can't be read backwards."""
    length = min(_MAX_VARINT_BYTES, end - at)
    data = source.read_at(at, length)
    value = 0
    for position, byte in enumerate(data):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    if len(data) < length:
        raise EOFError
    raise ValueError("a varint is too long")


def _whole(source: ByteSource, begin: int, end: int) -> bytes:
    data = source.read_at(begin, end - begin)
    if len(data) < end - begin:
        raise EOFError
    return data


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _crc32c_table()


def _crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720 appendix B.4), byte by byte, which is fast enough for eight bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
