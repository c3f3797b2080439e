"""Lists the pictures of a TFRecord file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pipeline.core.errors import ErrorType
from pipeline.core.records import FileRef
from pipeline.sources.archives.listing import Entry, Rejected
from pipeline.sources.archives.members import ByteSource, Fault
from pipeline.sources.archives.streams import GZIP_MARK, StoredBytes
from pipeline.sources.archives.tfrecord import RECORD_HEADER_BYTES, Features, Record, is_record_header, walk_records
from pipeline.sources.archives.unpacking import MAX_MEMBER_BYTES, TooLargeError, Unpacker, check_size
from pipeline.storage import filesystem

_Locate = Callable[[ByteSource, int, int], FileRef]


@dataclass(frozen=True, slots=True)
class RecordFile:
    """One file of a set of TFRecord files.

    Args:
        uri: absolute path or URI.
        name_prefix: prefix of the ids of Examples without a file name; their index follows.
        first_index: the index of the file's first Example.
        skip: number of Examples at the start that are skipped.
        take: number of Examples after these that are read; -1 for all.
        features: the names of the Examples' features.
    """

    uri: str
    name_prefix: str
    first_index: int = 0
    skip: int = 0
    take: int = -1
    features: Features = field(default_factory=Features)


def list_records(
    file: RecordFile, spool_root: str | None, max_bytes: int = MAX_MEMBER_BYTES
) -> Iterator[Entry | Rejected]:
    """Lists the pictures of a TFRecord file, compressed by gzip or not.

    Args:
        file: the file to list.
        spool_root: folder for copies of the pictures of a compressed file; None to list names only.
        max_bytes: larger pictures and masks of a compressed file are not copied.

    Yields:
        Its pictures with their masks, and its faults.

    Raises:
        OSError: the file can't be read.
        StorageError: the spool can't be written.
    """
    stored = filesystem.stat_file(file.uri)
    start = filesystem.read_range(file.uri, 0, RECORD_HEADER_BYTES)
    if start.startswith(GZIP_MARK) and not is_record_header(start):
        unpacker = Unpacker(stored, spool_root, max_bytes)
        yield from _list(
            file, unpacker.with_stream_faults(walk_records(unpacker.stream, file.features, _or_error(unpacker.copy)))
        )
        unpacker.finish()
        return

    def by_range(_: ByteSource, offset: int, length: int) -> FileRef:
        check_size(length, length)
        return FileRef(stored.uri, length, stored.version, offset)

    yield from _list(file, walk_records(StoredBytes(file.uri, stored.size_bytes), file.features, _or_error(by_range)))


def _or_error(locate: _Locate) -> Callable[[ByteSource, int, int], FileRef | TooLargeError]:
    """Returns TooLargeError as a value: a value that is too large must not end the walk of its record."""

    def located(source: ByteSource, offset: int, length: int) -> FileRef | TooLargeError:
        try:
            return locate(source, offset, length)
        except TooLargeError as error:
            return error

    return located


def _list(file: RecordFile, records: Iterator[Record[FileRef | TooLargeError] | Fault]) -> Iterator[Entry | Rejected]:
    end = None if file.take < 0 else file.skip + file.take
    for record in records:
        if isinstance(record, Fault):
            yield Rejected("", record.error_type, record.message)
            continue
        if end is not None and record.index >= end:
            return
        if record.index < file.skip:
            continue
        name = record.name or f"{file.name_prefix}-{file.first_index + record.index}"
        image, mask = (
            _named(located, name, what) for located, what in ((record.image, "picture"), (record.mask, "mask"))
        )
        if image is None:
            yield Rejected(name, ErrorType.NO_IMAGE, f"the Example has none of {', '.join(file.features.image)}")
        elif isinstance(image, Rejected):
            yield image
        else:
            yield Entry(name, image, mask)


def _named(located: FileRef | TooLargeError | None, name: str, what: str) -> FileRef | Rejected | None:
    if isinstance(located, TooLargeError):
        return Rejected(name, ErrorType.TOO_LARGE, f"the Example's {what} is too large: {located}")
    return located and replace(located, member=name)
