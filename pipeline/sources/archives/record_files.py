"""Listing the pictures of a TFRecord file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pipeline.core.errors import ErrorType
from pipeline.core.records import FileRef
from pipeline.sources.archives.listing import Entry, Refused
from pipeline.sources.archives.members import ByteSource, Fault
from pipeline.sources.archives.streams import GZIP_MARK, StoredBytes
from pipeline.sources.archives.tfrecord import RECORD_HEADER_BYTES, Features, Record, is_record_header, walk_records
from pipeline.sources.archives.unpacking import MAX_MEMBER_BYTES, TooLargeError, Unpacker, check_size
from pipeline.storage import filesystem

_Take = Callable[[ByteSource, int, int], FileRef]


@dataclass(frozen=True, slots=True)
class RecordFile:
    """One file of a set of records.

    Args:
        uri: absolute path or URI.
        unnamed: what comes before the number of an Example without a file name.
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


def list_records(
    file: RecordFile, spool_root: str | None, max_bytes: int = MAX_MEMBER_BYTES
) -> Iterator[Entry | Refused]:
    """Lists the pictures of a TFRecord file, compressed by gzip or not.

    Args:
        file: what to list.
        spool_root: where the pictures of a compressed file are copied; None to list their names alone.
        max_bytes: longer pictures and masks of a compressed file are not copied.

    Yields:
        Its pictures with their masks, and what is wrong with it.

    Raises:
        OSError: the file can't be read.
        StorageError: the spool can't be written.
    """
    stored = filesystem.stat_file(file.uri)
    start = filesystem.read_range(file.uri, 0, RECORD_HEADER_BYTES)
    if start.startswith(GZIP_MARK) and not is_record_header(start):
        unpacker = Unpacker(stored, spool_root, max_bytes)
        yield from _list(file, unpacker.explained(walk_records(unpacker.stream, file.features, _kept(unpacker.copy))))
        unpacker.finish()
        return

    def by_range(_: ByteSource, offset: int, length: int) -> FileRef:
        check_size(length, length)
        return FileRef(stored.uri, length, stored.version, offset)

    yield from _list(file, walk_records(StoredBytes(file.uri, stored.size_bytes), file.features, _kept(by_range)))


def _kept(take: _Take) -> Callable[[ByteSource, int, int], FileRef | TooLargeError]:
    """Makes of the error a value: what is too large costs itself, and not the walk of its record."""

    def taken(source: ByteSource, offset: int, length: int) -> FileRef | TooLargeError:
        try:
            return take(source, offset, length)
        except TooLargeError as error:
            return error

    return taken


def _list(file: RecordFile, records: Iterator[Record[FileRef | TooLargeError] | Fault]) -> Iterator[Entry | Refused]:
    end = None if file.take < 0 else file.skip + file.take
    for record in records:
        if isinstance(record, Fault):
            yield Refused("", record.error_type, record.message)
            continue
        if end is not None and record.index >= end:
            return
        if record.index < file.skip:
            continue
        name = record.name or f"{file.unnamed}-{file.first_index + record.index}"
        image, mask = (_named(taken, name, what) for taken, what in ((record.image, "picture"), (record.mask, "mask")))
        if image is None:
            yield Refused(name, ErrorType.NO_IMAGE, f"the Example has none of {', '.join(file.features.image)}")
        elif isinstance(image, Refused):
            yield image
        else:
            yield Entry(name, image, mask)


def _named(taken: FileRef | TooLargeError | None, name: str, what: str) -> FileRef | Refused | None:
    if isinstance(taken, TooLargeError):
        return Refused(name, ErrorType.TOO_LARGE, f"the Example's {what} is too large: {taken}")
    return taken and replace(taken, member=name)
