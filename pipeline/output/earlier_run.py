"""What an earlier run left in an output: whether it may be used, and the reading of what is there."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.core.errors import OptionError, OutputInUseError, StorageError
from pipeline.core.layout import (
    JOURNAL_FOLDER,
    MARKER_FILE,
    PACKED_FOLDER,
    PROGRESS_FOLDER,
    SCRATCH_FOLDER,
    SUMMARY_FILE,
    TABLES_FOLDER,
)
from pipeline.output import registry
from pipeline.output.holder import Holder
from pipeline.output.journal import PART_SUFFIX
from pipeline.output.journal_format import FORMAT, entries
from pipeline.output.keeper import keep
from pipeline.output.lease import check_free, take
from pipeline.output.mask_output import MASK
from pipeline.output.tar_parts import is_part, version_1_members
from pipeline.sources.source import Source
from pipeline.storage import filesystem

RESUME, OVERWRITE, ERROR = EXISTING = ("resume", "overwrite", "error")
_JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Marker:
    """What marks a folder as an output of maskbeam, whole or not.

    Args:
        inference: `Recipe.inference_digest` of the last run; "" before one began to write.
        journal_format: of its journal; 1 where an early version did not say.
    """

    inference: str = ""
    journal_format: int = FORMAT

    def to_bytes(self) -> bytes:
        """The file's content."""
        document = {"maskbeam_output": 1, "journal_format": self.journal_format, "inference": self.inference}
        return f"{json.dumps(document)}\n".encode()

    @staticmethod
    def read(output: str) -> "Marker":
        """The marker of an output; an empty one where there is none.

        Raises:
            OSError: it can't be read.
        """
        try:
            document = json.loads(filesystem.read_bytes(filesystem.join(output, MARKER_FILE)))
            return Marker(str(document.get("inference", "")), int(document.get("journal_format", 1)))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
            return Marker()


@dataclass(frozen=True, slots=True)
class EarlierPath:
    """A file or folder of an earlier run that is to be read or listed.

    Args:
        kind: `journal` for a part of the journal, else the name of the output whose folder it is.
        uri: its address.
        written_ns: when it was written, by the store's clock.
    """

    kind: str
    uri: str
    written_ns: int = 0


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """An entry of the journal: the outcome of a picture.

    Args:
        image_id: the picture's.
        line: for `journal_format.parse_entry`.
        written_ns: when the part of the journal was written.
    """

    image_id: str
    line: str
    written_ns: int


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a picture that is in the output.

    Args:
        output: the name of the output that writes such files.
        image_id: the picture whose name it has.
        size_bytes: its length.
        modified_ns: when it, or the tar file that holds it, was written, by the store's clock.
        part: the tar file that holds it, by its name below `--output`; "" for a file of its own.
        offset_bytes: where it begins in the part.
    """

    output: str
    image_id: str
    size_bytes: int
    modified_ns: int
    part: str = ""
    offset_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FoundTar:
    """A tar file of masks that is in the output; the journal says what it holds.

    Args:
        name: below `--output`.
        size_bytes: its length.
        modified_ns: when it was written, by the store's clock.
    """

    name: str
    size_bytes: int
    modified_ns: int


def check_output(output: str, existing: str, sources: Iterable[Source]) -> None:
    """Refuses an output that a job would take for its input, or whose files are not maskbeam's to replace.

    Args:
        output: absolute folder or bucket prefix.
        existing: one of `EXISTING`.
        sources: what is read.

    Raises:
        OptionError: it can't be used so.
    """
    picture_folders = [*((one.folder, one.suffix) for one in registry.OUTPUTS), ("instances", ".png")]
    own_folders = [*(folder for folder, _ in picture_folders), TABLES_FOLDER, PROGRESS_FOLDER]
    for source in sources:
        if any(source.reads_below(filesystem.join(output, folder), suffix) for folder, suffix in picture_folders):
            raise OptionError(f"--output {output} is within {source.uri}: its masks would be taken for pictures")
        for own in own_folders if source.folder is not None else ():
            own_path = filesystem.real_path(filesystem.join(output, own))
            if filesystem.is_within(filesystem.real_path(source.uri), own_path):
                raise OptionError(f"--output {output} writes to its folder {own}, which {source.uri} reads")
    try:
        check_free(output)
        if existing == ERROR and holds_results(output):
            raise OptionError(f"--output {output} holds results; --existing resume goes on, overwrite does all anew")
        if (foreign := _foreign_folder(output)) is not None:
            raise OptionError(f"--output {output} holds a folder {foreign} that maskbeam did not write; name another")
        written = Marker.read(output).journal_format
        if written > FORMAT and existing != OVERWRITE:
            raise OptionError(
                f"--output {output} was written by a later version of maskbeam, whose journal has format {written};"
                f" this version reads up to {FORMAT}. --existing overwrite does all anew"
            )
    except OutputInUseError as error:
        raise OptionError(f"--output {error}") from error
    except OSError as error:
        raise OptionError(f"--output {output} can't be read: {error.strerror or error}") from error


def holds_results(output: str) -> bool:
    """Whether a run of maskbeam, whole or not, has left something in an output."""
    return any(filesystem.exists(filesystem.join(output, name)) for name in (SUMMARY_FILE, MARKER_FILE))


def _foreign_folder(output: str) -> str | None:
    """The first folder with somebody else's files among those in which a job deletes what it does not claim."""
    if holds_results(output):
        return None
    folders = ((one.folder, filesystem.join(output, one.folder)) for one in registry.OUTPUTS)
    return next((name for name, folder in folders if any(True for _ in _files(folder))), None)


def begin(output: str, existing: str, holder: Holder | None) -> list[EarlierPath]:
    """Takes an output for a run, and says what an earlier run left. Of its results nothing is changed yet.

    Args:
        output: absolute folder or bucket prefix.
        existing: `resume`, or `overwrite`, with which the journal goes.
        holder: who takes it; None for nobody else could.

    Returns:
        What is to be read or listed, nothing for a fresh output.

    Raises:
        StorageError: the output can't be read or written, or another run writes to it.
    """
    try:
        if holder is not None:
            take(output, holder)
            keep(output, holder)
        if not holds_results(output):
            filesystem.write_bytes(filesystem.join(output, MARKER_FILE), Marker().to_bytes())
            return []
        for folder in (SCRATCH_FOLDER, PACKED_FOLDER):
            for left in _files(filesystem.join(output, folder)):
                filesystem.delete(left.uri)
        parts = list(_files(filesystem.join(output, JOURNAL_FOLDER)))
        if existing == OVERWRITE:
            for part in parts:
                filesystem.delete(part.uri)
            parts = []
    except OSError as error:
        raise StorageError(f"the output can't be made ready: {output}: {error.strerror or error}") from error
    paths = [EarlierPath(one.name, filesystem.join(output, one.folder)) for one in registry.OUTPUTS]
    for part in parts:
        if part.uri.endswith(PART_SUFFIX):
            paths.append(EarlierPath(_JOURNAL, part.uri, part.modified_ns))
    return paths


def begin_writing(output: str, marker: Marker) -> None:
    """Readies an output for new results: the summary goes, for it marks the end of a job.

    Args:
        output: absolute folder or bucket prefix.
        marker: of the run.

    Raises:
        StorageError: the output can't be written.
    """
    try:
        filesystem.delete(filesystem.join(output, SUMMARY_FILE))
        filesystem.write_bytes(filesystem.join(output, MARKER_FILE), marker.to_bytes())
    except OSError as error:
        raise StorageError(f"the output can't be made ready: {output}: {error.strerror or error}") from error


def read_earlier(path: EarlierPath) -> Iterator[JournalEntry | FoundFile | FoundTar]:
    """Reads one part of the journal, or lists a folder.

    Raises:
        StorageError: it can't be read, though it is there.
    """
    try:
        if path.kind == _JOURNAL:
            for image_id, line in entries(filesystem.read_bytes(path.uri)):
                yield JournalEntry(image_id, line, path.written_ns)
            return
        output = next(one for one in registry.OUTPUTS if one.name == path.kind)
        for stored in _files(path.uri):
            image_id = stored.uri[len(path.uri) :].lstrip("/")
            if image_id.endswith(output.suffix):
                image_id = image_id[: -len(output.suffix)]
                yield FoundFile(output.name, image_id, stored.size_bytes, stored.modified_ns)
            elif output.name == MASK and is_part(f"{output.folder}/{image_id}"):
                part = f"{output.folder}/{image_id}"
                yield FoundTar(part, stored.size_bytes, stored.modified_ns)
                for packed_id, size_bytes, offset_bytes in version_1_members(part, stored):
                    yield FoundFile(MASK, packed_id, size_bytes, stored.modified_ns, part, offset_bytes)
    except FileNotFoundError:  # a part that a run of long ago deletes only now
        return
    except ValueError as error:
        reason = f"{error}; --existing overwrite does all anew"
        raise StorageError(f"the output was written by a later version of maskbeam: {reason}") from error
    except OSError as error:
        raise StorageError(f"the output can't be read: {path.uri}: {error.strerror or error}") from error


def _files(folder: str) -> Iterator[filesystem.StoredFile]:
    if filesystem.is_remote(folder) or filesystem.is_folder(folder):
        yield from filesystem.list_files(folder)
