"""All access to storage: the same calls for files on this machine, objects in buckets and files on web servers.

No partial file has a final name: a local file is written under a temporary name and renamed, an object is written by
one request. Transient errors are retried for as long as `patience` says; what remains is an `OSError`.
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
from pipeline.storage.stored_file import StoredFile as StoredFile
from pipeline.storage.stored_file import StoreFaultError as StoreFaultError

REMOTE_SCHEMES = ("gs://", "s3://", "az://", *WEB_SCHEMES)
READ_ONLY, NOT_LISTED = object_stores.READ_ONLY, object_stores.NOT_LISTED
"""What is said of https:// where an output or a folder is wanted."""
_FIRST_PIECE_BYTES, _PIECE_BYTES = 64 << 10, 8 << 20


def configure(beam_arguments: Sequence[str]) -> None:
    """Sets how this process reaches stores; a worker that was not told takes what Beam gave it.

    Args:
        beam_arguments: Beam's own options, such as `--s3_endpoint_url`; others among them are ignored.
    """
    store_pool.configure(StoreOptions.parse(beam_arguments))


def is_remote(uri: str) -> bool:
    """Whether it is the URI of an object or prefix in a store, and no local path."""
    return uri.startswith(REMOTE_SCHEMES)


def is_read_only(uri: str) -> bool:
    """Whether it is a web address, where single files are read and nothing is written or listed."""
    return uri.startswith(WEB_SCHEMES)


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


def real_path(uri: str) -> str:
    """A local path with its links followed, whether or not it exists; a bucket's URI as it is."""
    return uri if is_remote(uri) else os.path.realpath(uri)


def is_within(uri: str, folder: str) -> bool:
    """Whether a path is a folder or below it, by their names."""
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
        max_bytes: of a longer file no more is read; None for no limit.

    Returns:
        Its content, of a longer file the first `max_bytes` and one byte more, so that the caller sees that.

    Raises:
        OSError: it can't be read, or is no plain file (a pipe would wait for ever, a device would never end).
    """
    if not is_remote(uri):
        return local_files.read(uri, 0, -1 if max_bytes is None else max_bytes + 1)
    return object_stores.read(uri, None if max_bytes is None else max_bytes + 1)


def write_bytes(uri: str, data: bytes, scratch: str | None = None) -> None:
    """Writes a whole file at once, replacing one of the same name.

    Args:
        uri: absolute path or URI; missing folders are made.
        data: the content.
        scratch: a folder on the same disk for the temporary file; by default the file's own folder.

    Raises:
        OSError: it can't be written; a file of this name that was there before is unchanged.
    """
    if is_remote(uri):
        object_stores.write(uri, data)
    else:
        local_files.write(uri, data, scratch)


def write_if_absent(uri: str, data: bytes) -> bool:
    """Writes a whole file if there is none of this name; of several writers at once one succeeds.

    Args:
        uri: absolute path or URI; missing folders are made.
        data: the content. It must differ between writers (hold a random token, say): where the answer of a store was
            lost and a retry finds the file, its content decides whose it is.

    Returns:
        Whether the file was written; False where there is one already, which is left as it is.

    Raises:
        OSError: it can't be written.
    """
    return _write_if(uri, data, None)


def replace_if_unchanged(uri: str, data: bytes, version: str) -> bool:
    """Replaces a whole file if it still has this version; of several writers at once one succeeds.

    Local writers exclude each other by a lock file, so that this holds against other calls of this function, not
    against `write_bytes`.

    Args:
        uri: absolute path or URI.
        data: the content, different for each writer as in `write_if_absent`.
        version: `StoredFile.version` as `stat_file` gave it.

    Returns:
        Whether the file was replaced; False where it has another version or is gone.

    Raises:
        OSError: it can't be written.
    """
    return _write_if(uri, data, version)


def _write_if(uri: str, data: bytes, version: str | None) -> bool:
    write_if = object_stores.write_if if is_remote(uri) else local_files.write_if
    if write_if(uri, data, version):
        return True
    try:
        # The client may have repeated a write that succeeded and whose answer was lost.
        return read_bytes(uri, len(data)) == data
    except FileNotFoundError:
        return False


def exists(uri: str) -> bool:
    """Whether there is a file, an object or a local folder of this name."""
    if not is_remote(uri):
        return os.path.exists(uri)
    try:
        object_stores.stat(uri)
    except FileNotFoundError:
        return False
    return True


def is_folder(uri: str) -> bool:
    """Whether it is a local folder, or a prefix below which a bucket has objects; never of a web address."""
    if not is_remote(uri):
        return os.path.isdir(uri)
    return not is_read_only(uri) and next(list_files(uri), None) is not None


def list_files(folder: str) -> Iterator[StoredFile]:
    """Lists all files below a folder or prefix, links to files included, links to folders not followed.

    A broken link is listed with a size of -1; reading it raises the error.

    Args:
        folder: absolute path or URI.

    Yields:
        The files, a local folder's in order of their names.

    Raises:
        OSError: the folder can't be listed.
    """
    if is_remote(folder):
        yield from object_stores.list_objects(folder)
        return
    yield from walk.list_folder(folder)


def list_glob(pattern: str) -> Iterator[StoredFile]:
    """Lists the files that a glob (`*`, `?`, `[…]`, `**` for any number of folders) matches.

    `**` follows no links to folders; a folder that the pattern names is followed where it is a link.

    Args:
        pattern: absolute path or URI.

    Yields:
        The files, in order of their names.
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
    yield from walk.list_matching(pattern)


def read_range(uri: str, offset: int, length: int) -> bytes:
    """Reads a part of a file.

    Args:
        uri: absolute path or URI.
        offset: the first byte, from 0.
        length: in bytes.

    Returns:
        The part; shorter where the file ends.

    Raises:
        OSError: it can't be read.
    """
    if is_remote(uri):
        return object_stores.read_range(uri, offset, length)
    return local_files.read(uri, offset, length)


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
        # Small at first, for callers that need only the beginning.
        length = min(2 * length, _PIECE_BYTES)


def stat_file(uri: str) -> StoredFile:
    """Looks one file up.

    Args:
        uri: absolute path or URI.

    Returns:
        Its size, version and time.

    Raises:
        OSError: there is none, or it can't be looked up.
    """
    if not is_remote(uri):
        return local_files.look_up(uri)
    return object_stores.stat(uri)


def delete(uri: str) -> None:
    """Deletes one file; it is no error if there is none."""
    if not is_remote(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
        return
    with contextlib.suppress(FileNotFoundError):
        object_stores.delete(uri)


def delete_with_empty_folders(uri: str, root: str) -> None:
    """Deletes one file and the folders below `root` that it leaves empty; it is no error if there is none."""
    delete(uri)
    folder = os.path.dirname(uri)
    with contextlib.suppress(OSError):  # a folder that is not empty
        while not is_remote(root) and folder.startswith(f"{root}/"):
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def scratch_of(output: str) -> str | None:
    """The folder of an output's temporary files; None in a bucket, whose objects appear whole."""
    return None if is_remote(output) else join(output, SCRATCH_FOLDER)


def delete_folder(folder: str) -> None:
    """Deletes everything below a folder or prefix; it is no error if there is nothing.

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
    """Makes the output folder, and writes and deletes a file in it.

    Raises:
        StorageError: it can't.
    """
    probe = join(folder, SCRATCH_FOLDER, f"writable-{uuid.uuid4().hex}")
    with os_errors_as(StorageError, f"{folder} can't be written"):
        write_bytes(probe, b"")
        delete(probe)
