"""The interface of storage: the same functions for local files, objects in buckets and files on web servers.

No partial file has a final name: a local file is written under a temporary name and renamed, an object is written by
one request. Transient errors are retried for the time that `patience` sets; then they are raised as `OSError`.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence

from pipeline.core.errors import StorageError
from pipeline.core.layout import SCRATCH_FOLDER
from pipeline.storage import local_files, object_stores, store_pool, walk
from pipeline.storage.globs import GLOB_CHARACTERS, glob_regex
from pipeline.storage.os_errors import os_errors_as
from pipeline.storage.retries import CHECK_PATIENCE_S as CHECK_PATIENCE_S
from pipeline.storage.retries import patience as patience
from pipeline.storage.store_options import StoreOptions
from pipeline.storage.store_pool import WEB_SCHEMES as WEB_SCHEMES
from pipeline.storage.stored_file import OnUnreadable
from pipeline.storage.stored_file import StoredFile as StoredFile
from pipeline.storage.stored_file import StoreFaultError as StoreFaultError

REMOTE_SCHEMES = ("gs://", "s3://", "az://", *WEB_SCHEMES)
READ_ONLY, NOT_LISTED = object_stores.READ_ONLY, object_stores.NOT_LISTED
"""Error messages for https:// where an output or a folder is needed."""
_FIRST_PIECE_BYTES, _PIECE_BYTES = 64 << 10, 8 << 20


def configure(beam_arguments: Sequence[str]) -> None:
    """Sets how this process accesses stores; a worker without this call uses the options that Beam gave it.

    Args:
        beam_arguments: Beam's own options, such as `--s3_endpoint_url`; unrelated ones are ignored.
    """
    store_pool.configure(StoreOptions.parse(beam_arguments))


def is_remote(uri: str) -> bool:
    """Whether it is the URI of an object or prefix in a store, not a local path."""
    return uri.startswith(REMOTE_SCHEMES)


def is_read_only(uri: str) -> bool:
    """Whether it is a web address: single files can be read, nothing can be written or listed."""
    return uri.startswith(WEB_SCHEMES)


def absolute(uri: str) -> str:
    """Makes a local path absolute and removes `file://`; removes a trailing slash of a bucket's URI.

    Args:
        uri: as the user wrote it.

    Returns:
        The form that all other functions of this module take.
    """
    if is_remote(uri):
        return uri.rstrip("/")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def real_path(uri: str) -> str:
    """A local path with all symbolic links resolved, whether or not it exists; a bucket's URI unchanged."""
    return uri if is_remote(uri) else os.path.realpath(uri)


def is_within(uri: str, folder: str) -> bool:
    """Whether a path is a folder or below it, by comparing the paths."""
    return f"{uri.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def join(root: str, *parts: str) -> str:
    """Joins with `/`, which every store and every supported system takes."""
    return "/".join([root.rstrip("/"), *parts])


def base_name(uri: str) -> str:
    """The last part of a path or URI."""
    return uri.rstrip("/").rpartition("/")[2]


def read_bytes(uri: str, max_bytes: int | None = None) -> bytes:
    """Reads a whole file.

    Args:
        uri: absolute path or URI.
        max_bytes: maximum number of bytes to read; None for no limit.

    Returns:
        Its content; of a longer file the first `max_bytes` + 1 bytes, so that the caller can detect it.

    Raises:
        OSError: it can't be read, or is not a regular file (reading a pipe may block, a device may have no end).
    """
    if not is_remote(uri):
        return local_files.read(uri, 0, -1 if max_bytes is None else max_bytes + 1)
    return object_stores.read(uri, None if max_bytes is None else max_bytes + 1)


def write_bytes(uri: str, data: bytes, scratch: str | None = None) -> None:
    """Writes a whole file atomically, replacing one of the same name.

    Args:
        uri: absolute path or URI; missing folders are created.
        data: the content.
        scratch: a folder on the same disk for the temporary file; by default the file's own folder.

    Raises:
        OSError: it can't be written; an existing file of this name is unchanged.
    """
    if is_remote(uri):
        object_stores.write(uri, data)
    else:
        local_files.write(uri, data, scratch)


def write_if_absent(uri: str, data: bytes) -> bool:
    """Writes a whole file if none of this name exists; of several concurrent writers one succeeds.

    Args:
        uri: absolute path or URI; missing folders are created.
        data: the content. It must differ between writers, for example by a random token: if a store's response was lost
            and the retry finds the file, the content shows which writer succeeded.

    Returns:
        Whether the file was written; False if one exists, which is unchanged.

    Raises:
        OSError: it can't be written.
    """
    return _write_if(uri, data, None)


def replace_if_unchanged(uri: str, data: bytes, version: str) -> bool:
    """Replaces a whole file if it still has this version; of several concurrent writers one succeeds.

    Local writers exclude each other by a lock file, so this is atomic with respect to other calls of this function, not
    to `write_bytes`.

    Args:
        uri: absolute path or URI.
        data: the content, different for each writer as in `write_if_absent`.
        version: `StoredFile.version` as `stat_file` returned it.

    Returns:
        Whether the file was replaced; False if it has another version or does not exist.

    Raises:
        OSError: it can't be written.
    """
    return _write_if(uri, data, version)


def _write_if(uri: str, data: bytes, version: str | None) -> bool:
    write_if = object_stores.write_if if is_remote(uri) else local_files.write_if
    if write_if(uri, data, version):
        return True
    try:
        # The client may have retried a write that succeeded, after its response was lost.
        return read_bytes(uri, len(data)) == data
    except FileNotFoundError:
        return False


def exists(uri: str) -> bool:
    """Whether a file, an object or a local folder of this name exists."""
    if not is_remote(uri):
        return os.path.exists(uri)
    try:
        object_stores.stat(uri)
    except FileNotFoundError:
        return False
    return True


def is_folder(uri: str) -> bool:
    """Whether it is a local folder, or a prefix with objects in a bucket; False for a web address."""
    if not is_remote(uri):
        return os.path.isdir(uri)
    return not is_read_only(uri) and next(list_files(uri), None) is not None


def list_files(folder: str, on_unreadable: OnUnreadable | None = None) -> Iterator[StoredFile]:
    """Lists all files below a folder or prefix, links to files included, links to folders not followed.

    A broken link is listed with a size of -1; reading it raises the error.

    Args:
        folder: absolute path or URI.
        on_unreadable: called with folders below `folder` that can't be read, which are skipped; by default they raise
            `PermissionError`.

    Yields:
        The files, a local folder's in order of their names.

    Raises:
        OSError: the folder can't be listed.
    """
    if is_remote(folder):
        yield from object_stores.list_objects(folder)
        return
    yield from walk.list_folder(folder, on_unreadable)


def list_glob(pattern: str, on_unreadable: OnUnreadable | None = None) -> Iterator[StoredFile]:
    """Lists the files that match a glob (`*`, `?`, `[…]`, `**` for any number of folders).

    `**` does not follow links to folders; the other parts of a pattern do.

    Args:
        pattern: absolute path or URI.
        on_unreadable: as in `list_files`, for folders in which the pattern searches.

    Yields:
        The files, in order of their names.

    Raises:
        OSError: a folder can't be listed.
    """
    if is_remote(pattern):
        wildcard = GLOB_CHARACTERS.search(pattern)
        if wildcard is None:
            with contextlib.suppress(FileNotFoundError):
                yield stat_file(pattern)
            return
        matches = glob_regex(pattern).fullmatch
        for stored in object_stores.list_objects(pattern[: wildcard.start()].rpartition("/")[0]):
            if matches(stored.uri):
                yield stored
        return
    yield from walk.list_matching(pattern, on_unreadable)


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Reads a range of a file.

    Args:
        uri: absolute path or URI.
        offset: of the first byte, from 0.
        length: number of bytes.

    Returns:
        The bytes; fewer at the end of the file.

    Raises:
        OSError: it can't be read.
    """
    if is_remote(uri):
        return object_stores.read_range(uri, offset, length)
    return local_files.read(uri, offset, length)


def read_pieces(uri: str) -> Iterator[bytes]:
    """Reads a whole file in pieces, of which only one is in memory at a time.

    Args:
        uri: absolute path or URI.

    Yields:
        Pieces of at most `_PIECE_BYTES` bytes, in order.

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
        # Small at first, for callers that need only the start of the file.
        length = min(2 * length, _PIECE_BYTES)


def stat_file(uri: str) -> StoredFile:
    """Returns the size, version and modification time of one file.

    Args:
        uri: absolute path or URI.

    Returns:
        The file's properties.

    Raises:
        OSError: it does not exist, or the store can't be accessed.
    """
    if not is_remote(uri):
        return local_files.stat_file(uri)
    return object_stores.stat(uri)


def delete(uri: str) -> None:
    """Deletes one file, if it exists."""
    if not is_remote(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
        return
    with contextlib.suppress(FileNotFoundError):
        object_stores.delete(uri)


def delete_with_empty_folders(uri: str, root: str) -> None:
    """Deletes one file, if it exists, and the folders below `root` that are then empty."""
    delete(uri)
    folder = os.path.dirname(uri)
    with contextlib.suppress(OSError):  # a folder that is not empty
        while not is_remote(root) and folder.startswith(f"{root}/"):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def scratch_of(output: str) -> str | None:
    """The folder of an output's temporary files; None in a bucket, where writes are atomic."""
    return None if is_remote(output) else join(output, SCRATCH_FOLDER)


def delete_folder(folder: str) -> None:
    """Deletes a folder or prefix with its files, if it exists.

    Raises:
        OSError: a file can't be deleted.
    """
    if not is_remote(folder):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return
    for stored in list_files(folder):
        delete(stored.uri)


def check_writable(folder: str) -> None:
    """Creates a folder, and writes and deletes a file in it.

    Raises:
        StorageError: it can't be written.
    """
    probe = join(folder, SCRATCH_FOLDER, f"writable-{uuid.uuid4().hex}")
    with os_errors_as(StorageError, f"{folder} can't be written"):
        write_bytes(probe, b"")
        delete(probe)
