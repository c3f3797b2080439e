"""The interface of sources: an address, a prefix of ids, and the files that it lists."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.core.decode import has_picture_ending
from pipeline.core.errors import TRUTH_STAGE, ErrorType
from pipeline.core.records import Failure, FileRef
from pipeline.sources.archives.unpacking import MAX_MEMBER_BYTES
from pipeline.sources.ignored import Ignored
from pipeline.storage import filesystem
from pipeline.storage.globs import GLOB_CHARACTERS

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a source.

    Args:
        image_id: its id in the job, including the prefix.
        file: its reference.
        truth: its mask, if the source has it.
        columns: other columns of a manifest.
    """

    image_id: str
    file: FileRef
    truth: FileRef | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def pairing_key(self) -> str:
        """As the function `pairing_key`."""
        return pairing_key(self.image_id)


def pairing_key(image_id: str) -> str:
    """The key that a picture shares with its mask: the id without the ending of a picture."""
    return image_id.rpartition(".")[0] if has_picture_ending(image_id) else image_id


class Address:
    """The value of an option and the properties of what it names; each property is looked up once, on first use.

    Args:
        option: `--input` or `--ground_truth`, for messages.
        text: the value as written.
    """

    def __init__(self, option: str, text: str) -> None:
        self.option = option
        self.text = text
        self.uri = filesystem.absolute(text)

    def __str__(self) -> str:
        """The option and its value, for messages."""
        return f"{self.option} {self.text}"

    @cached_property
    def exists(self) -> bool:
        """Whether a file, an object or a local folder of this name exists."""
        return filesystem.exists(self.uri)

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a local folder, or a prefix with objects."""
        return filesystem.is_folder(self.uri)

    @cached_property
    def is_file(self) -> bool:
        """Whether a file or an object of this name exists."""
        return self.exists if filesystem.is_remote(self.uri) else self.exists and not self.is_folder

    @cached_property
    def is_pattern(self) -> bool:
        """Whether it has wildcards and is not the name of an existing file with such characters."""
        return bool(GLOB_CHARACTERS.search(self.text)) and not self.exists


@dataclass(frozen=True, slots=True)
class Source(ABC):
    """One parsed `--input` or `--ground_truth`.

    Args:
        uri: absolute path, URI or pattern; the same for all files of one set, whose ids can't collide.
        prefix: prefix of every id; "" for a single source.
        spool: folder for copies of pictures that can't be read by range; None to list names only.
        max_bytes: larger files are not copied, because the job would not read them.
        is_truth: whether its files are masks, whose failures have the stage `truth`.
    """

    uri: str
    prefix: str = ""
    spool: str | None = None
    max_bytes: int = MAX_MEMBER_BYTES
    is_truth: bool = False

    @classmethod
    @abstractmethod
    def recognise(cls, address: Address) -> "Sequence[Source] | None":
        """The sources of this type at an address.

        Args:
            address: the value of the option.

        Returns:
            The sources; None if the address is of another type.

        Raises:
            OptionError: it is of this type and can't be used.
            OSError: the storage can't be accessed.
        """

    @property
    @abstractmethod
    def base_name(self) -> str:
        """The prefix of its ids if there are several sources."""

    @property
    def location(self) -> str:
        """The path or URI that workers read; below it, if it is a folder or pattern."""
        return self.uri

    @property
    def folder(self) -> str | None:
        """The folder that is walked; None for other types."""
        return None

    def reads_below(self, folder: str, ending: str) -> bool:
        """Whether files that are written below a folder would be files of this source.

        Args:
            folder: absolute path or URI.
            ending: the ending of their names.
        """
        return False

    @property
    def is_index(self) -> bool:
        """Whether listing it reads only names, no content."""
        return False

    @property
    def label_map(self) -> str | None:
        """The label map of a known data set, in the form of `--label_map`; None for identity or an unknown data set."""
        return None

    def has_column(self, column: str) -> bool:
        """Whether it is a manifest with a column of this name.

        Raises:
            OptionError: it is a manifest that can't be read.
        """
        return False

    @abstractmethod
    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """Lists its files.

        Yields:
            The files, a failure for each that can't be used, and last the counts of ignored files.

        Raises:
            OSError: it can't be listed.
        """

    def listed(
        self,
        name: str,
        file: FileRef,
        truth: FileRef | None = None,
        columns: tuple[tuple[str, str], ...] = (),
    ) -> Listed | Failure:
        """A file with its id, or a failure if the id can't be the name of an output file.

        Args:
            name: its id without the prefix.
            file: its reference; in a source of masks that of the mask, unless `truth` is given.
            truth: its mask.
            columns: other columns of a manifest.
        """
        image_id = f"{self.prefix}/{name}" if self.prefix else name
        fault = unsafe_name(image_id)
        if fault is not None:
            message = f"the name {fault}; an output file can't have it"
            return self._make_failure(image_id, file.display_uri, ErrorType.UNSAFE_NAME, message)
        return Listed(image_id, truth or file) if self.is_truth else Listed(image_id, file, truth, columns)

    def failure(
        self, uri: str, name: str, error_type: ErrorType, message: str, *, is_record_mask: bool = False
    ) -> Failure:
        """The failure of a file or of a member of it.

        Args:
            uri: the file.
            name: the member; "" for the whole file.
            error_type: what is wrong.
            message: one sentence for a person.
            is_record_mask: whether only the mask of a record failed, not its picture.
        """
        image_id = f"{self.prefix}/{name}" if self.prefix and name else name
        address = FileRef(uri, member=name).display_uri
        if is_record_mask and not self.is_truth:
            return Failure(shown(image_id), shown(address), TRUTH_STAGE, error_type.value, message)
        return self._make_failure(image_id, address, error_type, message)

    def _make_failure(self, image_id: str, uri: str, error_type: ErrorType, message: str) -> Failure:
        # The failure of a mask has no id, because no picture fails.
        image_id, stage = ("", TRUTH_STAGE) if self.is_truth else (shown(image_id), "locate")
        return Failure(image_id, shown(uri), stage, error_type.value, message)


def shown(name: str) -> str:
    """A name that can be encoded as UTF-8: invalid characters are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def unsafe_name(image_id: str) -> str | None:
    """Checks whether an id can be the path of an output file.

    Args:
        image_id: the id, with `/` between its parts.

    Returns:
        What is wrong, to follow "the name"; None if nothing is.
    """
    try:
        image_id.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _CONTROL_CHARACTERS.search(image_id):
        return "has control characters"
    if not image_id:
        return "is empty"
    if image_id.startswith("/") or "\\" in image_id or re.match(r"[A-Za-z]:", image_id):
        return "is absolute or has a backslash"
    if any(part in ("", ".", "..") for part in image_id.split("/")):
        return "has empty, '.' or '..' parts"
    return None
