"""Where pictures wait that can't be read by range: members of compressed streams, unpacked once.

A compressed tar has no random access, yet its members must be joined to their masks by key and spread over all
workers, and pixels never cross a shuffle. So the worker that lists the stream also copies its pictures, one behind the
other, into parts of one size below the output, `_progress/spool/ARCHIVE/PART`, and emits their places. The names, the
parts and the places follow from the archive alone: a retried or resumed listing writes the same again, and one
writer's part is as good as another's. At most one part is held in memory, however large a picture is. The job removes
the spool when its results are complete.
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
        root: the output's spool folder; None to find out places without writing anything.
        stream: what identifies this version of the stream.
    """

    def __init__(self, root: str | None, stream: tuple[object, ...]) -> None:
        self._root = root
        self._name = hashlib.blake2b(repr(stream).encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
        self._offset = 0
        self._held: list[bytes] = []

    def add(self, pieces: Iterable[bytes], *, is_deflated: bool) -> Spooled:
        """Copies a picture's bytes.

        Args:
            pieces: its bytes in their order. What was copied when they raise stays, and belongs to no picture.
            is_deflated: whether they have to be inflated by who reads them.

        Returns:
            Their place.

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


def parts_of(place: Spooled) -> Iterator[tuple[str, int, int]]:
    """The parts that hold a picture's bytes.

    Args:
        place: where in the spool they are.

    Yields:
        A part's name below the spool's folder, and where in it how many of the bytes are.
    """
    begin, end = place.offset_bytes, place.offset_bytes + place.packed_bytes
    while begin < end:
        part, within = divmod(begin, PART_BYTES)
        taken = min(end - begin, PART_BYTES - within)
        yield _part_name(place.stream, part), within, taken
        begin += taken


def _part_name(stream: str, part: int) -> str:
    return f"{stream}/{part:06d}"


def remove_spool(output: str) -> None:
    """Removes all that the job copied below an output.

    Raises:
        StorageError: it can't be removed.
    """
    with os_errors_as(StorageError, "the spool can't be removed"):
        filesystem.delete_folder(filesystem.join(output, SPOOL_FOLDER))
