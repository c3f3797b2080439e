"""Listing the pictures of a TFRecord file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pipeline.core.records import FileRef
from pipeline.sources.archives.listing import LARGEST_MEMBER_BYTES, Entry, Refused
from pipeline.sources.archives.members import ByteSource, Fault
from pipeline.sources.archives.spool import Spool
from pipeline.sources.archives.streams import GunzippedBytes, StoredBytes
from pipeline.sources.archives.tfrecord import RECORD_HEADER_BYTES, Features, is_record_header, walk_records
from pipeline.storage import storage

_Take = Callable[[ByteSource, int, int], FileRef]


@dataclass(frozen=True, slots=True)
class RecordFile:
    """One file of a set of records.

    Args:
        uri: absolute path or URI.
        unnamed: what stands before the number of an Example without a file name.
        first_index: the number of the file's first Example.
        skip: how many Examples at its beginning are not meant.
        take: how many after these are meant, -1 for all.
        features: the names of the Example's features.
    """

    uri: str
    unnamed: str
    first_index: int = 0
    skip: int = 0
    take: int = -1
    features: Features = field(default_factory=Features)


def list_records(file: RecordFile, spool_root: str | None) -> Iterator[Entry | Refused]:
    """Lists the pictures of a TFRecord file, compressed by gzip or not.

    Args:
        file: what to list.
        spool_root: where the pictures of a compressed file are laid down; None to list their names alone.

    Yields:
        Its pictures with their masks, and what is wrong with it.

    Raises:
        OSError: the file can't be read.
        StorageError: the spool can't be written.
    """
    stored = storage.stat_file(file.uri)
    start = storage.read_range(file.uri, 0, RECORD_HEADER_BYTES)
    if start.startswith(b"\x1f\x8b") and not is_record_header(start):
        stream = GunzippedBytes(file.uri)
        spool = Spool(spool_root, (stored.uri, stored.size_bytes, stored.version))

        def lay_down(source: ByteSource, offset: int, length: int) -> FileRef:
            if length > LARGEST_MEMBER_BYTES:
                return FileRef(stored.uri, length, stored.version, offset)
            place = spool.add([source.read_at(offset, length)])
            return FileRef(stored.uri, length, stored.version, offset, packing=place)

        yield from _list(file, stream, lay_down)
        spool.finish()
        return

    def by_range(_: ByteSource, offset: int, length: int) -> FileRef:
        return FileRef(stored.uri, length, stored.version, offset)

    yield from _list(file, StoredBytes(file.uri, stored.size_bytes), by_range)


def _list(file: RecordFile, source: ByteSource, take: _Take) -> Iterator[Entry | Refused]:
    end = None if file.take < 0 else file.skip + file.take
    for record in walk_records(source, file.features, take):
        if isinstance(record, Fault):
            yield Refused("", record.error_type, record.message)
            continue
        if end is not None and record.index >= end:
            return
        if record.index < file.skip:
            continue
        name = record.name or f"{file.unnamed}-{file.first_index + record.index}"
        if record.image is None:
            yield Refused(name, "NoImage", f"the Example has none of {', '.join(file.features.image)}")
        elif max(record.image.size_bytes, record.mask.size_bytes if record.mask else 0) > LARGEST_MEMBER_BYTES:
            yield Refused(name, "TooLarge", f"the Example's picture or mask has over {LARGEST_MEMBER_BYTES:,} bytes")
        else:
            mask = record.mask and replace(record.mask, member=name)
            yield Entry(name, replace(record.image, member=name), mask)
