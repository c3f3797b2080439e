"""Folders and globs as sources: single files on this machine or below a bucket's prefix."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.core.decode import has_picture_ending
from pipeline.core.errors import ErrorType
from pipeline.core.records import Failure, FileRef
from pipeline.sources.ignored import Ignored, IgnoredFiles
from pipeline.sources.source import Address, Listed, Source
from pipeline.storage import filesystem
from pipeline.storage.globs import GLOB_CHARACTERS, can_match_below
from pipeline.storage.stored_file import OnUnreadable, StoredFile


@dataclass(frozen=True, slots=True)
class FolderSource(Source):
    """All files below a folder."""

    @classmethod
    def recognise(cls, address: Address) -> Sequence[Source] | None:
        """See `Source.recognise`."""
        return [cls(address.uri)] if address.is_folder else None

    @property
    def base_name(self) -> str:
        """The folder's name."""
        return filesystem.base_name(self.uri)

    @property
    def folder(self) -> str | None:
        """The folder itself."""
        return self.uri

    def reads_below(self, folder: str, ending: str) -> bool:
        """See `Source.reads_below`."""
        return filesystem.is_within(filesystem.real_path(folder), filesystem.real_path(self.uri))

    @property
    def is_index(self) -> bool:
        """Files are listed by their names."""
        return True

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """See `Source.items`."""
        return _pictures(self, self.uri, partial(filesystem.list_files, self.uri))


@dataclass(frozen=True, slots=True)
class GlobSource(Source):
    """The files that match a pattern, or one file."""

    @classmethod
    def recognise(cls, address: Address) -> Sequence[Source] | None:
        """See `Source.recognise`."""
        if address.is_pattern or (has_picture_ending(address.uri) and address.is_file):
            return [cls(address.uri)]
        return None

    @property
    def base_name(self) -> str:
        """The name of the last folder before the first wildcard."""
        return filesystem.base_name(self._fixed_folder) or "root"

    @property
    def is_index(self) -> bool:
        """Files are listed by their names."""
        return True

    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """See `Source.items`."""
        return _pictures(self, self._fixed_folder, partial(filesystem.list_glob, self.uri))

    def reads_below(self, folder: str, ending: str) -> bool:
        """See `Source.reads_below`."""
        fixed = self._fixed_folder
        real_pattern = filesystem.real_path(fixed).rstrip("/") + self.uri[len(fixed) :]
        return can_match_below(self.uri, folder, ending) or can_match_below(
            real_pattern, filesystem.real_path(folder), ending
        )

    @property
    def _fixed_folder(self) -> str:
        match = GLOB_CHARACTERS.search(self.uri)
        return (self.uri[: match.start()] if match else self.uri).rpartition("/")[0]


def _pictures(
    source: Source, root: str, list_files: Callable[[OnUnreadable], Iterator[StoredFile]]
) -> Iterator[Listed | Ignored | Failure]:
    """Lists the files with the ending of a picture; their ids are their paths below `root`."""
    ignored = IgnoredFiles()
    unreadable: list[str] = []
    for stored in list_files(unreadable.append):
        if not has_picture_ending(stored.uri):
            ignored.add(stored.uri)
            continue
        relative = stored.uri[len(root) :].lstrip("/")
        yield source.listed(relative, FileRef(stored.uri, stored.size_bytes, stored.version))
    for folder in unreadable:
        message = "no permission to read the folder; its files are unknown"
        yield source.failure(folder, "", ErrorType.UNREADABLE, message)
    yield ignored.total()
