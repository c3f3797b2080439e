"""Bringing the masks of all runs into the form that the job asks for, before the tables name them.

With `--mask_format tar` a tar file holds masks that the tables name, and no others: one with members of pictures that
left, changed or were done twice is written anew without them, under another name. Masks in files of their own are
packed. With `png` masks in tar files get files of their own. Nothing is deleted here.
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

_THREADS = 16
"""A bucket answers in some 50 ms, so many at a time."""


def part_and_size(record: PictureRecord) -> Iterator[tuple[str, int]]:
    """The tar file of a record's mask and what the mask takes of it; nothing for a mask in a file of its own."""
    mask = record.file(MASK)
    if mask is not None and mask.part:
        yield mask.part, member_bytes(record.image_id, mask.size_bytes)


def has_other_members(root: str, part: str, size_bytes: int) -> bool:
    """Whether a tar file holds more than what is known of it.

    Args:
        root: absolute folder or bucket prefix.
        part: its name below it.
        size_bytes: what all known members take.

    Raises:
        StorageError: it can't be looked up.
    """
    try:
        return filesystem.stat_file(filesystem.join(root, part)).size_bytes != size_bytes + len(END_MARK)
    except OSError as error:
        raise StorageError(f"the output can't be read: {part}: {error.strerror or error}") from error


def rewritten(root: str, part: str, records: Iterable[PictureRecord]) -> list[PictureRecord]:
    """Writes the masks of some records as a tar file of their own.

    Args:
        root: absolute folder or bucket prefix.
        part: the tar file that holds them with others; "" for files of their own.
        records: their masks are there.

    Returns:
        The records, with the new places.

    Raises:
        StorageError: a mask is not what was recorded, or the tar file can't be written.
    """
    in_order = sorted(records, key=lambda record: record.image_id)
    masks = [_mask(record) for record in in_order]
    # A repeated task writes the same again.
    parts = TarParts(root, digest_of(part, [(r.image_id, m.crc32) for r, m in zip(in_order, masks, strict=True)]))
    settled = []
    for record, mask, data in zip(in_order, masks, _contents(root, part, in_order), strict=True):
        place, offset = parts.add(record.image_id, data)
        settled.append(_with_mask(record, replace(mask, part=place, offset_bytes=offset)))
    parts.flush()
    return settled


def unpacked(root: str, part: str, records: Iterable[PictureRecord]) -> list[PictureRecord]:
    """Writes the masks of some records, which a tar file holds, as files of their own.

    Args:
        root: absolute folder or bucket prefix.
        part: the tar file.
        records: of pictures whose masks it holds.

    Returns:
        The records, with the new places.

    Raises:
        StorageError: a mask is not what was recorded, or a file can't be written.
    """
    in_order = sorted(records, key=lambda record: record.image_id)
    scratch = filesystem.scratch_of(root)

    def write(record: PictureRecord, data: bytes) -> PictureRecord:
        try:
            filesystem.write_bytes(filesystem.join(root, file_name(MASK, record.image_id)), data, scratch)
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"the output can't be written: the mask of {record.image_id}: {reason}") from error
        return _with_mask(record, replace(_mask(record), part="", offset_bytes=0))

    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(write, in_order, _contents(root, part, in_order)))


def delete_other_parts(root: str, named: Iterable[str]) -> int:
    """Deletes the tar files of masks that no record names.

    Args:
        root: absolute folder or bucket prefix.
        named: those that records name.

    Returns:
        How many were deleted.

    Raises:
        StorageError: they can't be listed or deleted.
    """
    kept, deleted = set(named), 0
    try:
        for stored in filesystem.list_glob(filesystem.join(root, PARTS_GLOB)):
            name = stored.uri.removeprefix(f"{root}/")
            if is_part(name) and name not in kept:
                filesystem.delete_with_empty_folders(stored.uri, root)
                deleted += 1
    except OSError as error:
        raise StorageError(f"the output can't be written: {PARTS_GLOB}: {error.strerror or error}") from error
    return deleted


def _contents(root: str, part: str, records: Sequence[PictureRecord]) -> Iterator[bytes]:
    """The masks of records, as they were recorded; a tar file is read once."""
    whole = _read_whole(root, part) if part else b""
    with ThreadPoolExecutor(_THREADS) as threads:
        single = threads.map(lambda record: _read_single(root, record), () if part else records)
        for record in records:
            mask = _mask(record)
            data = whole[mask.offset_bytes : mask.offset_bytes + mask.size_bytes] if part else next(single)
            if len(data) != mask.size_bytes or mask.crc32 not in (-1, zlib.crc32(data)):
                raise StorageError(f"the mask of {record.image_id} was altered while the job ran; run the job again")
            yield data


def _read_whole(root: str, part: str) -> bytes:
    try:
        return filesystem.read_bytes(filesystem.join(root, part))
    except OSError as error:
        raise StorageError(f"the output can't be read: {part}: {error.strerror or error}") from error


def _read_single(root: str, record: PictureRecord) -> bytes:
    try:
        return read_file(root, record.image_id, _mask(record))
    except OSError as error:
        raise StorageError(f"the mask of {record.image_id} can't be read: {error.strerror or error}") from error


def _mask(record: PictureRecord) -> OutputFile:
    mask = record.file(MASK)
    assert mask is not None, "a record without a mask"
    return mask


def _with_mask(record: PictureRecord, mask: OutputFile) -> PictureRecord:
    return replace(record, files=tuple(mask if file.output == MASK else file for file in record.files))
