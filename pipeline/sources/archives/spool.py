"""Where pictures wait that can't be read by range: members of compressed streams, unpacked once.

A compressed tar has no random access, yet its members must be joined to their masks by key and spread over all
workers, and pixels never cross a shuffle. So the worker that lists the stream also lays its pictures down in parts
below the output, `_progress/spool/ARCHIVE/PART`, and emits their places. The names, the parts and the places in them
follow from the archive alone: a retried or resumed listing writes the same again, and one writer's part is as good as
another's. At most one part is held in memory. The job removes the spool when its results stand.
"""

import hashlib

from pipeline.core.errors import StorageError
from pipeline.core.layout import SPOOL_FOLDER
from pipeline.storage import storage

_CODEC = "spool:"
_PART_BYTES = 32 << 20


class Spool:
    """Lays the pictures of one stream down.

    Args:
        root: the output's spool folder; None to find out places without writing anything.
        stream: all that tells one version of the stream from another.
    """

    def __init__(self, root: str | None, stream: tuple[object, ...]) -> None:
        self._root = root
        self._name = hashlib.blake2b(repr(stream).encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
        self._part = 0
        self._pieces: list[bytes] = []
        self._held_bytes = 0

    def add(self, data: bytes) -> tuple[int, str]:
        """Takes a picture's bytes in.

        Returns:
            Their place within the part, and the codec that says which part.

        Raises:
            StorageError: the part before can't be written.
        """
        if self._held_bytes >= _PART_BYTES:
            self.flush()
        offset = self._held_bytes
        self._pieces.append(data)
        self._held_bytes += len(data)
        return offset, f"{_CODEC}{self._name}/{self._part:06d}"

    def flush(self) -> None:
        """Writes what is held, as a part of its own."""
        if self._pieces and self._root is not None:
            uri = storage.join(self._root, self._name, f"{self._part:06d}")
            try:
                storage.write_bytes(uri, b"".join(self._pieces))
            except OSError as error:
                raise StorageError(f"the output can't be written: {uri}: {error.strerror or error}") from error
        if self._pieces:
            self._part += 1
        self._pieces, self._held_bytes = [], 0


def part_of(codec: str) -> str | None:
    """The part, below the spool's folder, that a codec of `Spool.add` names; None for other codecs."""
    return codec.removeprefix(_CODEC) if codec.startswith(_CODEC) else None


def remove_spool(output: str) -> None:
    """Removes all that the job laid down below an output.

    Raises:
        StorageError: it can't be removed.
    """
    try:
        storage.delete_folder(storage.join(output, SPOOL_FOLDER))
    except OSError as error:
        raise StorageError(f"the spool can't be removed: {error.strerror or error}") from error
