"""Writing and reading the files of pictures, and removing those of pictures that failed."""

import errno
import zlib
from collections.abc import Sequence

from pipeline.core.errors import ErrorType, PictureError, StorageError
from pipeline.core.records import OutputFile
from pipeline.output import registry
from pipeline.output.outputs import EncodedFile
from pipeline.storage import storage

# What the file system says of one name, not of the disk: these cost the picture, anything else stops the job.
_NAME_FAULTS = frozenset((errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ENOTDIR, errno.EEXIST))


class Delivery:
    """Writes the files of pictures; shared by all threads of a process.

    Args:
        root: the job's absolute folder or bucket prefix.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._scratch = storage.scratch_of(root)

    def write(self, files: Sequence[EncodedFile]) -> tuple[OutputFile, ...]:
        """Writes the files of a picture one after the other.

        Returns:
            What was written.

        Raises:
            PictureError: stage `write`; the file system takes no file of this name.
            StorageError: the output can't be written.
        """
        for encoded in files:
            try:
                storage.write_bytes(storage.join(self._root, encoded.name), encoded.data, self._scratch)
            except OSError as error:
                reason = error.strerror or str(error)
                if self._is_of_the_name(error):
                    raise PictureError(
                        "write", ErrorType.UNWRITABLE_NAME, f"no file can have its name: {reason}"
                    ) from error
                raise StorageError(f"the output can't be written: {encoded.name}: {reason}") from error
        return tuple(
            OutputFile(encoded.output, encoded.digest, len(encoded.data), zlib.crc32(encoded.data)) for encoded in files
        )

    def remove(self, image_id: str) -> None:
        """Removes all files of a picture that an earlier run or a first attempt left.

        Raises:
            StorageError: they can't be removed.
        """
        try:
            for output in registry.OUTPUTS:
                storage.delete(storage.join(self._root, registry.file_name(output.name, image_id)))
        except OSError as error:
            if not self._is_of_the_name(error):
                reason = error.strerror or str(error)
                raise StorageError(f"the output can't be written: {image_id}: {reason}") from error

    def _is_of_the_name(self, error: OSError) -> bool:
        return error.errno in _NAME_FAULTS and not storage.is_remote(self._root)


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
        return storage.read_range(storage.join(root, file.part), file.offset_bytes, file.size_bytes)
    return storage.read_bytes(storage.join(root, registry.file_name(file.output, image_id)))


def file_uri(image_id: str, file: OutputFile) -> str:
    """The address of a picture's file for tables: below `--output`, a tar file's member as `TAR!MEMBER`."""
    name = registry.file_name(file.output, image_id)
    return f"{file.part}!{name.partition('/')[2]}" if file.part else name
