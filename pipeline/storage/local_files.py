"""Files on this machine, by plain calls.

Nothing half-written ever bears a final name: a file is written under a scratch name unique to the process and renamed.
What may pass on a mounted disk (EIO, a stale handle) is tried again.
"""

import contextlib
import errno
import glob
import os
import stat
import uuid
from collections.abc import Callable, Iterator

from pipeline.storage.buckets import StoredFile
from pipeline.storage.retries import is_transient_local, with_retries


def read(path: str, offset: int, most: int) -> bytes:
    """Reads at most so many bytes from a place on, -1 for all the rest.

    Raises:
        OSError: it can't be read, or is no plain file.
    """
    return with_retries(lambda: _read(path, offset, most), is_transient_local)


def _read(path: str, offset: int, most: int) -> bytes:
    # Without O_NONBLOCK the mere opening of a named pipe waits for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", path)
        file.seek(offset)
        return _read_most(file.read, most)


def _read_most(read: Callable[[int], bytes | None], most: int) -> bytes:
    """Reads to the end or until there are `most` bytes; -1 for no limit. One call may give less than it was asked."""
    parts: list[bytes] = []
    left = most
    while left:
        part = read(left)
        if not part:
            break
        parts.append(part)
        left = left - len(part) if left > 0 else -1
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write(path: str, data: bytes, scratch: str | None) -> None:
    """Writes a whole file and makes the folders that it needs.

    Args:
        path: its name.
        data: the content.
        scratch: a folder on the same disk for the name it bears until it is whole; None for its own folder.

    Raises:
        OSError: it can't be written; nothing bears the name then, or what did before still does.
    """
    with_retries(lambda: _write(path, data, scratch), is_transient_local)


def _write(path: str, data: bytes, scratch: str | None) -> None:
    temporary = os.path.join(scratch or os.path.dirname(path), f".{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        _make_folder_and(lambda: _write_new(temporary, data), temporary)
        _make_folder_and(lambda: os.replace(temporary, path), path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _write_new(path: str, data: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _make_folder_and(act: Callable[[], None], path: str) -> None:
    """Tries, and where the folder of the path turns out to be missing makes it and tries again: no look before each."""
    try:
        act()
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        act()


def list_folder(folder: str) -> Iterator[StoredFile]:
    """As `storage.list_files`."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from list_folder(entry.path)
        elif entry.is_file() or not os.path.exists(entry.path):
            yield _entry(entry.path)


def list_matching(pattern: str) -> Iterator[StoredFile]:
    """As `storage.list_glob`."""
    for path in sorted(glob.iglob(pattern, recursive=True, include_hidden=True)):
        if os.path.isfile(path):
            yield look_up(path)


def _entry(path: str) -> StoredFile:
    try:
        return look_up(path)
    except FileNotFoundError:
        return StoredFile(path, -1, "")


def look_up(path: str) -> StoredFile:
    """As `storage.stat_file`."""
    status = os.stat(path)
    return StoredFile(path, status.st_size, str(status.st_mtime_ns), status.st_mtime_ns)
