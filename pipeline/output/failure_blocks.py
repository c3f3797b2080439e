"""Failures in compressed, sorted blocks, which are merged when they are written.

A failure takes about 700 bytes as a Python object and about 30 bytes compressed. An archive with a million empty
members must not take a gigabyte.
"""

import heapq
import zlib
from collections.abc import Iterable, Iterator
from operator import attrgetter

from pipeline.core.records import Failure
from pipeline.output.journal_format import entry_line, parse_entry

FAILURES_A_BLOCK = 4_096
# Each block is decompressed in pieces of this size while all of them are merged.
_PIECE_BYTES = 16 << 10
_order = attrgetter(*Failure.__dataclass_fields__)


def pack_failures(failures: Iterable[Failure]) -> bytes:
    """Compresses failures, in any order, to a block for `unpack_failures`."""
    return zlib.compress("".join(map(entry_line, sorted(failures, key=_order))).encode(), 1)


def unpack_failures(blocks: Iterable[bytes]) -> Iterator[Failure]:
    """Merges blocks; only a small piece of each is decompressed at a time.

    Args:
        blocks: as `pack_failures` returns them, in any order.

    Returns:
        All failures, sorted by their fields, the id first.
    """
    return heapq.merge(*map(_unpacked, blocks), key=_order)


def _unpacked(block: bytes) -> Iterator[Failure]:
    inflater = zlib.decompressobj()
    rest, incomplete = block, b""
    while not inflater.eof:
        piece = inflater.decompress(rest, _PIECE_BYTES)
        rest = inflater.unconsumed_tail
        *lines, incomplete = (incomplete + piece).split(b"\n")
        for line in lines:
            failure = parse_entry(line.decode())
            assert isinstance(failure, Failure)
            yield failure
