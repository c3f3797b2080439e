"""The spool: copies of pictures that can't be read by range, the members of compressed streams.

A compressed tar file has no random access, but its members must be joined with their masks by key and distributed to
all workers, and no pixels cross a shuffle. So the worker that lists the stream also copies its pictures, one after the
other, to parts of equal size below the output, `_progress/spool/ARCHIVE/PART`, and emits their locations. Names, parts
and locations depend only on the archive: a retried or resumed listing writes the same parts again. At most one part is
in memory. The job deletes the spool when its results are complete.
"""

import hashlib
from collections.abc import Iterable, Iterator

from pipeline.core.errors import StorageError
from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.records import Spooled
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

PART_BYTES = 16 << 20


class Spool:
    """Copies the pictures of one stream.

    Args:
        root: the output's spool folder; None to compute locations without writing.
        stream: identifies this version of the stream.
    """

    def __init__(self, root: str | None, stream: tuple[object, ...]) -> None:
        self._root = root
        self._name = hashlib.blake2b(repr(stream).encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
        self._offset = 0
        self._held: list[bytes] = []

    def add(self, pieces: Iterable[bytes], *, is_deflated: bool) -> Spooled:
        """Copies the bytes of a picture.

        Args:
            pieces: its bytes in order. If the iterator raises, the bytes copied so far stay unused in the spool.
            is_deflated: whether the bytes are compressed.

        Returns:
            Their location.

        Raises:
            StorageError: a part can't be written.
        """
        begin = self._offset
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                room = PART_BYTES - self._offset % PART_BYTES
                self._held.append(bytes(rest[:room]))
                self._offset += len(self._held[-1])
                rest = rest[room:]
                if self._offset % PART_BYTES == 0:
                    self._write((self._offset - 1) // PART_BYTES)
        return Spooled(self._name, begin, self._offset - begin, is_deflated)

    def finish(self) -> None:
        """Writes the last part.

        Raises:
            StorageError: it can't be written.
        """
        if self._held:
            self._write(self._offset // PART_BYTES)

    def _write(self, part: int) -> None:
        data, self._held = b"".join(self._held), []
        if self._root is None:
            return
        uri = filesystem.join(self._root, _part_name(self._name, part))
        with os_errors_as(StorageError, f"the output can't be written: {uri}"):
            filesystem.write_bytes(uri, data)


def parts_of(copy: Spooled) -> Iterator[tuple[str, int, int]]:
    """The parts with the bytes of a picture.

    Args:
        copy: their location in the spool.

    Yields:
        A part's path below the spool's folder, and the offset and number of the picture's bytes in it.
    """
    begin, end = copy.offset_bytes, copy.offset_bytes + copy.packed_bytes
    while begin < end:
        part, within = divmod(begin, PART_BYTES)
        taken = min(end - begin, PART_BYTES - within)
        yield _part_name(copy.stream, part), within, taken
        begin += taken


def _part_name(stream: str, part: int) -> str:
    return f"{stream}/{part:06d}"


def remove_spool(output: str) -> None:
    """Deletes the spool of an output.

    Raises:
        StorageError: it can't be removed.
    """
    with os_errors_as(StorageError, "the spool can't be removed"):
        filesystem.delete_folder(filesystem.join(output, SPOOL_FOLDER))
