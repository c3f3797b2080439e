"""What every kind of source has in common: its address, its prefix, and the files that it lists."""

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
    """One file that a source holds.

    Args:
        image_id: its id in the job, prefix included.
        file: where its bytes are.
        truth: the mask that the source names beside it.
        columns: a manifest's further columns.
    """

    image_id: str
    file: FileRef
    truth: FileRef | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def pairing_key(self) -> str:
        """What a picture and its mask share: the id without a picture's ending."""
        return pairing_key(self.image_id)


def pairing_key(image_id: str) -> str:
    """An id without a picture's ending, which a picture shares with its mask."""
    return image_id.rpartition(".")[0] if has_picture_ending(image_id) else image_id


class Address:
    """The text of an option, and what storage has under it; each lookup is done once, and only if it is needed.

    Args:
        option: `--input` or `--ground_truth`, for messages.
        text: what the user wrote.
    """

    def __init__(self, option: str, text: str) -> None:
        self.option = option
        self.text = text
        self.uri = filesystem.absolute(text)

    def __str__(self) -> str:
        """The beginning of a message about it."""
        return f"{self.option} {self.text}"

    @cached_property
    def exists(self) -> bool:
        """Whether there is a file, an object or a local folder of this name."""
        return filesystem.exists(self.uri)

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a local folder, or a prefix that objects have."""
        return filesystem.is_folder(self.uri)

    @cached_property
    def is_file(self) -> bool:
        """Whether there is a file or an object of this name."""
        return self.exists if filesystem.is_remote(self.uri) else self.exists and not self.is_folder

    @cached_property
    def is_pattern(self) -> bool:
        """Whether it has wildcards and is not the name of a file that has such characters in it."""
        return bool(GLOB_CHARACTERS.search(self.text)) and not self.exists


@dataclass(frozen=True, slots=True)
class Source(ABC):
    """One parsed `--input` or `--ground_truth`.

    Args:
        uri: absolute path, URI or pattern; the same for all files of one set, whose ids can't collide.
        prefix: what comes before every id, "" for a lone source.
        spool: where pictures are copied that can't be read by range, None while names alone are wanted.
        max_bytes: longer files are not copied there: the job would not read them.
        is_truth: whether its files are masks; what is wrong with one is a failure of stage `truth` then.
    """

    uri: str
    prefix: str = ""
    spool: str | None = None
    max_bytes: int = MAX_MEMBER_BYTES
    is_truth: bool = False

    @classmethod
    @abstractmethod
    def recognise(cls, address: Address) -> "Sequence[Source] | None":
        """The sources of this kind that an address names.

        Args:
            address: what the user wrote.

        Returns:
            The sources; None where the address is of another kind.

        Raises:
            OptionError: it is of this kind and can't be used.
            OSError: storage can't be asked.
        """

    @property
    @abstractmethod
    def base_name(self) -> str:
        """The prefix of its ids where there are several sources."""

    @property
    def folder(self) -> str | None:
        """The folder that is walked; None for other kinds."""
        return None

    def reads_below(self, folder: str, ending: str) -> bool:
        """Whether files that are written below a folder would be its files, too.

        Args:
            folder: absolute path or URI.
            ending: of their names, a picture's.
        """
        return False

    @property
    def is_index(self) -> bool:
        """Whether listing it reads names and no content."""
        return False

    @property
    def label_map(self) -> str | None:
        """The label map of a known data set whose masks don't count from 0, as `--label_map` takes it; else None."""
        return None

    def has_column(self, column: str) -> bool:
        """Whether it is a manifest with a column of this name.

        Raises:
            OptionError: it is a manifest that can't be read.
        """
        return False

    @abstractmethod
    def items(self) -> Iterator[Listed | Ignored | Failure]:
        """Lists what it holds.

        Yields:
            The files, a failure for each that can't be used, and at the end how many were ignored.

        Raises:
            OSError: it can't be listed.
        """

    def named(
        self,
        name: str,
        file: FileRef,
        truth: FileRef | None = None,
        columns: tuple[tuple[str, str], ...] = (),
    ) -> Listed | Failure:
        """A file of this source under its id, or a failure where the id can't be the name of an output file.

        Args:
            name: its id without the prefix.
            file: its bytes; for a source of masks, unless `truth` is given, the mask's.
            truth: the bytes of the mask beside it.
            columns: a manifest's further columns.
        """
        image_id = f"{self.prefix}/{name}" if self.prefix else name
        fault = unsafe_name(image_id)
        if fault is not None:
            message = f"the name {fault}; no file of the output can have it"
            return self._failure(image_id, file.display_uri, ErrorType.UNSAFE_NAME, message)
        return Listed(image_id, truth or file) if self.is_truth else Listed(image_id, file, truth, columns)

    def refused(
        self, uri: str, name: str, error_type: ErrorType, message: str, *, is_mask_beside: bool = False
    ) -> Failure:
        """The failure of a member of a file, or of the whole file.

        Args:
            uri: the file.
            name: the member, "" for the whole file.
            error_type: what is wrong.
            message: one sentence for a person.
            is_mask_beside: whether only the mask that a record has beside its picture is meant.
        """
        image_id = f"{self.prefix}/{name}" if self.prefix and name else name
        address = FileRef(uri, member=name).display_uri
        if is_mask_beside and not self.is_truth:
            return Failure(shown(image_id), shown(address), TRUTH_STAGE, error_type.value, message)
        return self._failure(image_id, address, error_type, message)

    def _failure(self, image_id: str, uri: str, error_type: ErrorType, message: str) -> Failure:
        # The failure of a mask costs no picture: it has no picture's id.
        image_id, stage = ("", TRUTH_STAGE) if self.is_truth else (shown(image_id), "locate")
        return Failure(image_id, shown(uri), stage, error_type.value, message)


def shown(name: str) -> str:
    """A name that can be written as UTF-8: other bytes become escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def unsafe_name(image_id: str) -> str | None:
    """Says why an id can't be a file's name below the output, or None where it can.

    Args:
        image_id: the id, with `/` between its parts.

    Returns:
        What is wrong, to follow "the name".
    """
    try:
        image_id.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8"
    if _CONTROL_CHARACTERS.search(image_id):
        return "holds control characters"
    if not image_id:
        return "is empty"
    if image_id.startswith("/") or "\\" in image_id or re.match(r"[A-Za-z]:", image_id):
        return "is absolute or holds a backslash"
    if any(part in ("", ".", "..") for part in image_id.split("/")):
        return "holds empty, '.' or '..' parts"
    return None
