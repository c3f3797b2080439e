"""Masks in tar files `masks/part-ID-NUMBER.tar`, one member per mask, with names for WebDataset.

A picture `north/a.jpg` has the member `north/a.jpg.png`: key `north/a`, extension `jpg.png`, so that tar files of
pictures and of masks join by key. Each process writes its own tar files, whose names are unique. It rewrites the open
one atomically before each write of the journal, and starts the next one above 16 MiB. Members keep their offsets, so
earlier entries of the journal stay valid.

Which tar file has a mask depends on how the work was divided; the tables name it, as `TAR!MEMBER`.
"""

import re
import tarfile
import threading
import uuid
from collections.abc import Iterator

from pipeline.core.errors import StorageError
from pipeline.output.mask_output import MaskOutput
from pipeline.sources.archives.members import Member
from pipeline.sources.archives.parallel import walk_stored_tar
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

PART_BYTES = 16 << 20
BLOCK_BYTES = 512
END_MARK = bytes(2 * BLOCK_BYTES)
_FOLDER, _SUFFIX = MaskOutput.folder, MaskOutput.suffix
PARTS_GLOB = f"{_FOLDER}/part-*.tar"
_PART_NAME = re.compile(rf"{_FOLDER}/part-(?:[0-9a-f]{{16}}|\d{{5,}}-of-\d{{5,}})-\d{{5}}\.tar")
"""With `K-of-N` in place of the id, names of version 1."""
_VERSION_1_NAME = re.compile(rf"{_FOLDER}/part-\d{{5,}}-of-\d{{5,}}-\d{{5}}\.tar")


class TarParts:
    """Writes the tar files of one process; thread-safe.

    Args:
        root: absolute folder or bucket prefix.
        name: 16 hexadecimal digits, unique among processes and tasks; random by default.
        part_bytes: a file of at least this size gets no more members; by default `PART_BYTES`.
    """

    def __init__(self, root: str, name: str | None = None, part_bytes: int | None = None) -> None:
        self._root = root
        self._stem = f"{_FOLDER}/part-{name or uuid.uuid4().hex[:16]}-"
        self._part_bytes = part_bytes or PART_BYTES
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._number = 0
        self._pieces: list[bytes] = []
        self._size = 0
        self._unwritten: dict[str, list[bytes]] = {}

    def add(self, image_id: str, data: bytes) -> tuple[str, int]:
        """Adds a mask, which the next `flush` stores.

        Args:
            image_id: the picture's.
            data: the encoded mask.

        Returns:
            The path of its tar file below `--output`, and its offset there.
        """
        header = member_header(image_id, len(data))
        with self._lock:
            if self._size >= self._part_bytes:
                self._begin_part()
            offset = self._size + len(header)
            self._pieces += [header, data, bytes(-len(data) % BLOCK_BYTES)]
            self._size = offset + padded(len(data))
            part = self._part
            # Not a copy: a flush writes all members that the list has by then.
            self._unwritten[part] = self._pieces
            return part, offset

    def flush(self) -> None:
        """Writes all tar files that have new members.

        Raises:
            StorageError: one can't be written; the next call retries it.
        """
        with self._writing:
            with self._lock:
                unwritten, self._unwritten = self._unwritten, {}
                contents = {part: [*pieces, END_MARK] for part, pieces in unwritten.items()}
            for part, pieces in contents.items():
                try:
                    with os_errors_as(StorageError, f"the output can't be written: {part}"):
                        uri = filesystem.join(self._root, part)
                        filesystem.write_bytes(uri, b"".join(pieces), filesystem.scratch_of(self._root))
                except StorageError:
                    with self._lock:
                        self._unwritten = unwritten | self._unwritten
                    raise

    def seal(self) -> None:
        """Closes the open tar file; the next mask starts a new one."""
        with self._lock:
            if self._pieces:
                self._begin_part()

    @property
    def _part(self) -> str:
        return f"{self._stem}{self._number:05d}.tar"

    def _begin_part(self) -> None:
        self._number += 1
        self._pieces, self._size = [], 0


def member_header(image_id: str, size_bytes: int) -> bytes:
    """The header of a mask's member in a tar file."""
    member = tarfile.TarInfo(f"{image_id}{_SUFFIX}")
    member.size = size_bytes
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def padded(size_bytes: int) -> int:
    """A size rounded up to a multiple of the block size."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def member_bytes(image_id: str, size_bytes: int) -> int:
    """The bytes that a mask takes in a tar file, including its header."""
    return len(member_header(image_id, size_bytes)) + padded(size_bytes)


def is_part(name: str) -> bool:
    """Whether a path below `--output` is that of a tar file of masks."""
    return _PART_NAME.fullmatch(name) is not None


def is_of_version_1(part: str) -> bool:
    """Whether a path below `--output` is that of a tar file of version 1."""
    return _VERSION_1_NAME.fullmatch(part) is not None


def version_1_members(part: str, stored: filesystem.StoredFile) -> Iterator[tuple[str, int, int]]:
    """Lists the masks in a tar file of version 1, whose journal did not record their offsets.

    Args:
        part: its path below `--output`.
        stored: the file.

    Yields:
        Image id, size in bytes and offset of each mask; nothing for other tar files.

    Raises:
        OSError: it can't be read.
    """
    if not is_of_version_1(part):
        return
    for found in walk_stored_tar(stored.uri, stored.size_bytes):
        if isinstance(found, Member) and found.name.endswith(_SUFFIX):
            yield found.name[: -len(_SUFFIX)], found.size_bytes, found.offset_bytes
