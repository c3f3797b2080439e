"""Malformed archives: fields with wrong values and valid checksums, and random bytes."""

import gzip
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hostile_headers import base_256, masked_crc, pax_record, tar_header, tar_member, with_checksum
from packing import example_of, tfrecord_of, varint

_TAR_FIELDS = [(0, 100), (100, 8), (108, 8), (124, 12), (124, 12), (124, 12), (136, 12), (148, 8), (156, 1), (156, 1)]
_TAR_FIELDS += [(157, 100), (257, 8), (329, 8), (345, 155)]
_TAR_KINDS = [
    bytes([kind]) for kind in b"\x00\x30\x31\x32\x33\x34\x35\x36\x37\x41\x44\x4b\x4c\x4d\x4e\x53\x56\x58\x67\x78\xff"
]
_ENDINGS = (".png", ".jpg", ".txt", "/", "")


@dataclass(frozen=True)
class Mutant:
    """One archive.

    Args:
        ending: of its file name, which determines the kind of archive.
        data: the file.
        kept: names of intact members before the first error, which must be listed first and read whole.
    """

    ending: str
    data: bytes
    kept: tuple[str, ...] = ()


def mutants(count: int, seed: int) -> Iterator[Mutant]:
    """Archives of all kinds in turn, most of them wrong in one to three fields, every tenth in any byte."""
    makers = (_tar, _packed(_tar), _zip, _records, _packed(_records))
    for number in range(count):
        source = random.Random(f"{seed}/{number}")
        mutant = makers[number % len(makers)](source)
        yield _noisy(source, mutant) if number // len(makers) % 10 == 0 else mutant


def _noisy(source: random.Random, mutant: Mutant) -> Mutant:
    """Bytes flipped, overwritten, removed, doubled, and the end cut off; then no member is known to be intact."""
    data = bytearray(mutant.data if source.random() < 0.9 else source.randbytes(source.randint(0, 2_000)))
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(data) + 1)
        span = source.randint(1, 64)
        act = source.randrange(5)
        if act == 0 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        elif act == 1:
            data[at : at + span] = source.choice([b"\0", b"\xff", b"\x80", b"0"]) * len(data[at : at + span])
        elif act == 2:
            del data[at : at + span]
        elif act == 3:
            data[at:at] = data[at : at + span]
        else:
            del data[max(at, len(data) // 2) :]
    return Mutant(mutant.ending, bytes(data))


def _packed(make: Callable[[random.Random], Mutant]) -> Callable[[random.Random], Mutant]:
    def packed(source: random.Random) -> Mutant:
        mutant = make(source)
        data = mutant.data
        cut = source.randrange(len(data) + 1)
        parts = [data] if source.random() < 0.7 else [data[:cut], data[cut:]]
        whole = b"".join(gzip.compress(part, 1) for part in parts) + bytes(source.choice([0, 0, 0, 512]))
        return Mutant(mutant.ending.replace(".tar", ".tar.gz"), whole, mutant.kept)

    return packed


def _number(source: random.Random, bits: int = 64) -> int:
    """A number close to a limit of some arithmetic."""
    near = source.choice(
        [0, 1, 9, 256, 512, 4_096, 1 << 16, 1 << 20, 1 << 31, 1 << 32, 1 << 60, 1 << 63, 1 << 64, 1 << 77]
    )
    return min(max(0, near + source.randint(-3, 3)), (1 << bits) - 1)


def _text_number(source: random.Random) -> bytes:
    kind = source.randrange(8)
    number = _number(source, 80)
    if kind == 0:
        return b"-%o" % number
    if kind == 1:
        return base_256(_number(source, 80))
    if kind == 2:
        return source.randbytes(12)
    if kind == 3:
        return source.choice([b"", b" ", b"\0" * 12, b"0o17", b"0x1f", b"1_0", b"+7", b"9", b"1e9", "٣".encode()])
    if kind == 4:
        return b"%d" % number
    if kind == 5:
        return b"\xff" + (-1 - _number(source, 40)).to_bytes(11, "big", signed=True)
    return b"%o" % number


def _name(source: random.Random) -> str:
    stem = source.choice(["", "a", "./b", "../c", "/d", "e/" * 30 + "e", "f\n", "g\\h", "ü", "i" * 90])
    return f"{stem}{source.randrange(1000)}{source.choice(_ENDINGS)}"


def _whole_files(source: random.Random) -> dict[str, bytes]:
    return {f"kept{number}.png": source.randbytes(source.randint(1, 700)) for number in range(source.randint(0, 4))}


def _tar(source: random.Random) -> Mutant:
    files = _whole_files(source)
    parts = [tar_member(name, data) for name, data in files.items()]
    for _ in range(source.randint(1, 3)):
        parts.append(_tar_part(source))
    parts += [tar_member(f"later{number}.png", b"later") for number in range(source.randint(0, 3))]
    parts.append(bytes(source.choice([0, 512, 1024, 1024])))
    return Mutant(".tar", b"".join(parts), tuple(files))


def _tar_part(source: random.Random) -> bytes:
    kind = source.randrange(6)
    data = source.randbytes(source.randint(0, 700))
    if kind == 0:
        records = [_pax_record(source) for _ in range(source.randint(1, 4))]
        part = tar_member("pax", b"".join(records), source.choice([b"x", b"g"]))
        return part + tar_member(_name(source)[:99], data)
    if kind == 1:
        name = _name(source).encode() * source.choice([1, 3, 100]) + source.choice([b"\0", b""])
        return tar_member("././@LongLink", name, source.choice([b"L", b"K"])) + tar_member("short.png", data)
    header = bytearray(tar_header(_name(source)[:99], len(data), source.choice(_TAR_KINDS)))
    for _ in range(source.randint(1, 2)):
        begin, length = source.choice(_TAR_FIELDS)
        value = source.randbytes(length) if source.random() < 0.2 else _text_number(source)
        header[begin : begin + length] = value[:length].ljust(length, b"\0")
    right = bytes(header) if source.random() < 0.05 else with_checksum(bytes(header))
    return right + data + bytes(-len(data) % 512)


def _pax_record(source: random.Random) -> bytes:
    key = source.choice([b"size", b"size", b"path", b"GNU.sparse.major", b"comment", b"", b"p\xc3", b"path\0"])
    value = _text_number(source) if key == b"size" or source.random() < 0.3 else _name(source).encode()
    length = None if source.random() < 0.7 else _text_number(source)
    return pax_record(key, value, length)[: None if source.random() < 0.9 else -1]


class _Unseekable(io.RawIOBase):
    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def _zip(source: random.Random) -> Mutant:
    """A zip whose records have wrong fields; its directory may be wrong, so no member is known to be intact."""
    stream = _Unseekable() if source.random() < 0.4 else io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:  # type: ignore[arg-type]
        for _ in range(source.randint(0, 4)):
            entry = zipfile.ZipInfo(_name(source) or "x")
            entry.compress_type = source.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED])
            entry.external_attr = source.choice([0, 0o120777 << 16, 0x10, 0o100644 << 16])
            entry.create_system = source.choice([0, 3, 3, 19])
            entry.extra = source.choice([b"", _extra(source)])
            with archive.open(entry, "w", force_zip64=source.random() < 0.2) as member:
                member.write(source.randbytes(source.randint(0, 600)) + bytes(source.choice([0, 0, 9_000])))
        archive.comment = source.choice([b"", b"", b"PK\5\6" * 9])
    data = bytearray(stream.data if isinstance(stream, _Unseekable) else stream.getvalue())
    places = _places(data)
    for _ in range(source.randint(1, 3)):
        begin, widths = source.choice(places)
        # Sizes, lengths and offsets are in the later fields.
        index = source.randrange(len(widths) // 3 if source.random() < 0.8 else 0, len(widths))
        at, width = begin + sum(widths[:index]), widths[index]
        number = source.choice(
            [_number(source, 8 * width), len(data) + source.randint(-60, 60), source.choice(places)[0]]
        )
        data[at : at + width] = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    cut = source.randrange(len(data)) if source.random() < 0.2 else len(data)
    return Mutant(".zip", source.choice([b"", b"", b"#!/bin/sh\n"]) + bytes(data[:cut]))


def _extra(source: random.Random) -> bytes:
    body = struct.pack("<3Q", _number(source), _number(source), _number(source))[: source.choice([0, 4, 8, 16, 24])]
    tag = source.choice([0x0001, 0x7075, 0x5455])
    if tag == 0x7075:
        body = b"\1" + struct.pack("<L", zlib.crc32(b"a")) + b"named.png"
    return struct.pack("<2H", tag, source.choice([len(body), len(body), 0xFFFF, 0])) + body


def _places(data: bytearray) -> list[tuple[int, tuple[int, ...]]]:
    """Where records begin, after their signatures, and the widths of their fields."""
    forms = {
        b"PK\3\4": (2, 2, 2, 2, 2, 4, 4, 4, 2, 2),
        b"PK\1\2": (2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4),
        b"PK\5\6": (2, 2, 2, 2, 4, 4, 2),
        b"PK\7\x08": (4, 4, 4),
    }
    places = []
    for mark, widths in forms.items():
        at = data.find(mark)
        while at >= 0:
            if at + 4 + sum(widths) <= len(data):
                places.append((at + 4, widths))
            at = data.find(mark, at + 1)
    return places


def _records(source: random.Random) -> Mutant:
    files = _whole_files(source)
    parts = [
        tfrecord_of([example_of({"image/encoded": data, "image/filename": name.encode()})])
        for name, data in files.items()
    ]
    for _ in range(source.randint(1, 3)):
        parts.append(_framed(source, _example(source)))
    parts.append(tfrecord_of([example_of({"image/encoded": b"later"})] * source.randint(0, 2)))
    whole = b"".join(parts)
    kept_bytes = sum(map(len, parts[: len(files)]))
    cut = source.randint(kept_bytes, len(whole)) if source.random() < 0.2 else len(whole)
    return Mutant(".tfrecord", whole[:cut], tuple(files))


def _framed(source: random.Random, record: bytes) -> bytes:
    length = _number(source) if source.random() < 0.3 else len(record)
    claimed = struct.pack("<Q", length)
    crc = masked_crc(claimed) if source.random() < 0.95 else source.randbytes(4)
    return claimed + crc + record + bytes(4)


def _example(source: random.Random) -> bytes:
    """Messages nested as an Example's are, with wrong lengths, numbers and kinds of fields."""
    entries = b""
    for _ in range(source.randint(0, 5)):
        key = source.choice([b"image/encoded", b"image", b"segmentation_mask", b"file_name", b"label", b"", b"\xff"])
        value = source.choice([source.randbytes(source.randint(0, 300)), _name(source).encode()])
        lists = b"".join(_field(source, 1, value) for _ in range(source.randint(0, 3)))
        parts = [_field(source, 1, key), _field(source, 2, _field(source, source.choice([1, 1, 1, 3]), lists))]
        if source.random() < 0.1:
            parts.reverse()
        entries += _field(source, 1, b"".join(parts))
    return _field(source, 1, entries) + source.choice([b"", b"", source.randbytes(9)])


def _field(source: random.Random, number: int, data: bytes) -> bytes:
    wrong = source.random() < 0.06
    kind = source.randrange(8) if wrong and source.random() < 0.5 else 2
    length = _number(source, 70) if wrong and kind == 2 else len(data)
    return varint(number << 3 | kind) + (varint(length) + data if kind == 2 else data[:9])
