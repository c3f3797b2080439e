"""The one room for storage: files on this machine by plain calls, buckets through Beam's file systems.

Nothing half-written ever bears a final name: a local file is written under a scratch name unique to the process and
renamed; a bucket's object appears when it is closed. What may pass (a lost connection, a bucket's 503) is tried again;
what a bucket's client raises after that becomes an `OSError`, so callers know one kind of fault.
"""

import contextlib
import errno
import os
import re
import shutil
import stat
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from pipeline.core.errors import StorageError
from pipeline.stages.buckets import Bucket, GcsBucket, S3Bucket
from pipeline.stages.buckets import StoredFile as StoredFile
from pipeline.stages.retry import http_status, is_transient_local, is_transient_remote, with_retries

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

REMOTE_SCHEMES = ("gs://", "s3://")
SCRATCH_FOLDER = "_progress/tmp"
"""Where below an output files lie until they are whole; what a killed run leaves there goes with the next."""

_FIRST_PIECE_BYTES, _PIECE_BYTES = 64 << 10, 8 << 20
_GLOB_CHARACTERS = re.compile(r"[*?\[]")
_BUCKETS: dict[str, tuple["PipelineOptions", Bucket]] = {}
_MAKING_BUCKETS = threading.Lock()
_T = TypeVar("_T")


class StoreFaultError(OSError):
    """A store that failed in a way that may pass, and went on so through all attempts."""


def is_remote(uri: str) -> bool:
    """Whether a path lies in a bucket."""
    return uri.startswith(REMOTE_SCHEMES)


def absolute(uri: str) -> str:
    """A local path made absolute and `file://` taken off; a bucket's URI without a closing slash.

    Args:
        uri: what a user wrote.

    Returns:
        The form that all other functions of this room take.
    """
    if is_remote(uri):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def join(root: str, *parts: str) -> str:
    """Joins with `/`, which every store and every supported system takes."""
    return "/".join([root.rstrip("/") if len(root) > 1 else root, *parts])


def base_name(uri: str) -> str:
    """The last part of a path or URI."""
    return uri.rstrip("/").rpartition("/")[2]


def read_bytes(uri: str, most_bytes: int | None = None) -> bytes:
    """Reads a whole file.

    Args:
        uri: absolute path or URI.
        most_bytes: a longer file is not read on; None for no limit.

    Returns:
        Its content, cut off behind `most_bytes` and one byte more, so that the caller sees that there was more.

    Raises:
        OSError: it can't be read, or is no plain file (a pipe would wait for ever, a device would never end).
    """
    most = -1 if most_bytes is None else most_bytes + 1
    if not is_remote(uri):
        return with_retries(lambda: _read_local(uri, 0, most), is_transient_local)
    return _remote(lambda: _bucket(uri).read(uri, 0, most))


def _read_local(path: str, offset: int, most: int) -> bytes:
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


def _bucket(uri: str) -> Bucket:
    """The store's client with the options of Beam's file systems, made once a process: making one takes 0.1 s."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    options = FileSystems._pipeline_options or PipelineOptions()
    scheme = uri.partition("://")[0]
    made = _BUCKETS.get(scheme)
    if made is None or made[0] is not options:
        with _MAKING_BUCKETS:
            made = _BUCKETS[scheme] = (options, _make_bucket(scheme, options))
    return made[1]


def _make_bucket(scheme: str, options: "PipelineOptions") -> Bucket:
    extra = "aws" if scheme == "s3" else "gcp"
    try:
        if scheme == "s3":
            import boto3  # noqa: F401  (Beam's module can be imported without it)
            from apache_beam.io.aws.clients.s3.boto3_client import Client

            return S3Bucket(Client(options).client)
        from apache_beam.io.gcp.gcsio import create_storage_client
        from apache_beam.options.pipeline_options import GoogleCloudOptions
    except ImportError as error:
        raise ImportError(f"{scheme}:// needs the extra {extra}: pip install 'maskbeam[{extra}]'") from error
    # Beam itself looks for credentials for half a minute even where it is told that there are none.
    has_credentials = not options.view_as(GoogleCloudOptions).no_auth
    return GcsBucket(create_storage_client(options, use_credentials=has_credentials))


def configure(beam_arguments: Sequence[str]) -> None:
    """Tells Beam's file systems the options of the command line, before there is a pipeline that does.

    Args:
        beam_arguments: Beam's own options, such as `--s3_endpoint_url`.
    """
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(beam_arguments)))


def _remote(act: Callable[[], _T]) -> _T:
    """Does something with a bucket, tries again what may pass, and turns what remains into an `OSError`."""
    try:
        return with_retries(act, is_transient_remote)
    except Exception as error:
        raise _os_error(error) from error


def _os_error(error: Exception) -> OSError:
    if isinstance(error, ImportError):
        return OSError(errno.ENOSYS, str(error))
    status = http_status(error)
    text = " ".join(str(error).split())[:300]
    if status == 404:
        return FileNotFoundError(errno.ENOENT, text)
    if status in (401, 403):
        return PermissionError(errno.EACCES, text)
    if is_transient_remote(error):
        return StoreFaultError(errno.EIO, text)
    return OSError(errno.EINVAL, text)


def write_bytes(uri: str, data: bytes, scratch: str | None = None) -> None:
    """Writes a whole file at once, replacing what bears its name.

    Args:
        uri: absolute path or URI; missing folders are made.
        data: the content.
        scratch: a folder on the same disk for the name it bears until it is whole; by default its own folder.

    Raises:
        OSError: it can't be written; nothing bears the final name then, or what did before still does.
    """
    if is_remote(uri):
        _remote(lambda: _bucket(uri).write(uri, data))
    else:
        with_retries(lambda: _write_local(uri, data, scratch), is_transient_local)


def _write_local(uri: str, data: bytes, scratch: str | None) -> None:
    temporary = os.path.join(scratch or os.path.dirname(uri), f".{os.getpid()}-{uuid.uuid4().hex}.tmp")
    try:
        _make_folder_and(lambda: _write_new(temporary, data), temporary)
        _make_folder_and(lambda: os.replace(temporary, uri), uri)
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


def exists(uri: str) -> bool:
    """Whether a file or a local folder of this name is there."""
    if not is_remote(uri):
        return os.path.exists(uri)
    return _remote(lambda: _bucket(uri).stat(uri)) is not None


def is_folder(uri: str) -> bool:
    """Whether it is a local folder, or a bucket's prefix below which something lies."""
    if not is_remote(uri):
        return os.path.isdir(uri)
    return next(iter(list_files(uri)), None) is not None


def list_files(folder: str) -> Iterator[StoredFile]:
    """Lists all files below a folder or prefix, links to files included, links to folders not followed.

    A link that leads nowhere is listed without a size: whoever reads it learns what is wrong.

    Args:
        folder: absolute path or URI.

    Yields:
        The files, a local folder's in order of their names.

    Raises:
        OSError: the folder can't be listed.
    """
    if is_remote(folder):
        yield from _list_objects(join(folder, ""))
        return
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from list_files(entry.path)
        elif entry.is_file() or not os.path.exists(entry.path):
            yield _entry(entry.path)


def list_glob(pattern: str) -> Iterator[StoredFile]:
    """Lists the files that a glob (`*`, `?`, `[…]`, `**` for any number of folders) matches.

    Args:
        pattern: absolute path or URI.

    Yields:
        The files, in order of their names.
    """
    if is_remote(pattern):
        wildcard = _GLOB_CHARACTERS.search(pattern)
        matches = _glob_regex(pattern).fullmatch
        for stored in _list_objects(pattern[: wildcard.start()] if wildcard else pattern):
            if matches(stored.uri):
                yield stored
        return
    import glob

    for path in sorted(glob.iglob(pattern, recursive=True, include_hidden=True)):
        if os.path.isfile(path):
            yield _local_file(path)


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Reads a part of a file.

    Args:
        uri: absolute path or URI.
        offset: where the part begins.
        length: how many bytes are wanted.

    Returns:
        The part; shorter where the file ends.

    Raises:
        OSError: it can't be read.
    """
    if is_remote(uri):
        return _remote(lambda: _bucket(uri).read(uri, offset, length))
    return with_retries(lambda: _read_local(uri, offset, length), is_transient_local)


def read_pieces(uri: str) -> Iterator[bytes]:
    """Reads a whole file a piece at a time, so that memory holds no more than one of them.

    Args:
        uri: absolute path or URI.

    Yields:
        Pieces of at most `_PIECE_BYTES` in their order.

    Raises:
        OSError: it can't be read.
    """
    offset, length = 0, _FIRST_PIECE_BYTES
    while True:
        piece = read_range(uri, offset, length)
        if piece:
            yield piece
        if len(piece) < length:
            return
        offset += len(piece)
        # Who only wants a look at the beginning is not made to fetch megabytes.
        length = min(2 * length, _PIECE_BYTES)


def stat_file(uri: str) -> StoredFile:
    """Looks one file up.

    Raises:
        OSError: there is none.
    """
    if not is_remote(uri):
        return _local_file(uri)
    found = _remote(lambda: _bucket(uri).stat(uri))
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", uri)
    return found


def delete(uri: str) -> None:
    """Deletes one file; none there is no fault."""
    if not is_remote(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
        return
    with contextlib.suppress(FileNotFoundError):
        _remote(lambda: _bucket(uri).delete(uri))


def delete_with_empty_folders(uri: str, root: str) -> None:
    """Deletes one file and the folders below `root` that it leaves empty; none there is no fault."""
    delete(uri)
    folder = os.path.dirname(uri)
    with contextlib.suppress(OSError):  # a folder that still holds something
        while not is_remote(root) and folder.startswith(f"{root}/"):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def scratch_of(output: str) -> str | None:
    """Where an output's files lie until they are whole; None for a bucket, whose objects appear whole."""
    return None if is_remote(output) else join(output, SCRATCH_FOLDER)


def delete_folder(folder: str) -> None:
    """Deletes everything below a folder or prefix; none there is no fault.

    Raises:
        OSError: something there can't be deleted.
    """
    if not is_remote(folder):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return
    for stored in list_files(folder):
        delete(stored.uri)


def check_writable(folder: str) -> None:
    """Makes the output folder and proves that a file can be written there.

    Raises:
        StorageError: it can't.
    """
    probe = join(folder, SCRATCH_FOLDER, f"writable-{uuid.uuid4().hex}")
    try:
        write_bytes(probe, b"")
        delete(probe)
    except OSError as error:
        raise StorageError(f"{folder} can't be written: {error.strerror or error}") from error


def _entry(path: str) -> StoredFile:
    try:
        return _local_file(path)
    except FileNotFoundError:
        return StoredFile(path, -1, "")


def _local_file(path: str) -> StoredFile:
    status = os.stat(path)
    return StoredFile(path, status.st_size, str(status.st_mtime_ns), status.st_mtime_ns)


def _list_objects(prefix: str) -> Iterator[StoredFile]:
    """All objects whose URI begins so, without those that only stand for a folder; a page is asked for at a time.

    The clients try each page again for some seconds; where the store fails for longer, the listing is begun again and
    what was listed is passed over, for objects come in the order of their keys.
    """
    try:
        objects = _bucket(prefix).list(prefix)
    except Exception as error:
        raise _os_error(error) from error
    last = ""

    def listed() -> StoredFile | None:
        nonlocal last, objects
        try:
            while (stored := next(objects, None)) is not None and stored.uri <= last:
                pass
        except Exception:
            objects = _bucket(prefix).list(prefix)
            raise
        last = stored.uri if stored else last
        return stored

    try:
        while (stored := with_retries(listed, is_transient_remote)) is not None:
            if not stored.uri.endswith("/"):
                yield stored
    except Exception as error:
        raise _os_error(error) from error


def _glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` and `?` stay within a folder, `**/` is any number of them."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        bracket = re.match(r"\[(!?)([^\]]+)\]", rest)
        if rest.startswith("**/"):
            parts.append("(?:.*/)?")
            position += 3
        elif rest.startswith("**"):
            parts.append(".*")
            position += 2
        elif bracket:
            inner = bracket[2].replace("\\", "\\\\")
            parts.append(f"[{'^' if bracket[1] else ''}{inner}]")
            position += bracket.end()
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0])))
            position += 1
    return re.compile("".join(parts), re.DOTALL)
