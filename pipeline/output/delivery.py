"""Writing and reading the files of pictures, and removing those of pictures that failed."""

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

# What the file system says of one name, not of the disk: these cost the picture, anything else stops the job.
_NAME_FAULTS = frozenset((errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST))


class Delivery:
    """Writes the files of pictures; shared by all threads of a process.

    Args:
        root: the job's absolute folder or bucket prefix.
        packs_masks: whether masks are packed in tar files; they are stored by `flush`.
    """

    def __init__(self, root: str, *, packs_masks: bool = False) -> None:
        self._root = root
        self._scratch = filesystem.scratch_of(root)
        self._parts = TarParts(root) if packs_masks else None

    def write(self, image_id: str, files: Sequence[EncodedFile]) -> tuple[OutputFile, ...]:
        """Writes the files of a picture one after the other.

        Args:
            image_id: the picture's.
            files: in the order of writing.

        Returns:
            What was written.

        Raises:
            PictureError: stage `write`; the file system takes no file of this name.
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
            if self._is_of_the_name(error):
                message = f"no file can have its name: {reason}"
                raise PictureError("write", ErrorType.UNWRITABLE_NAME, message) from error
            raise StorageError(f"the output can't be written: {encoded.name}: {reason}") from error
        return file

    def flush(self) -> None:
        """Stores all that was written.

        Raises:
            StorageError: the output can't be written; the next call tries again.
        """
        if self._parts is not None:
            self._parts.flush()

    def seal(self) -> None:
        """Lets no file that was written so far change any more."""
        if self._parts is not None:
            self._parts.seal()

    def remove(self, image_id: str) -> None:
        """Removes all files of a picture that an earlier run or a first attempt left.

        Raises:
            StorageError: they can't be removed.
        """
        try:
            for output in registry.OUTPUTS:
                filesystem.delete(filesystem.join(self._root, registry.file_name(output.name, image_id)))
        except OSError as error:
            if not self._is_of_the_name(error):
                reason = error.strerror or str(error)
                raise StorageError(f"the output can't be written: {image_id}: {reason}") from error

    def _is_of_the_name(self, error: OSError) -> bool:
        return error.errno in _NAME_FAULTS and not filesystem.is_remote(self._root)


def read_file(root: str, image_id: str, file: OutputFile) -> bytes:
    """Reads a file of a picture, or its part of a tar file.

    Args:
        root: the job's absolute folder or bucket prefix.
        image_id: the picture's.
        file: what was written of it.

    Raises:
        OSError: it can't be read.
    """
    if file.part:
        return filesystem.read_range(filesystem.join(root, file.part), file.offset_bytes, file.size_bytes)
    return filesystem.read_bytes(filesystem.join(root, registry.file_name(file.output, image_id)))


def file_uri(image_id: str, file: OutputFile) -> str:
    """The address of a picture's file for tables: below `--output`, a tar file's member as `TAR!MEMBER`."""
    name = registry.file_name(file.output, image_id)
    return f"{file.part}!{name.partition('/')[2]}" if file.part else name
