"""Writes, reads and removes the files of pictures."""

import errno
import zlib
from collections.abc import Sequence
from dataclasses import replace

from pipeline.core.errors import ErrorType, PictureError, StorageError
from pipeline.core.records import OutputFile
from pipeline.output import registry
from pipeline.output.mask_output import MASK
from pipeline.output.outputs import EncodedFile
from pipeline.output.tar_parts import TarParts
from pipeline.storage import filesystem

# Errors of one name, not of the disk: these fail the picture, all others stop the job.
_NAME_FAULTS = frozenset((errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST))


class Delivery:
    """Writes the files of pictures; thread-safe.

    Args:
        root: the job's absolute folder or bucket prefix.
        packs_masks: whether masks are written to tar files, which `flush` stores.
    """

    def __init__(self, root: str, *, packs_masks: bool = False) -> None:
        self._root = root
        self._scratch = filesystem.scratch_of(root)
        self._parts = TarParts(root) if packs_masks else None

    def write(self, image_id: str, files: Sequence[EncodedFile]) -> tuple[OutputFile, ...]:
        """Writes the files of a picture in order.

        Args:
            image_id: the picture's.
            files: in the order of writing.

        Returns:
            What was written.

        Raises:
            PictureError: stage `write`; the file system does not accept the file name.
            StorageError: the output can't be written.
        """
        return tuple([self._written(image_id, file) for file in files])

    def _written(self, image_id: str, encoded: EncodedFile) -> OutputFile:
        file = OutputFile(encoded.output, encoded.digest, len(encoded.data), zlib.crc32(encoded.data))
        if self._parts is not None and encoded.output == MASK:
            part, offset = self._parts.add(image_id, encoded.data)
            return replace(file, part=part, offset_bytes=offset)
        try:
            filesystem.write_bytes(filesystem.join(self._root, encoded.name), encoded.data, self._scratch)
        except OSError as error:
            reason = error.strerror or str(error)
            if self._is_name_error(error):
                message = f"the file system does not accept its name: {reason}"
                raise PictureError("write", ErrorType.UNWRITABLE_NAME, message) from error
            raise StorageError(f"the output can't be written: {encoded.name}: {reason}") from error
        return file

    def flush(self) -> None:
        """Stores the open tar file, if any.

        Raises:
            StorageError: the output can't be written; the next call retries it.
        """
        if self._parts is not None:
            self._parts.flush()

    def seal(self) -> None:
        """Closes the open tar file, so that no file written so far changes again."""
        if self._parts is not None:
            self._parts.seal()

    def remove(self, image_id: str) -> None:
        """Removes all files of a picture that an earlier run or attempt wrote.

        Raises:
            StorageError: they can't be removed.
        """
        try:
            for output in registry.OUTPUTS:
                filesystem.delete(filesystem.join(self._root, registry.file_name(output.name, image_id)))
        except OSError as error:
            if not self._is_name_error(error):
                reason = error.strerror or str(error)
                raise StorageError(f"the output can't be written: {image_id}: {reason}") from error

    def _is_name_error(self, error: OSError) -> bool:
        return error.errno in _NAME_FAULTS and not filesystem.is_remote(self._root)


def read_file(root: str, image_id: str, file: OutputFile) -> bytes:
    """Reads a file of a picture, from its tar file if it is in one.

    Args:
        root: the job's absolute folder or bucket prefix.
        image_id: the picture's.
        file: as it was recorded.

    Raises:
        OSError: it can't be read.
    """
    if file.part:
        return filesystem.read_range(filesystem.join(root, file.part), file.offset_bytes, file.size_bytes)
    return filesystem.read_bytes(filesystem.join(root, registry.file_name(file.output, image_id)))


def file_uri(image_id: str, file: OutputFile) -> str:
    """The path of a picture's file below `--output`, for the tables; of a tar file's member `TAR!MEMBER`."""
    name = registry.file_name(file.output, image_id)
    return f"{file.part}!{name.partition('/')[2]}" if file.part else name
