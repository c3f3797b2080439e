"""Reads the headers of a tar file in a bucket with parallel requests; yields the same members as a sequential walk.

A tar file has no directory: the offset of a header depends on the size of the member before. Requested sequentially,
the headers of a million members take a million round trips. So an archive with many members is divided into segments of
about 128 members; in each, a thread searches for the first block with a valid header checksum and follows the chain of
headers from there.

These chains are speculative, because a thread may have started within a tar file that is a member of this one. But the
members after an offset depend only on that offset and on the extended headers in effect (`TarWalk.is_plain`: none).
So a chain is used only if the sequential walk, which starts at the beginning of the archive, reaches one of its
offsets; from there, both are equal. Otherwise the sequential walk continues on its own.

The cost is bounded: the data that is read but not used is less than a sixteenth of the archive; usually it is half a
member per segment, a 250th. Each thread has the members of one segment in memory.
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
"""The number of connections that the stores' clients keep open."""
_MIN_ARCHIVE_BYTES = 1 << 20
_MIN_PIECE_BYTES, _MAX_PIECE_BYTES = 8 << 10, 256 << 10
_MAX_WASTE_SHARE = 16


def walk_stored_tar(uri: str, size_bytes: int) -> Iterator[Member | Fault]:
    """Yields the members of a stored tar file in order; in a bucket with parallel requests.

    Args:
        uri: absolute path or URI.
        size_bytes: its length.

    Yields:
        As `walk_tar`.

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
    """Yields the members of a tar file as `walk_tar` does, with parallel reads.

    Args:
        source: the uncompressed tar file; thread-safe, with random access.
        size_bytes: its length.
        members: approximate number of members per segment.
        threads: number of segments that are read in parallel.

    Yields:
        As `walk_tar`, in the same order.

    Raises:
        OSError: the source can't be read.
    """
    walk = TarWalk(source)
    stop = Event()
    pool = ThreadPoolExecutor(threads, "maskbeam-tar")
    wasted_bytes = 0
    try:
        while not walk.is_over:
            # Sequentially at first: the length of a segment depends on the mean distance of headers.
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
    """The chain of headers that a thread found in a segment.

    Args:
        starts: offsets of headers without extended headers in effect, each with the number of members before it.
        members: the members, in order.
        end: the last of `starts`.
        scanned_bytes: bytes that were read to find the first header.
        fetched_bytes: all bytes that were read.
    """

    starts: dict[int, int] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    end: int = 0
    scanned_bytes: int = 0
    fetched_bytes: int = 0


class _Round:
    """Consecutive segments, one per thread.

    Args:
        source: the tar file.
        begin: offset of the first segment.
        size_bytes: length of the tar file.
        stride: mean distance of headers, bytes.
        members: length of a segment in strides.
        segments: number of segments.
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
        """Bytes that were read and not used."""
        self.is_worth_while = True
        """Whether enough of the chains was used that another round should follow."""

    def run(self, walk: TarWalk, pool: ThreadPoolExecutor, stop: Event) -> Iterator[Member | Fault]:
        """Continues the sequential walk to the end of the round, or as far as the chains are useful."""
        chains = [pool.submit(self._follow, begin, end, stop) for begin, end in self._segments]
        sequential = 0
        for (_, end), future in zip(self._segments, chains, strict=True):
            chain = self._result(future)
            was_used = False
            while walk.offset < end and not walk.is_over and sequential <= self._members:
                before = chain.starts.get(walk.offset) if walk.is_plain and not was_used else None
                if before is not None:
                    was_used = True
                    yield from chain.members[before : chain.starts[chain.end]]
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
            # The sequential walk reads there itself, and raises the error if it occurs again.
            return _Chain()

    def _follow(self, begin: int, end: int, stop: Event) -> _Chain:
        """Searches for a header in a segment and follows the chain from there; after a broken chain, searches again."""
        source = _Counted(self._source)
        max_scanned_bytes = 2 * self._stride
        # A segment with much smaller members may have millions; the length of a chain is limited.
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
                        chain.starts[walk.offset] = len(chain.members)
                        chain.end = walk.offset
            chain.scanned_bytes = scanned_bytes
        chain.fetched_bytes = source.bytes
        return chain

    def _scan(self, source: ByteSource, begin: int, end: int) -> int | None:
        """The offset of the first block in a range that can be a header."""
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
    """A source that counts the bytes that are read."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.bytes = 0

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ByteSource.read_at`."""
        data = self._source.read_at(offset, length)
        self.bytes += len(data)
        return data
