"""Outputs of earlier runs: whether a job may use one, and what is in it."""

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
from pipeline.output.lease import check_free, take
from pipeline.output.lease_renewal import renewer_of
from pipeline.output.mask_output import MASK
from pipeline.output.tar_parts import is_part, version_1_members
from pipeline.sources.source import Source
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

RESUME, OVERWRITE, ERROR = EXISTING = ("resume", "overwrite", "error")
_JOURNAL = "journal"


@dataclass(frozen=True, slots=True)
class Marker:
    """Marks a folder as an output of maskbeam, complete or not.

    Args:
        inference: `Recipe.inference_digest` of the last run; "" if none has started to write.
        journal_format: the format of its journal; 1 if an early version did not record it.
    """

    inference: str = ""
    journal_format: int = FORMAT

    def to_bytes(self) -> bytes:
        """The file's content."""
        document = {"maskbeam_output": 1, "journal_format": self.journal_format, "inference": self.inference}
        return f"{json.dumps(document)}\n".encode()

    @staticmethod
    def read(output: str) -> "Marker":
        """The marker of an output; an empty one if it has none.

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
    """A file or folder of an earlier run that has to be read or listed.

    Args:
        kind: `journal` for a part of the journal, else the name of the output whose folder it is.
        uri: its path or URI.
        written_ns: its modification time by the store's clock, ns.
    """

    kind: str
    uri: str
    written_ns: int = 0


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """An entry of the journal: the outcome of a picture.

    Args:
        image_id: the picture's.
        line: the entry, for `journal_format.parse_entry`.
        written_ns: modification time of the part of the journal that holds it, ns.
    """

    image_id: str
    line: str
    written_ns: int


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a picture that exists in the output.

    Args:
        output: the name of the output that writes such files.
        image_id: the picture that its name belongs to.
        size_bytes: its length.
        modified_ns: modification time of the file, or of the tar file that holds it, by the store's clock, ns.
        part: the tar file that holds it, by its name below `--output`; "" for a separate file.
        offset_bytes: its offset in the part.
    """

    output: str
    image_id: str
    size_bytes: int
    modified_ns: int
    part: str = ""
    offset_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FoundTar:
    """A tar file of masks that exists in the output; the journal lists its members.

    Args:
        name: below `--output`.
        size_bytes: its length.
        modified_ns: its modification time by the store's clock, ns.
    """

    name: str
    size_bytes: int
    modified_ns: int


def check_output(output: str, existing: str, sources: Iterable[Source]) -> None:
    """Checks that a job may write to an output.

    Args:
        output: absolute folder or bucket prefix.
        existing: one of `EXISTING`.
        sources: the job's sources of pictures and masks.

    Raises:
        OptionError: the job would read its own output, another run writes to it, or files there are not maskbeam's.
    """
    picture_folders = [*((one.folder, one.suffix) for one in registry.OUTPUTS), ("instances", ".png")]
    own_folders = [*(folder for folder, _ in picture_folders), TABLES_FOLDER, PROGRESS_FOLDER]
    for source in sources:
        if any(source.reads_below(filesystem.join(output, folder), suffix) for folder, suffix in picture_folders):
            raise OptionError(f"--output {output} is within {source.uri}: its masks would be read as pictures")
        for own in own_folders if source.folder is not None else ():
            own_path = filesystem.real_path(filesystem.join(output, own))
            if filesystem.is_within(filesystem.real_path(source.uri), own_path):
                raise OptionError(f"--output {output} writes to its folder {own}, which {source.uri} reads")
    try:
        check_free(output)
        if existing == ERROR and holds_results(output):
            raise OptionError(f"--output {output} has results; --existing resume continues, overwrite starts over")
        if (foreign := _foreign_folder(output)) is not None:
            raise OptionError(f"--output {output} has a folder {foreign} that maskbeam did not write; choose another")
        written = Marker.read(output).journal_format
        if written > FORMAT and existing != OVERWRITE:
            raise OptionError(
                f"--output {output} was written by a later version of maskbeam, whose journal has format {written};"
                f" this version reads up to {FORMAT}. --existing overwrite starts over"
            )
    except OutputInUseError as error:
        raise OptionError(f"--output {error}") from error
    except OSError as error:
        raise OptionError(f"--output {output} can't be read: {error.strerror or error}") from error


def holds_results(output: str) -> bool:
    """Whether a run of maskbeam, complete or not, has written to an output."""
    return any(filesystem.exists(filesystem.join(output, name)) for name in (SUMMARY_FILE, MARKER_FILE))


def _foreign_folder(output: str) -> str | None:
    """The first folder with files of other programs among those in which a job deletes stale files; None if none."""
    if holds_results(output):
        return None
    folders = ((one.folder, filesystem.join(output, one.folder)) for one in registry.OUTPUTS)
    return next((name for name, folder in folders if any(True for _ in _files(folder))), None)


def begin(output: str, existing: str, holder: Holder | None) -> list[EarlierPath]:
    """Acquires an output for a run and lists what earlier runs left there; changes no results.

    Args:
        output: absolute folder or bucket prefix.
        existing: `resume`, or `overwrite`, which deletes the journal.
        holder: the run that acquires it; None if no other run can write there.

    Returns:
        The paths to read or list; none in a new output.

    Raises:
        StorageError: the output can't be read or written, or another run writes to it.
    """
    with os_errors_as(StorageError, f"the output can't be prepared: {output}"):
        if holder is not None:
            take(output, holder)
            renewer_of(output, holder)
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
    paths = [EarlierPath(one.name, filesystem.join(output, one.folder)) for one in registry.OUTPUTS]
    for part in parts:
        if part.uri.endswith(PART_SUFFIX):
            paths.append(EarlierPath(_JOURNAL, part.uri, part.modified_ns))
    return paths


def begin_writing(output: str, marker: Marker) -> None:
    """Prepares an output for new results: deletes the summary, which marks the end of a job.

    Args:
        output: absolute folder or bucket prefix.
        marker: the run's.

    Raises:
        StorageError: the output can't be written.
    """
    with os_errors_as(StorageError, f"the output can't be prepared: {output}"):
        filesystem.delete(filesystem.join(output, SUMMARY_FILE))
        filesystem.write_bytes(filesystem.join(output, MARKER_FILE), marker.to_bytes())


def read_earlier(path: EarlierPath) -> Iterator[JournalEntry | FoundFile | FoundTar]:
    """Reads a part of the journal, or lists the folder of an output.

    Raises:
        StorageError: it exists and can't be read.
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
    except FileNotFoundError:  # an old part that another process has just deleted
        return
    except ValueError as error:
        reason = f"{error}; --existing overwrite starts over"
        raise StorageError(f"the output was written by a later version of maskbeam: {reason}") from error
    except OSError as error:
        raise StorageError(f"the output can't be read: {path.uri}: {error.strerror or error}") from error


def _files(folder: str) -> Iterator[filesystem.StoredFile]:
    if filesystem.is_remote(folder) or filesystem.is_folder(folder):
        yield from filesystem.list_files(folder)
