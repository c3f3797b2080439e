"""TFRecord files as sources: one picture per Example, optionally with its mask."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.core.errors import OptionError
from pipeline.core.records import Failure
from pipeline.sources.archives.listing import Entry, Rejected
from pipeline.sources.archives.record_files import RecordFile, list_records
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Address, Listed, Source
from pipeline.storage import filesystem

_RECORDS = re.compile(r"\.tfrecords?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RecordSource(Source):
    """One file of a set of TFRecord files; `uri` is the address of the set.

    Args:
        file: the file, and which of its Examples to read.
    """

    file: RecordFile = field(kw_only=True)

    @classmethod
    def recognise(cls, address: Address) -> Sequence[Source] | None:
        """See `Source.recognise`."""
        if not _RECORDS.search(filesystem.base_name(address.uri)):
            return None
        if not filesystem.is_remote(address.uri) and address.is_folder:
            return None
        uris = [address.uri] if address.exists else [stored.uri for stored in filesystem.list_glob(address.uri)]
        if not uris:
            raise OptionError(f"{address}: no such file")
        return [cls(address.uri, file=RecordFile(uri, _name_prefix(uri, len(uris)))) for uri in uris]

    @property
    def location(self) -> str:
        """The file."""
        return self.file.uri

    @property
    def base_name(self) -> str:
        """The file's name without its ending and shard number."""
        name = filesystem.base_name(self.uri)
        return _RECORDS.split(name)[0] or name

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """See `Source.items`."""
        for item in list_records(self.file, self.spool, self.max_bytes):
            if isinstance(item, Entry):
                if isinstance(item.truth, Rejected):
                    yield self._rejected(item.truth, is_record_mask=True)
                    if not self.is_truth:
                        yield self.listed(item.name, item.file)
                else:
                    yield self.listed(item.name, item.file, item.truth)
            else:
                yield self._rejected(item)

    def _rejected(self, item: Rejected, *, is_record_mask: bool = False) -> Failure:
        return self.failure(self.file.uri, item.name, item.error_type, item.message, is_record_mask=is_record_mask)


def _name_prefix(uri: str, files: int) -> str:
    """The prefix of ids of Examples without a file name, unique for each file of a set.

    Example 17 of `train.tfrecord-00002-of-00005` has the id train-00002-17, or train-17 if the file is the only one.
    """
    split, _, rest = filesystem.base_name(uri).partition(".tfrecord")
    shard = re.search(r"\d+(?=-of-)", rest)
    return f"{split}-{shard[0]}" if shard and files > 1 else split
