"""Files on this machine, by system calls.

No partial file has a final name: a file is written under a temporary name, unique to the process, and renamed.
Transient errors of network file systems (EIO, a stale handle) are retried.
"""

import contextlib
import errno
import fcntl
import os
import stat
import uuid
from collections.abc import Callable, Iterator

from pipeline.storage.retries import is_transient_local, with_retries
from pipeline.storage.stored_file import StoredFile

# Errors of file systems without hard links.
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
# Errors of network file systems that are mounted without locks.
_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))
# Resolutions of modification times, from one nanosecond to two seconds.
_MTIME_STEPS_NS = (1, 1_000, 1_000_000, 2_000_000_000)


def read(path: str, offset: int, max_bytes: int) -> bytes:
    """Reads a range of a file.

    Args:
        path: absolute.
        offset: of the first byte, from 0.
        max_bytes: maximum number of bytes; -1 for all.

    Raises:
        OSError: it can't be read, or is not a regular file.
    """
    return with_retries(lambda: _read(path, offset, max_bytes), is_transient_local)


def _read(path: str, offset: int, max_bytes: int) -> bytes:
    # Without O_NONBLOCK, opening a named pipe blocks until there is a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        file.seek(offset)
        return _read_up_to(file.read, max_bytes)


def _read_up_to(read: Callable[[int], bytes | None], max_bytes: int) -> bytes:
    """Reads `max_bytes`, or to the end with -1; one system call may return fewer bytes than requested."""
    parts: list[bytes] = []
    left = max_bytes
    while left:
        part = read(left)
        if not part:
            break
        parts.append(part)
        left = left - len(part) if left > 0 else -1
    return parts[0] if len(parts) == 1 else b"".join(parts)


def write(path: str, data: bytes, scratch: str | None) -> None:
    """Writes a whole file atomically and creates missing folders.

    Args:
        path: absolute.
        data: the content.
        scratch: a folder on the same disk for the temporary file; None for the file's own folder.

    Raises:
        OSError: it can't be written; an existing file of this name is unchanged.
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


def write_if(path: str, data: bytes, version: str | None) -> bool:
    """Writes a whole file if the existing one has this version; with None, if none exists.

    Args:
        path: absolute.
        data: the content.
        version: `StoredFile.version` as `stat_file` returns it, or None.

    Returns:
        Whether it was written.

    Raises:
        OSError: it can't be written.
    """
    temporary = os.path.join(os.path.dirname(path), f".{os.getpid()}-{uuid.uuid4().hex}.tmp")

    def act() -> bool:
        try:
            _make_folder_and(lambda: _write_new(temporary, data), temporary)
            return _link_new(temporary, path) if version is None else _replace_version(temporary, path, version)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    return with_retries(act, is_transient_local)


def _link_new(temporary: str, path: str) -> bool:
    """Gives a file another name, unless a file of that name exists."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        # NFS may retry a call that succeeded.
        return os.stat(temporary).st_nlink > 1
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Without hard links an empty file is created first, which a reader may see.
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            return False
        os.replace(temporary, path)
    return True


def _replace_version(temporary: str, path: str, version: str) -> bool:
    """Replaces a file that has this version by another one."""
    with _locked(path):
        try:
            now_ns = os.stat(path).st_mtime_ns
        except FileNotFoundError:
            return False
        if str(now_ns) != version:
            return False
        # Two writes within the resolution of modification times must have different versions.
        for step_ns in _MTIME_STEPS_NS:
            if os.stat(temporary).st_mtime_ns > now_ns:
                break
            os.utime(temporary, ns=(now_ns + step_ns, now_ns + step_ns))
        os.replace(temporary, path)
    return True


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Holds the lock of a path, which excludes other processes and threads; the end of the process releases it."""
    name = f"{path}.lock"
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor)
            with contextlib.suppress(FileNotFoundError):
                # The previous holder deletes the file, and a lock on a deleted file has no effect.
                if os.path.samestat(os.fstat(descriptor), os.stat(name)):
                    break
        except BaseException:
            _unlock(descriptor)
            raise
        _unlock(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        _unlock(descriptor)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        # Without locks, another write between the check of the version and the rename is not detected.


def _unlock(descriptor: int) -> None:
    # Closing is not enough: a process that was forked meanwhile has the descriptor, too, and would keep the lock.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _write_new(path: str, data: bytes) -> None:
    with open(path, "xb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _make_folder_and(act: Callable[[], None], path: str) -> None:
    """Calls a function; if the path's folder is missing, creates it and calls the function again."""
    try:
        act()
    except FileNotFoundError:
        _make_folders(os.path.dirname(path))
        act()


def _make_folders(folder: str) -> None:
    """Creates a folder and its missing parents; iterates, because `os.makedirs` fails above the recursion limit."""
    missing = []
    while True:
        try:
            os.mkdir(folder)
            break
        except FileNotFoundError:
            missing.append(folder)
            folder = os.path.dirname(folder)
        except OSError:
            # A read-only file system may report that even if the folder exists.
            if not os.path.isdir(folder):
                raise
            break
    for below in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(below)


def stat_file(path: str) -> StoredFile:
    """As `filesystem.stat_file`."""
    status = os.stat(path)
    return StoredFile(path, status.st_size, str(status.st_mtime_ns), status.st_mtime_ns)
