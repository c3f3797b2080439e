"""Walking a tar in a bucket: many headers are requested at a time, and the members are those of a sequential walk.

A tar has no directory: only a header and its member's size say where the next header is. Requested one by one, the
headers of a million members take a million round trips. So where there are many members the archive is cut into
segments of some 128; in each a thread searches for the first block whose header checksum is right and follows the
chain of headers from there.

What a thread finds is speculative: it may have started within a tar that is a member of this one. But what a walk
yields from an offset on depends on that offset and the extended headers still in force alone (`TarWalk.is_plain`: none
are). So a chain is used only where the sequential walk, which starts at the archive's beginning, arrives at one of its
offsets; from there on it is what the sequential walk would have found. Else the sequential walk goes on by itself.

The cost is bounded: what is fetched and not used stays below a sixteenth of the archive; on the usual tar it is half a
member a segment, a 250th. Each thread holds one segment's members.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event

from pipeline.sources.archives.members import ByteSource, Fault, Member
from pipeline.sources.archives.streams import StoredBytes
from pipeline.sources.archives.tar import BLOCK_BYTES, TarWalk, is_header, walk_tar
from pipeline.storage import filesystem

MEMBERS_A_SEGMENT = 128
THREADS = 10
"""As many connections as the stores' clients keep open."""
_MIN_ARCHIVE_BYTES = 1 << 20
_MIN_PIECE_BYTES, _MAX_PIECE_BYTES = 8 << 10, 256 << 10
_MAX_WASTE_SHARE = 16


def walk_stored_tar(uri: str, size_bytes: int) -> Iterator[Member | Fault]:
    """Walks a stored tar's members in their order; in a bucket, where each request takes a round trip, many at a time.

    Args:
        uri: absolute path or URI.
        size_bytes: its length.

    Yields:
        What `walk_tar` does.

    Raises:
        OSError: it can't be read.
    """
    source = StoredBytes(uri, size_bytes)
    if filesystem.is_remote(uri) and size_bytes >= _MIN_ARCHIVE_BYTES:
        return walk_tar_in_parallel(source, size_bytes)
    return walk_tar(source)


def walk_tar_in_parallel(
    source: ByteSource, size_bytes: int, *, members: int = MEMBERS_A_SEGMENT, threads: int = THREADS
) -> Iterator[Member | Fault]:
    """Walks a tar's members as `walk_tar` does, with many reads at a time.

    Args:
        source: the uncompressed tar; read by several threads, at any place.
        size_bytes: its length.
        members: a segment holds about so many.
        threads: how many segments are followed at a time.

    Yields:
        What `walk_tar` yields, in the same order.

    Raises:
        OSError: the source can't be read.
    """
    walk = TarWalk(source)
    stop = Event()
    pool = ThreadPoolExecutor(threads, "maskbeam-tar")
    wasted_bytes = 0
    try:
        while not walk.is_over:
            # Sequentially at first: the mean distance of headers decides how long a segment is.
            begin, found = walk.offset, 0
            while not walk.is_over and found < members // 2:
                item = walk.step()
                if item is not None:
                    found += 1
                    yield item
            while found and not walk.is_over:
                stride = max(BLOCK_BYTES, (walk.offset - begin) // found)
                allowed_bytes = size_bytes // _MAX_WASTE_SHARE - wasted_bytes
                left_bytes = size_bytes - walk.offset
                if not walk.is_plain or left_bytes < 2 * members * stride or allowed_bytes < 2 * stride * threads:
                    break
                ahead = _Round(source, walk.offset, size_bytes, stride, members, threads)
                begin, found = walk.offset, 0
                for found, item in enumerate(ahead.run(walk, pool, stop), start=1):  # noqa: B007  (how many they were)
                    yield item
                wasted_bytes += ahead.wasted_bytes
                if not ahead.is_worth_while:
                    break
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@dataclass(slots=True)
class _Chain:
    """What a thread found in a segment.

    Args:
        places: offsets where the walk was plain, each with the number of members before it.
        members: what it found, in order.
        end: the last of `places`.
        scanned_bytes: what was read to find a header.
        fetched_bytes: all that was read.
    """

    places: dict[int, int] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    end: int = 0
    scanned_bytes: int = 0
    fetched_bytes: int = 0


class _Round:
    """As many segments as there are threads.

    Args:
        source: the tar.
        begin: where the first segment begins.
        size_bytes: the tar's length.
        stride: mean distance of headers, bytes.
        members: a segment is so many strides long.
        segments: how many.
    """

    def __init__(
        self, source: ByteSource, begin: int, size_bytes: int, stride: int, members: int, segments: int
    ) -> None:
        length = members * stride // BLOCK_BYTES * BLOCK_BYTES
        begins = range(begin, min(begin + segments * length, size_bytes), length)
        self._segments = [(first, min(first + length, size_bytes)) for first in begins]
        self._source = source
        self._stride = stride
        self._members = members
        self.wasted_bytes = 0
        """What was read and not used."""
        self.is_worth_while = True
        """Whether so much of the chains was used that the next round may follow at once."""

    def run(self, walk: TarWalk, pool: ThreadPoolExecutor, stop: Event) -> Iterator[Member | Fault]:
        """Continues the sequential walk to the round's end, or as far as the chains are of use."""
        chains = [pool.submit(self._follow, begin, end, stop) for begin, end in self._segments]
        sequential = 0
        for (_, end), future in zip(self._segments, chains, strict=True):
            chain = self._result(future)
            was_used = False
            while walk.offset < end and not walk.is_over and sequential <= self._members:
                before = chain.places.get(walk.offset) if walk.is_plain and not was_used else None
                if before is not None:
                    was_used = True
                    yield from chain.members[before : chain.places[chain.end]]
                    walk.jump(chain.end)
                    continue
                sequential += 1
                item = walk.step()
                if item is not None:
                    yield item
            self.wasted_bytes += chain.scanned_bytes if was_used else chain.fetched_bytes
        self.is_worth_while = sequential <= self._members

    @staticmethod
    def _result(future: Future[_Chain]) -> _Chain:
        try:
            return future.result()
        except OSError:
            # The sequential walk reads there itself, and raises where it still can't be read.
            return _Chain()

    def _follow(self, begin: int, end: int, stop: Event) -> _Chain:
        """Looks for a header in a segment and follows the chain from there; after a short one, looks on behind it."""
        source = _Counted(self._source)
        max_scanned_bytes = 2 * self._stride
        # Where members are suddenly small a segment may hold millions; no chain is kept that long.
        max_followed_bytes = 8 * BLOCK_BYTES * self._members
        max_bytes = max_scanned_bytes + max_followed_bytes
        chain = _Chain()
        at: int | None = begin
        while at is not None and at < end and source.bytes < max_bytes and not stop.is_set():
            before_bytes = source.bytes
            header = self._scan(source, at, min(end, at + max_scanned_bytes - chain.scanned_bytes))
            scanned_bytes = chain.scanned_bytes + source.bytes - before_bytes
            at = None
            if header is not None:
                walk = TarWalk(source, header)
                chain = _Chain({header: 0}, end=header)
                until_bytes = source.bytes + max_followed_bytes
                while walk.offset < end and source.bytes < until_bytes and not stop.is_set():
                    item = walk.step()
                    if walk.is_over:
                        at = walk.offset + BLOCK_BYTES
                        break
                    if isinstance(item, Member):
                        chain.members.append(item)
                    if walk.is_plain:
                        chain.places[walk.offset] = len(chain.members)
                        chain.end = walk.offset
            chain.scanned_bytes = scanned_bytes
        chain.fetched_bytes = source.bytes
        return chain

    def _scan(self, source: ByteSource, begin: int, end: int) -> int | None:
        """The first block between two places that can be a header."""
        piece_bytes = min(max(self._stride // 4, _MIN_PIECE_BYTES), _MAX_PIECE_BYTES) // BLOCK_BYTES * BLOCK_BYTES
        for at in range(begin, end, piece_bytes):
            piece = source.read_at(at, piece_bytes)
            for within in range(0, len(piece) - BLOCK_BYTES + 1, BLOCK_BYTES):
                if is_header(piece[within : within + BLOCK_BYTES]):
                    return at + within
            if len(piece) < piece_bytes:
                break
        return None


class _Counted:
    """A source that counts what is read of it."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.bytes = 0

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ByteSource.read_at`."""
        data = self._source.read_at(offset, length)
        self.bytes += len(data)
        return data
