"""Converts the masks of earlier runs to the job's mask format, before the tables name them.

With `--mask_format tar`, a tar file has only masks that the tables name: one with masks of pictures that were removed,
changed or segmented twice is rewritten without them under another name, and separate mask files are packed. With `png`,
masks in tar files are unpacked to separate files. Nothing is deleted here.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.core.errors import StorageError
from pipeline.core.recipe import digest_of
from pipeline.core.records import OutputFile, PictureRecord
from pipeline.output.delivery import read_file
from pipeline.output.mask_output import MASK
from pipeline.output.registry import file_name
from pipeline.output.tar_parts import END_MARK, PARTS_GLOB, TarParts, is_part, member_bytes
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

_THREADS = 16
"""Parallel requests; a bucket responds in about 50 ms."""


def part_and_size(record: PictureRecord) -> Iterator[tuple[str, int]]:
    """The tar file of a record's mask and the bytes that the mask takes there; nothing for a separate mask file."""
    mask = record.file(MASK)
    if mask is not None and mask.part:
        yield mask.part, member_bytes(record.image_id, mask.size_bytes)


def has_other_members(root: str, part: str, size_bytes: int) -> bool:
    """Whether a tar file has more members than the known ones.

    Args:
        root: absolute folder or bucket prefix.
        part: its path below `root`.
        size_bytes: bytes that all known members take.

    Raises:
        StorageError: it can't be looked up.
    """
    with os_errors_as(StorageError, f"the output can't be read: {part}"):
        return filesystem.stat_file(filesystem.join(root, part)).size_bytes != size_bytes + len(END_MARK)


def rewritten(root: str, part: str, records: Iterable[PictureRecord]) -> list[PictureRecord]:
    """Writes the masks of records to a new tar file.

    Args:
        root: absolute folder or bucket prefix.
        part: the tar file that has them now; "" for separate files.
        records: of the masks.

    Returns:
        The records, with the new locations of their masks.

    Raises:
        StorageError: a mask differs from its record, or the tar file can't be written.
    """
    in_order = sorted(records, key=lambda record: record.image_id)
    masks = [_mask(record) for record in in_order]
    # The name depends on the content, so a repeated task writes the same file again.
    parts = TarParts(root, digest_of(part, [(r.image_id, m.crc32) for r, m in zip(in_order, masks, strict=True)]))
    repacked = []
    for record, mask, data in zip(in_order, masks, _contents(root, part, in_order), strict=True):
        new_part, offset = parts.add(record.image_id, data)
        repacked.append(_with_mask(record, replace(mask, part=new_part, offset_bytes=offset)))
    parts.flush()
    return repacked


def unpacked(root: str, part: str, records: Iterable[PictureRecord]) -> list[PictureRecord]:
    """Writes masks of a tar file to separate files.

    Args:
        root: absolute folder or bucket prefix.
        part: the tar file.
        records: of the masks to unpack.

    Returns:
        The records, with the new locations of their masks.

    Raises:
        StorageError: a mask differs from its record, or a file can't be written.
    """
    in_order = sorted(records, key=lambda record: record.image_id)
    scratch = filesystem.scratch_of(root)

    def write(record: PictureRecord, data: bytes) -> PictureRecord:
        with os_errors_as(StorageError, f"the output can't be written: the mask of {record.image_id}"):
            filesystem.write_bytes(filesystem.join(root, file_name(MASK, record.image_id)), data, scratch)
        return _with_mask(record, replace(_mask(record), part="", offset_bytes=0))

    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(write, in_order, _contents(root, part, in_order)))


def delete_other_parts(root: str, named: Iterable[str]) -> int:
    """Deletes the tar files of masks that no record names.

    Args:
        root: absolute folder or bucket prefix.
        named: the tar files that records name.

    Returns:
        The number of deleted files.

    Raises:
        StorageError: they can't be listed or deleted.
    """
    kept, deleted = set(named), 0
    with os_errors_as(StorageError, f"the output can't be written: {PARTS_GLOB}"):
        for stored in filesystem.list_glob(filesystem.join(root, PARTS_GLOB)):
            name = stored.uri.removeprefix(f"{root}/")
            if is_part(name) and name not in kept:
                filesystem.delete_with_empty_folders(stored.uri, root)
                deleted += 1
    return deleted


def _contents(root: str, part: str, records: Sequence[PictureRecord]) -> Iterator[bytes]:
    """The masks of records, verified against their checksums; a tar file is read once."""
    whole = b""
    if part:
        with os_errors_as(StorageError, f"the output can't be read: {part}"):
            whole = filesystem.read_bytes(filesystem.join(root, part))
    with ThreadPoolExecutor(_THREADS) as threads:
        single = threads.map(lambda record: _read_single(root, record), () if part else records)
        for record in records:
            mask = _mask(record)
            data = whole[mask.offset_bytes : mask.offset_bytes + mask.size_bytes] if part else next(single)
            if len(data) != mask.size_bytes or mask.crc32 not in (-1, zlib.crc32(data)):
                raise StorageError(f"the mask of {record.image_id} was altered while the job ran; run the job again")
            yield data


def _read_single(root: str, record: PictureRecord) -> bytes:
    with os_errors_as(StorageError, f"the mask of {record.image_id} can't be read"):
        return read_file(root, record.image_id, _mask(record))


def _mask(record: PictureRecord) -> OutputFile:
    mask = record.file(MASK)
    assert mask is not None, "a record without a mask"
    return mask


def _with_mask(record: PictureRecord, mask: OutputFile) -> PictureRecord:
    return replace(record, files=tuple(mask if file.output == MASK else file for file in record.files))
