"""The one room for storage: files on this machine by plain calls, buckets through Beam's file systems.

Nothing half-written ever bears a final name: a local file is written under a scratch name unique to the process and
renamed; a bucket's object appears when it is closed.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.core.errors import StorageError

if TYPE_CHECKING:
    from apache_beam.io.filesystem import FileMetadata

REMOTE_SCHEMES = ("gs://", "s3://")
_PIECE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One listed file.

    Args:
        uri: absolute path or URI.
        size_bytes: its length.
        version: changes when the content changes: modification time in ns, or the store's own word.
    """

    uri: str
    size_bytes: int
    version: str


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


def read_bytes(uri: str) -> bytes:
    """Reads a whole file.

    Args:
        uri: absolute path or URI.

    Returns:
        Its content.

    Raises:
        OSError: it can't be read.
    """
    if not is_remote(uri):
        with open(uri, "rb", buffering=0) as file:
            return file.read()
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
        return bytes(remote.read())


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
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems

        with FileSystems.create(uri, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
            remote.write(data)
        return
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
    from apache_beam.io.filesystems import FileSystems

    return bool(FileSystems.exists(uri))


def is_folder(uri: str) -> bool:
    """Whether it is a local folder, or a bucket's prefix below which something lies."""
    if not is_remote(uri):
        return os.path.isdir(uri)
    return next(iter(list_files(uri)), None) is not None


def list_files(folder: str) -> Iterator[StoredFile]:
    """Lists all files below a folder or prefix, links to files included, links to folders not followed.

    Args:
        folder: absolute path or URI.

    Yields:
        The files, a local folder's in order of their names.

    Raises:
        OSError: the folder can't be listed.
    """
    if is_remote(folder):
        yield from _list_remote(join(folder, "**"))
        return
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from list_files(entry.path)
        elif entry.is_file():
            yield _local_file(entry.path)


def list_glob(pattern: str) -> Iterator[StoredFile]:
    """Lists the files that a glob (`*`, `?`, `[…]`, `**` for any number of folders) matches.

    Args:
        pattern: absolute path or URI.

    Yields:
        The files, in order of their names.
    """
    if is_remote(pattern):
        yield from _list_remote(pattern)
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
        from apache_beam.io.filesystem import CompressionTypes
        from apache_beam.io.filesystems import FileSystems

        with FileSystems.open(uri, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
            remote.seek(offset)
            return bytes(remote.read(length))
    parts: list[bytes] = []
    with open(uri, "rb", buffering=0) as file:
        file.seek(offset)
        while length > 0:
            part = file.read(length)
            if not part:
                break
            parts.append(part)
            length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_pieces(uri: str) -> Iterator[bytes]:
    """Reads a whole file a piece at a time, so that memory holds no more than one of them.

    Args:
        uri: absolute path or URI.

    Yields:
        Pieces of at most `_PIECE_BYTES` in their order.

    Raises:
        OSError: it can't be read.
    """
    offset = 0
    while True:
        piece = read_range(uri, offset, _PIECE_BYTES)
        if piece:
            yield piece
        if len(piece) < _PIECE_BYTES:
            return
        offset += len(piece)


def stat_file(uri: str) -> StoredFile:
    """Looks one file up.

    Raises:
        OSError: there is none.
    """
    if not is_remote(uri):
        return _local_file(uri)
    found = next(_list_remote(uri), None)
    if found is None:
        raise FileNotFoundError(uri)
    return found


def delete(uri: str) -> None:
    """Deletes one file; none there is no fault."""
    if not is_remote(uri):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uri)
        return
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.exists(uri):
        FileSystems.delete([uri])


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
    probe = join(folder, f".writable-{uuid.uuid4().hex}")
    try:
        write_bytes(probe, b"")
        delete(probe)
    except OSError as error:
        raise StorageError(f"{folder} can't be written: {error.strerror or error}") from error


def _local_file(path: str) -> StoredFile:
    status = os.stat(path)
    return StoredFile(path, status.st_size, str(status.st_mtime_ns))


def _list_remote(pattern: str) -> Iterator[StoredFile]:
    from apache_beam.io.filesystems import FileSystems

    (matched,) = FileSystems.match([pattern])
    found: list[FileMetadata] = matched.metadata_list
    for metadata in found:
        if not metadata.path.endswith("/"):
            yield StoredFile(metadata.path, metadata.size_in_bytes, str(metadata.last_updated_in_seconds or ""))
