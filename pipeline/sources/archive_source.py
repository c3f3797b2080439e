"""Archives as sources: one file, or all that match a glob."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.core.records import Failure
from pipeline.sources.archives.listing import ARCHIVE_ENDINGS, Entry, list_archive
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Address, Listed, Source
from pipeline.storage import filesystem


@dataclass(frozen=True, slots=True)
class ArchiveSource(Source):
    """The pictures of a tar file, compressed or not, or of a zip file."""

    @classmethod
    def recognise(cls, address: Address) -> Sequence[Source] | None:
        """See `Source.recognise`."""
        if not address.uri.lower().endswith(ARCHIVE_ENDINGS):
            return None
        if address.is_pattern:
            return [cls(stored.uri) for stored in filesystem.list_glob(address.uri)]
        return [cls(address.uri)] if address.is_file else None

    @property
    def base_name(self) -> str:
        """The file's name without its ending."""
        name = filesystem.base_name(self.uri)
        ending = next(ending for ending in ARCHIVE_ENDINGS if name.lower().endswith(ending))
        return name[: -len(ending)]

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """See `Source.items`."""
        for item in list_archive(self.uri, self.spool, self.max_bytes):
            if isinstance(item, Entry):
                yield self.listed(item.name, item.file)
            elif isinstance(item, Ignored):
                yield item
            else:
                yield self.failure(self.uri, item.name, item.error_type, item.message)
