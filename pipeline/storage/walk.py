"""Walking folders of this machine: of any depth, in order, and never round a loop of links."""

import errno
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.storage.globs import ANY_FOLDERS, GLOB_CHARACTERS, glob_regex
from pipeline.storage.local_files import look_up
from pipeline.storage.stored_file import StoredFile

# Linux takes paths of less than 4,096 bytes in a call; macOS of less than 1,024.
_PATH_PART_BYTES = 512


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    is_folder: bool


def list_folder(folder: str) -> Iterator[StoredFile]:
    """As `filesystem.list_files`."""
    # Iterators on a stack of our own: folders may be nested deeper than Python's functions.
    paths, entries = [folder], [iter(_entries(folder))]
    while entries:
        entry = next(entries[-1], None)
        if entry is None:
            paths.pop()
            entries.pop()
            continue
        path = f"{paths[-1].rstrip('/')}/{entry.name}"
        if entry.is_folder:
            paths.append(path)
            entries.append(iter(_entries(path)))
        else:
            yield _stored(path)


def list_matching(pattern: str) -> Iterator[StoredFile]:
    """As `filesystem.list_glob`."""
    parts = pattern.split("/")
    if ANY_FOLDERS not in parts:
        for path in sorted(glob.iglob(pattern, include_hidden=True)):
            if os.path.isfile(path) or not os.path.exists(path):
                yield _stored(path)
        return
    first = parts.index(ANY_FOLDERS)
    head = "/".join(parts[:first]) or "/"
    roots = sorted(glob.iglob(head, include_hidden=True)) if GLOB_CHARACTERS.search(head) else [head]
    matches = glob_regex("/".join(parts[first:])).fullmatch
    for root in filter(os.path.isdir, roots):
        for stored in list_folder(root):
            if matches(stored.uri[len(root) :].lstrip("/")):
                yield stored


def _entries(folder: str) -> list[_Entry]:
    """The folders and files of a folder by their names; links to folders and what is no file are left out."""
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
                if (is_folder := entry.is_dir(follow_symlinks=False)) or entry.is_file() or _leads_nowhere(entry)
            ]
    finally:
        os.close(descriptor)
    return sorted(found, key=lambda entry: entry.name)


def _open_by_parts(folder: str) -> int:
    """Opens a folder whose path is longer than the system takes in one call."""
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


def _leads_nowhere(entry: "os.DirEntry[str]") -> bool:
    if not entry.is_symlink():
        return False
    try:
        entry.stat()
    except OSError:
        return True
    return False


def _stored(path: str) -> StoredFile:
    """Looks a listed file up; one that can't be is listed without a size, and the read of it says why."""
    try:
        return look_up(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP):
            raise
        return StoredFile(path, -1, "")
