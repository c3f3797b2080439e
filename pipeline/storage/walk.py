"""Lists local folders: of any depth, in order of names, without following loops of links."""

import errno
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.storage.globs import ANY_FOLDERS, GLOB_CHARACTERS, glob_regex
from pipeline.storage.local_files import stat_file
from pipeline.storage.stored_file import OnUnreadable, StoredFile

# Linux accepts paths of less than 4,096 bytes in one call; macOS of less than 1,024.
_PATH_PART_BYTES = 512


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    is_folder: bool


def list_folder(folder: str, on_unreadable: OnUnreadable | None = None) -> Iterator[StoredFile]:
    """As `filesystem.list_files`."""
    # An explicit stack: folders may be nested deeper than Python's recursion limit.
    paths, entries = [folder], [iter(_entries(folder))]
    while entries:
        entry = next(entries[-1], None)
        if entry is None:
            paths.pop()
            entries.pop()
            continue
        path = f"{paths[-1].rstrip('/')}/{entry.name}"
        if entry.is_folder:
            try:
                below = _entries(path)
            except PermissionError:
                if on_unreadable is None:
                    raise
                on_unreadable(path)
                continue
            paths.append(path)
            entries.append(iter(below))
        else:
            yield _stored(path)


def list_matching(pattern: str, on_unreadable: OnUnreadable | None = None) -> Iterator[StoredFile]:
    """As `filesystem.list_glob`."""
    parts = pattern.split("/")
    for folder, is_fixed in _unreadable(parts):
        if on_unreadable is None or is_fixed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        on_unreadable(folder)
    if ANY_FOLDERS not in parts:
        for path in sorted(glob.iglob(pattern, include_hidden=True)):
            if os.path.isfile(path) or not os.path.exists(path):
                yield _stored(path)
        return
    first = parts.index(ANY_FOLDERS)
    head = "/".join(parts[:first]) or "/"
    roots = sorted(glob.iglob(head, include_hidden=True)) if GLOB_CHARACTERS.search(head) else [head]
    matches = glob_regex("/".join(parts[first:])).fullmatch
    for root in filter(_is_readable, filter(os.path.isdir, roots)):
        for stored in list_folder(root, on_unreadable):
            if matches(stored.uri[len(root) :].lstrip("/")):
                yield stored


def _unreadable(parts: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The folders in which a pattern searches for names and that can't be read; `glob` skips them without an error.

    Yields:
        A folder, and whether it is the part of the pattern before the first wildcard.
    """
    for position, part in enumerate(parts):
        if GLOB_CHARACTERS.search(part):
            searched = "/".join(parts[:position]) or "/"
            is_fixed = not GLOB_CHARACTERS.search(searched)
            for path in glob.iglob(searched, include_hidden=True):
                if not _is_readable(path):
                    yield path, is_fixed
        if part == ANY_FOLDERS:
            return  # the walk checks the folders below


def _is_readable(path: str) -> bool:
    return not os.path.isdir(path) or os.access(path, os.R_OK | os.X_OK)


def _entries(folder: str) -> list[_Entry]:
    """The folders and files of a folder, sorted by name; without links to folders, pipes and devices."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        descriptor = _open_by_parts(folder)
    try:
        with os.scandir(descriptor) as scan:
            found = [
                _Entry(entry.name, is_folder)
                for entry in scan
                if (is_folder := entry.is_dir(follow_symlinks=False)) or entry.is_file() or _is_broken_link(entry)
            ]
    finally:
        os.close(descriptor)
    return sorted(found, key=lambda entry: entry.name)


def _open_by_parts(folder: str) -> int:
    """Opens a folder whose path is longer than the system accepts in one call."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    descriptor = os.open("/", flags)
    names = [name for name in folder.split("/") if name]
    while names:
        part, length = [names.pop(0)], 0
        while names and (length := length + len(os.fsencode(names[0])) + 1) < _PATH_PART_BYTES:
            part.append(names.pop(0))
        try:
            below = os.open("/".join(part), flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _is_broken_link(entry: "os.DirEntry[str]") -> bool:
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except OSError:
        return True
    return False


def _stored(path: str) -> StoredFile:
    """The properties of a listed file; without a size if they can't be read, so that reading it raises the error."""
    try:
        return stat_file(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES):
            raise
        return StoredFile(path, -1, "")
