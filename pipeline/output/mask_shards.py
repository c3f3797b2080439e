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
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.core.errors import StorageError
from pipeline.core.layout import PACKED_FOLDER
from pipeline.core.records import PictureRecord
from pipeline.output.mask_output import MaskOutput
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
        self._rows: list[tuple[PictureRecord, bytes, int]] = []
        self._size = 0
        self._written: list[str] = []
        self._waiting: list[str] = []
        self._single: list[str] = []
        self._index: dict[str, tuple[str, int]] | None = None

    def pack(self, records: Iterable[PictureRecord]) -> Iterator[PictureRecord]:
        """Packs masks while their records pass, in order of their ids.

        Args:
            records: their `mask_uri` names the single file, or `TAR!OFFSET` where an earlier run packed it.

        Yields:
            The records, `mask_uri` now `TAR!MEMBER`. When all are taken the tars stand and the single files are gone.

        Raises:
            StorageError: a mask can't be read, or a tar can't be written.
        """
        try:
            for record in records:
                header = _header(record)
                if self._rows and self._size + len(header) + record.mask_bytes > _TAR_BYTES:
                    yield from self._flush()
                self._rows.append((record, header, self._size + len(header)))
                self._size += len(header) + -(-record.mask_bytes // BLOCK_BYTES) * BLOCK_BYTES
            yield from self._flush()
            self._put_in_place()
        except OSError as error:
            raise StorageError(f"the masks can't be packed: {self._stem}*: {error.strerror or error}") from error

    def _flush(self) -> Iterator[PictureRecord]:
        if not self._rows:
            return
        tar = f"{self._stem}{len(self._written):05d}.tar"
        uri = storage.join(self._output, tar)
        self._written.append(tar)
        unchanged = all(record.mask_uri == f"{tar}!{offset}" for record, _, offset in self._rows)
        if not unchanged or storage.stat_file(uri).size_bytes != self._size + len(_END_MARK):
            parts: list[bytes] = []
            for record, header, _ in self._rows:
                data = self._read(record)
                parts += [header, data, bytes(-len(data) % BLOCK_BYTES)]
            # Later rows may still have to be read from the tar that bears this name now.
            self._waiting.append(tar)
            storage.write_bytes(storage.join(self._output, PACKED_FOLDER, tar), b"".join([*parts, _END_MARK]))
        for record, _, _ in self._rows:
            if packed_place(record.mask_uri) is None:
                self._single.append(record.mask_uri)
            yield replace(record, mask_uri=f"{tar}!{record.image_id}{_ENDING}")
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

    def _read(self, record: PictureRecord) -> bytes:
        """A mask's bytes: from its single file or its place in a tar, or where a retry finds it moved from there."""
        place = packed_place(record.mask_uri)
        if place is None:
            try:
                return storage.read_bytes(storage.join(self._output, record.mask_uri))
            except FileNotFoundError:
                pass
        elif (data := self._member(*place, record)) is not None:
            return data
        if self._index is None:
            tars = storage.list_glob(storage.join(self._output, f"{self._stem}*.tar"))
            self._index = {
                found.name: (f"{MASK_FOLDER}/{storage.base_name(tar.uri)}", found.offset_bytes)
                for tar in tars
                for found in walk_stored_tar(tar.uri, tar.size_bytes)
                if isinstance(found, Member)
            }
        moved = self._index.get(f"{record.image_id}{_ENDING}")
        data = self._member(*moved, record) if moved else None
        if data is None:
            raise StorageError(f"the mask of {record.image_id} is gone from the output; run the job again")
        return data

    def _member(self, tar: str, offset: int, record: PictureRecord) -> bytes | None:
        """A member's data where it is still this picture's, which the header before it tells."""
        uri = storage.join(self._output, tar)
        try:
            found = storage.read_range(uri, offset - BLOCK_BYTES, BLOCK_BYTES + record.mask_bytes)
        except FileNotFoundError:
            return None
        expected = _header(record)[-BLOCK_BYTES:]
        return found[BLOCK_BYTES:] if found.startswith(expected) else None


def packed_place(mask_uri: str) -> tuple[str, int] | None:
    """The tar and offset of `TAR!OFFSET`; None for a single file."""
    tar, mark, offset = mask_uri.partition("!")
    return (tar, int(offset)) if mark and offset.isdecimal() and _TAR_NAME.fullmatch(tar) else None


def packed_masks(output_masks: str, stored: storage.StoredFile) -> Iterator[tuple[str, int, str]]:
    """The masks in a tar that an earlier run packed.

    Args:
        output_masks: the output's folder of masks.
        stored: a file below it.

    Yields:
        Image id, size and place (`TAR!OFFSET`) a mask; nothing for other files.

    Raises:
        OSError: it can't be read.
    """
    name = f"{MASK_FOLDER}{stored.uri[len(output_masks) :]}"
    if not _TAR_NAME.fullmatch(name):
        return
    for found in walk_stored_tar(stored.uri, stored.size_bytes):
        if isinstance(found, Member) and found.name.endswith(_ENDING):
            yield found.name[: -len(_ENDING)], found.size_bytes, f"{name}!{found.offset_bytes}"


def delete_stale_tars(output: str, shards: int | None) -> None:
    """Deletes tars of earlier runs: those of another number of shards, all where it is None.

    Raises:
        OSError: one can't be deleted.
    """
    for stored in storage.list_glob(storage.join(output, MASK_FOLDER, "part-*.tar")):
        match = _TAR_NAME.fullmatch(f"{MASK_FOLDER}/{storage.base_name(stored.uri)}")
        if match and (shards is None or int(match[1]) != shards):
            storage.delete(stored.uri)


def _header(record: PictureRecord) -> bytes:
    member = tarfile.TarInfo(f"{record.image_id}{_ENDING}")
    member.size = record.mask_bytes
    return member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
