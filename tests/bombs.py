"""Compressed archives that unpack to far more than their size, made without compressing all of it."""

import gzip
import random
from collections.abc import Iterable

from hostile_headers import record_header, tar_header, tar_member
from packing import example_of, varint

MIB = 1 << 20


def gzip_of(parts: Iterable[bytes | tuple[bytes, int]]) -> bytes:
    """A gzip file of many members; a repeated piece is compressed once."""
    whole = []
    for part in parts:
        piece, times = part if isinstance(part, tuple) else (part, 1)
        whole.append(gzip.compress(piece) * times)
    return b"".join(whole)


def dense(ratio: int) -> bytes:
    """A mebibyte with about this compression ratio by deflate."""
    noise = random.Random(ratio).randbytes(MIB // ratio)
    return noise + bytes(MIB - len(noise))


def huge_example(name: str, mebibytes: int, piece: bytes) -> list[bytes | tuple[bytes, int]]:
    """A framed Example whose picture is a piece so many times, in parts for `gzip_of`."""
    picture_bytes = mebibytes * MIB
    head, tail = b"", b""

    def enclose(number: int, before: bytes = b"", after: bytes = b"") -> None:
        nonlocal head, tail
        head, tail = before + head, tail + after
        head = bytes([number << 3 | 2]) + varint(len(head) + picture_bytes + len(tail)) + head

    # From the value outwards: a list of bytes, a feature, an entry with its key, the features.
    enclose(1)
    enclose(1)
    enclose(2)
    enclose(1, before=b"\x0a\x0dimage/encoded")
    enclose(1, after=example_of({"image/filename": name.encode()})[2:])
    return [record_header(len(head) + picture_bytes + len(tail)) + head, (piece, mebibytes), tail + bytes(4)]


def large_tar(mebibytes: int, piece: bytes, members: int = 1) -> bytes:
    """A compressed tar of pictures that are each a piece so many times, and a small one before and behind them."""
    parts: list[bytes | tuple[bytes, int]] = [tar_member("a.png", b"before")]
    for number in range(members):
        parts += [tar_header(f"large{number}.png", mebibytes * MIB), (piece, mebibytes)]
    return gzip_of([*parts, tar_member("b.png", b"after"), bytes(1024)])
