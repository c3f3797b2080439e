"""Looks up many single files, in a store with parallel requests."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from pipeline.storage import filesystem
from pipeline.storage.stored_file import StoredFile

_THREADS = 64
"""Parallel requests; with a response time of 30 ms these are about 2,000 files per second."""
_FIRST_CHUNK, _MAX_CHUNK = 8, 1_024


def look_up_all(uris: Iterable[str]) -> Iterator[StoredFile | None]:
    """Looks up files, in order.

    Args:
        uris: absolute paths or URIs; they are consumed in chunks, small at first for callers that need only a few.

    Yields:
        The properties of each file; None if it can't be looked up: reading it raises the error.
    """
    remaining = iter(uris)
    size = _FIRST_CHUNK
    with ThreadPoolExecutor(_THREADS, "maskbeam-lookup") as threads:
        while chunk := list(islice(remaining, size)):
            # Looking up a local file takes less time than passing it to a thread.
            is_remote = any(map(filesystem.is_remote, chunk))
            yield from threads.map(_look_up, chunk) if is_remote else map(_look_up, chunk)
            size = min(2 * size, _MAX_CHUNK)


def _look_up(uri: str) -> StoredFile | None:
    try:
        return filesystem.stat_file(uri)
    except (OSError, ValueError):
        return None
