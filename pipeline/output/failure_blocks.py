"""Many failures in little memory: packed in sorted blocks where they arise, and merged where they are written down.

A failure is some 700 bytes of Python's memory and, beside its neighbours, some 30 packed. An archive whose million
members are all empty must not cost a gigabyte.
"""

import heapq
import zlib
from collections.abc import Iterable, Iterator
from operator import attrgetter

from pipeline.core.records import Failure
from pipeline.output.journal_format import entry_line, parse_entry

FAILURES_A_BLOCK = 4_096
# So much of each block is unpacked at a time while all of them are merged.
_PIECE_BYTES = 16 << 10
_order = attrgetter(*Failure.__dataclass_fields__)


def pack_failures(failures: Iterable[Failure]) -> bytes:
    """Packs failures, in any order, into a block for `unpack_failures`."""
    return zlib.compress("".join(map(entry_line, sorted(failures, key=_order))).encode(), 1)


def unpack_failures(blocks: Iterable[bytes]) -> Iterator[Failure]:
    """Merges blocks, of each of which a small piece is unpacked at a time.

    Args:
        blocks: of `pack_failures`, in any order.

    Returns:
        The failures of all, sorted by their fields, the id first.
    """
    return heapq.merge(*map(_unpacked, blocks), key=_order)


def _unpacked(block: bytes) -> Iterator[Failure]:
    inflater = zlib.decompressobj()
    rest, begun = block, b""
    while not inflater.eof:
        piece = inflater.decompress(rest, _PIECE_BYTES)
        rest = inflater.unconsumed_tail
        *lines, begun = (begun + piece).split(b"\n")
        for line in lines:
            failure = parse_entry(line.decode())
            assert isinstance(failure, Failure)
            yield failure
