"""TFRecord files as sources: a picture an Example, its mask in the same."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.core.errors import OptionError
from pipeline.core.records import Failure
from pipeline.sources.archives.listing import Entry, Refused
from pipeline.sources.archives.record_files import RecordFile, list_records
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Address, Listed, Source
from pipeline.storage import filesystem

_RECORDS = re.compile(r"\.tfrecords?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RecordSource(Source):
    """One file of a set of records; `uri` is what names the set.

    Args:
        file: which file, and which of its Examples.
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
        return [cls(address.uri, file=RecordFile(uri, _unnamed(uri, len(uris)))) for uri in uris]

    @property
    def base_name(self) -> str:
        """The file's name without its ending, and without the shard's number."""
        name = filesystem.base_name(self.uri)
        return _RECORDS.split(name)[0] or name

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """See `Source.items`."""
        for item in list_records(self.file, self.spool, self.max_bytes):
            if isinstance(item, Entry):
                if isinstance(item.truth, Refused):
                    yield self._refused(item.truth, is_mask_beside=True)
                    if not self.is_truth:
                        yield self.named(item.name, item.file)
                else:
                    yield self.named(item.name, item.file, item.truth)
            else:
                yield self._refused(item)

    def _refused(self, item: Refused, *, is_mask_beside: bool = False) -> Failure:
        return self.refused(self.file.uri, item.name, item.error_type, item.message, is_mask_beside=is_mask_beside)


def _unnamed(uri: str, files: int) -> str:
    """What comes before the number of an Example without a file name, different for each file of a set.

    Example 17 of `train.tfrecord-00002-of-00005` is train-00002-17, that of a lone file train-17.
    """
    split, _, rest = filesystem.base_name(uri).partition(".tfrecord")
    shard = re.search(r"\d+(?=-of-)", rest)
    return f"{split}-{shard[0]}" if shard and files > 1 else split
