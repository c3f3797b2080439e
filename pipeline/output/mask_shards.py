"""Masks as tar shards: `masks/part-K-of-N-P.tar`, a member a mask, named as WebDataset reads it.

A picture `north/a.jpg` has the member `north/a.jpg.png`: key `north/a`, extension `jpg.png`, so that shards of pictures
and of masks join by key. K and N are those of the pictures' tables; within a shard masks stand in order of their ids,
and a new file begins at 64 MiB. The bytes follow from the masks alone.

Until its table shard is written a mask lies in a file of its own, as with `--mask_format png`, so a killed job loses
none. Only then masks are packed, and the single files deleted. A later run takes the masks of unchanged pictures out
of the tars by range, and leaves a tar alone that would become what it is.
"""

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.core.errors import StorageError
from pipeline.core.layout import PACKED_FOLDER
from pipeline.core.records import OutputFile, PictureRecord
from pipeline.output.delivery import read_file
from pipeline.output.mask_output import MASK, MaskOutput
from pipeline.output.registry import file_name
from pipeline.sources.archives.members import Member
from pipeline.sources.archives.parallel import walk_stored_tar
from pipeline.sources.archives.tar import BLOCK_BYTES
from pipeline.storage import storage

MASK_FOLDER = MaskOutput.folder
_TAR_NAME = re.compile(r"masks/part-\d{5,}-of-(\d{5,})-\d{5}\.tar")
_TAR_BYTES = 64 << 20
_END_MARK = bytes(2 * BLOCK_BYTES)
_ENDING = MaskOutput.suffix


class MaskPacker:
    """Packs the masks of one shard.

    Args:
        output: absolute folder or bucket prefix.
        shard: K of N.
        shards: N.
    """

    def __init__(self, output: str, shard: int, shards: int) -> None:
        self._output = output
        self._stem = f"{MASK_FOLDER}/part-{shard:05d}-of-{shards:05d}-"
        self._rows: list[tuple[PictureRecord, OutputFile, bytes, int]] = []
        self._size = 0
        self._written: list[str] = []
        self._waiting: list[str] = []
        self._single: list[str] = []
        self._index: dict[str, tuple[str, int]] | None = None

    def pack(self, records: Iterable[PictureRecord]) -> Iterator[PictureRecord]:
        """Packs masks while their records pass, in order of their ids.

        Args:
            records: their masks are in files of their own, or in tar files of an earlier run.

        Yields:
            The records, their masks in the tar files of this shard. When all are taken the tar files are whole and the
            single files are gone.

        Raises:
            StorageError: a mask can't be read, or a tar can't be written.
        """
        try:
            for record in records:
                mask = record.file(MASK)
                if mask is None:
                    yield record
                    continue
                header = _header(record, mask)
                if self._rows and self._size + len(header) + mask.size_bytes > _TAR_BYTES:
                    yield from self._flush()
                self._rows.append((record, mask, header, self._size + len(header)))
                self._size += len(header) + -(-mask.size_bytes // BLOCK_BYTES) * BLOCK_BYTES
            yield from self._flush()
            self._put_in_place()
        except OSError as error:
            raise StorageError(f"the masks can't be packed: {self._stem}*: {error.strerror or error}") from error

    def unpack(self, records: Iterable[PictureRecord]) -> Iterator[PictureRecord]:
        """Writes masks that an earlier run packed as files of their own while their records pass.

        Yields:
            The records, each mask in a file of its own.

        Raises:
            StorageError: a mask can't be read or written.
        """
        scratch = storage.scratch_of(self._output)
        for record in records:
            mask = record.file(MASK)
            if mask is None or not mask.part:
                yield record
                continue
            single = replace(mask, part="", offset_bytes=0)
            try:
                name = storage.join(self._output, file_name(MASK, record.image_id))
                storage.write_bytes(name, self._read(record, mask), scratch)
            except OSError as error:
                raise StorageError(f"a mask can't be unpacked: {mask.part}: {error.strerror or error}") from error
            yield _with_mask(record, single)

    def _flush(self) -> Iterator[PictureRecord]:
        if not self._rows:
            return
        tar = f"{self._stem}{len(self._written):05d}.tar"
        uri = storage.join(self._output, tar)
        self._written.append(tar)
        unchanged = all(mask.part == tar and mask.offset_bytes == offset for _, mask, _, offset in self._rows)
        if not unchanged or storage.stat_file(uri).size_bytes != self._size + len(_END_MARK):
            parts: list[bytes] = []
            for record, mask, header, _ in self._rows:
                data = self._read(record, mask)
                parts += [header, data, bytes(-len(data) % BLOCK_BYTES)]
            # Later rows may still have to be read from the tar that bears this name now.
            self._waiting.append(tar)
            storage.write_bytes(storage.join(self._output, PACKED_FOLDER, tar), b"".join([*parts, _END_MARK]))
        for record, mask, _, offset in self._rows:
            if not mask.part:
                self._single.append(file_name(MASK, record.image_id))
            yield _with_mask(record, replace(mask, part=tar, offset_bytes=offset))
        self._rows, self._size = [], 0

    def _put_in_place(self) -> None:
        for tar in self._waiting:
            waiting = storage.join(self._output, PACKED_FOLDER, tar)
            storage.write_bytes(storage.join(self._output, tar), storage.read_bytes(waiting))
            storage.delete(waiting)
        for stored in storage.list_glob(storage.join(self._output, f"{self._stem}*.tar")):
            if f"{MASK_FOLDER}/{storage.base_name(stored.uri)}" not in self._written:
                storage.delete(stored.uri)
        for single in self._single:
            storage.delete_with_empty_folders(storage.join(self._output, single), self._output)

    def _read(self, record: PictureRecord, mask: OutputFile) -> bytes:
        """A mask's bytes: from its place, or where a retry finds it moved from there."""
        try:
            data = read_file(self._output, record.image_id, mask)
            if _is_whole(data, mask):
                return data
        except FileNotFoundError:
            pass
        if self._index is None:
            tars = storage.list_glob(storage.join(self._output, f"{self._stem}*.tar"))
            self._index = {
                found.name: (f"{MASK_FOLDER}/{storage.base_name(tar.uri)}", found.offset_bytes)
                for tar in tars
                for found in walk_stored_tar(tar.uri, tar.size_bytes)
                if isinstance(found, Member)
            }
        if (moved := self._index.get(f"{record.image_id}{_ENDING}")) is not None:
            data = read_file(self._output, record.image_id, replace(mask, part=moved[0], offset_bytes=moved[1]))
            if _is_whole(data, mask):
                return data
        raise StorageError(f"the mask of {record.image_id} is gone from the output; run the job again")


def packed_masks(output_masks: str, stored: storage.StoredFile) -> Iterator[tuple[str, int, str, int]]:
    """The masks in a tar that an earlier run packed.

    Args:
        output_masks: the output's folder of masks.
        stored: a file below it.

    Yields:
        Image id, size, tar file and place in it; nothing for other files.

    Raises:
        OSError: it can't be read.
    """
    name = f"{MASK_FOLDER}{stored.uri[len(output_masks) :]}"
    if not _TAR_NAME.fullmatch(name):
        return
    for found in walk_stored_tar(stored.uri, stored.size_bytes):
        if isinstance(found, Member) and found.name.endswith(_ENDING):
            yield found.name[: -len(_ENDING)], found.size_bytes, name, found.offset_bytes


def delete_stale_tars(output: str, shards: int | None) -> None:
    """Deletes tars of earlier runs: those of another number of shards, all where it is None.

    Raises:
        OSError: one can't be deleted.
    """
    for stored in storage.list_glob(storage.join(output, MASK_FOLDER, "part-*.tar")):
        match = _TAR_NAME.fullmatch(f"{MASK_FOLDER}/{storage.base_name(stored.uri)}")
        if match and (shards is None or int(match[1]) != shards):
            storage.delete(stored.uri)


def _is_whole(data: bytes, mask: OutputFile) -> bool:
    """Whether data are the mask that was recorded; an early version recorded no checksum."""
    return len(data) == mask.size_bytes and mask.crc32 in (-1, zlib.crc32(data))


def _with_mask(record: PictureRecord, mask: OutputFile) -> PictureRecord:
    return replace(record, files=tuple(mask if file.output == MASK else file for file in record.files))


def _header(record: PictureRecord, mask: OutputFile) -> bytes:
    member = tarfile.TarInfo(f"{record.image_id}{_ENDING}")
    member.size = mask.size_bytes
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
