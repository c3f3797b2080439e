"""What an earlier run left, and what of it still holds: by picture, without a look at any file of its own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pipeline.core.errors import TRUTH_STAGE, OptionError, StorageError
from pipeline.core.layout import (
    JOURNAL_FOLDER,
    MARKER_FILE,
    PROGRESS_FOLDER,
    SCRATCH_FOLDER,
    SUMMARY_FILE,
    TABLES_FOLDER,
    picture_file,
)
from pipeline.core.recipe import fingerprint
from pipeline.core.records import Failure, Located, PictureRecord
from pipeline.output import journal
from pipeline.output.mask_shards import packed_masks
from pipeline.sources.source import Source
from pipeline.storage import storage

RESUME, OVERWRITE, ERROR = EXISTING = ("resume", "overwrite", "error")
RETRIED_ERRORS = frozenset(("Missing", "Unreadable", "StoreFault", "OutOfMemory"))
"""Failures that say more of the store or the machine than of the picture: taken up again on every resume."""

_MARKER = b'{"maskbeam_output": 1}\n'
_MASKS, _OVERLAYS, _PROBABILITIES = _PICTURE_FOLDERS = ("masks", "overlays", "probabilities")
"""Where a file a picture lies; what of it nobody claims is deleted."""
_OWN_FOLDERS = (*_PICTURE_FOLDERS, "instances", TABLES_FOLDER, PROGRESS_FOLDER)
_ENDING = ".png"


@dataclass(frozen=True, slots=True)
class Remains:
    """A file or folder of an earlier run that is to be gone through.

    Args:
        kind: `journal` for a part of the journal, `masks`, `overlays` or `probabilities` for the folder of that name.
        uri: where it lies.
        written_ns: when it was written, by the store's clock.
    """

    kind: str
    uri: str
    written_ns: int = 0


@dataclass(frozen=True, slots=True)
class Recorded:
    """An outcome that an earlier run recorded.

    Args:
        image_id: the picture's.
        line: for `journal.parse_entry`.
        written_ns: when the part of the journal was written.
    """

    image_id: str
    line: str
    written_ns: int


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A picture's mask, or what else a run may write of a picture, that lies in the output.

    Args:
        image_id: of the picture whose name it bears.
        size_bytes: its length.
        modified_ns: when it was written, by the store's clock; 0 where it stands in a tar.
        place: the tar and the place in it, "" for a file of its own.
        folder: of what kind it is, the name of its folder.
    """

    image_id: str
    size_bytes: int
    modified_ns: int
    place: str = ""
    folder: str = _MASKS


@dataclass(slots=True)
class Sorted:
    """What of some pictures is done and what is to do.

    Args:
        todo: pictures to do, for the first time or again.
        records: pictures whose masks and records still hold.
        failures: failures that still hold.
        stale: names, below the output, of masks and what lies beside them that no picture of the job claims.
    """

    todo: list[Located] = field(default_factory=list)
    records: list[PictureRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)


def check_output(output: str, existing: str, sources: Iterable[Source]) -> None:
    """Refuses an output that a job would take for its input, or whose files are not maskbeam's to replace.

    Args:
        output: absolute folder or bucket prefix.
        existing: one of `EXISTING`.
        sources: what is read.

    Raises:
        OptionError: it can't be used so.
    """
    for source in sources:
        if any(source.reads_below(storage.join(output, own), _ENDING) for own in (*_PICTURE_FOLDERS, "instances")):
            raise OptionError(f"--output {output} is within {source.uri}: its masks would be taken for pictures")
        for own in _OWN_FOLDERS if source.folder is not None else ():
            if storage.is_within(storage.real_path(source.uri), storage.real_path(storage.join(output, own))):
                raise OptionError(f"--output {output} keeps files of its own in {own}, where {source.uri} is read")
    try:
        if existing == ERROR and holds_results(output):
            raise OptionError(f"--output {output} holds results; --existing resume goes on, overwrite does all anew")
        if (foreign := _foreign_folder(output)) is not None:
            raise OptionError(f"--output {output} holds a folder {foreign} that maskbeam did not write; name another")
    except OSError as error:
        raise OptionError(f"--output {output} can't be read: {error.strerror or error}") from error


def holds_results(output: str) -> bool:
    """Whether a run of maskbeam, whole or not, has left something in an output."""
    return any(storage.exists(storage.join(output, name)) for name in (SUMMARY_FILE, MARKER_FILE))


def _foreign_folder(output: str) -> str | None:
    """The first folder with somebody else's files among those in which a job deletes what it does not claim."""
    if holds_results(output):
        return None
    folders = ((name, storage.join(output, name)) for name in _PICTURE_FOLDERS)
    return next((name for name, folder in folders if any(True for _ in _files(folder))), None)


def begin(output: str, existing: str) -> list[Remains]:
    """Readies an output for a run: takes away what would mislead, and says what an earlier run left.

    The summary goes first, for it marks the end of a job; with `overwrite` the journal goes too. Masks and tables stay
    until something takes their place or the run is through.

    Args:
        output: absolute folder or bucket prefix.
        existing: `resume` or `overwrite`.

    Returns:
        What is to be gone through, nothing for a fresh output.

    Raises:
        StorageError: the output can't be read or written.
    """
    try:
        if not holds_results(output):
            storage.write_bytes(storage.join(output, MARKER_FILE), _MARKER)
            return []
        storage.delete(storage.join(output, SUMMARY_FILE))
        storage.write_bytes(storage.join(output, MARKER_FILE), _MARKER)
        scratch = storage.join(output, SCRATCH_FOLDER)
        if storage.is_folder(scratch):
            for left in storage.list_files(scratch):
                storage.delete(left.uri)
        parts = list(_files(storage.join(output, JOURNAL_FOLDER)))
        if existing == OVERWRITE:
            for part in parts:
                storage.delete(part.uri)
            parts = []
    except OSError as error:
        raise StorageError(f"the output can't be made ready: {output}: {error.strerror or error}") from error
    remains = [Remains(folder, storage.join(output, folder)) for folder in _PICTURE_FOLDERS]
    for part in parts:
        if part.uri.endswith(journal.PART_ENDING):
            remains.append(Remains("journal", part.uri, part.modified_ns))
    return remains


def read_remains(remains: Remains) -> Iterator[Recorded | FoundFile]:
    """Goes through one part of the journal, or lists a folder.

    Raises:
        StorageError: it can't be read, though it is there.
    """
    try:
        if remains.kind == "journal":
            for image_id, line in journal.entries(storage.read_bytes(remains.uri)):
                yield Recorded(image_id, line, remains.written_ns)
            return
        for stored in _files(remains.uri):
            image_id = stored.uri[len(remains.uri) :].lstrip("/")
            if image_id.endswith(_ENDING):
                image_id = image_id[: -len(_ENDING)]
                yield FoundFile(image_id, stored.size_bytes, stored.modified_ns, folder=remains.kind)
            elif remains.kind == _MASKS:
                for packed_id, size_bytes, place in packed_masks(remains.uri, stored):
                    yield FoundFile(packed_id, size_bytes, 0, place)
    except FileNotFoundError:  # a part that a run of long ago deletes only now
        return
    except OSError as error:
        raise StorageError(f"the output can't be read: {remains.uri}: {error.strerror or error}") from error


def _files(folder: str) -> Iterator[storage.StoredFile]:
    if storage.is_remote(folder) or storage.is_folder(folder):
        yield from storage.list_files(folder)


def sort_out(
    located: Sequence[Located],
    recorded: Iterable[Recorded],
    files: Iterable[FoundFile],
    settings_digest: str,
    *,
    retry_failed: bool = False,
    keeps_masks: bool = True,
    probabilities: bool = False,
) -> Sorted:
    """Holds what earlier runs recorded of some pictures against the pictures as they are now.

    A record holds where its fingerprint is the present one and its mask lies there, as long as it was, and no younger
    than the part of the journal that speaks of it. A failure, or a record's truth failure, holds where its fingerprint
    is the present one, unless it is of `RETRIED_ERRORS`.

    Args:
        located: pictures with distinct ids.
        recorded: what was recorded of these or of pictures that are gone.
        files: what was written of the same.
        settings_digest: of the present settings.
        retry_failed: whether no failure holds.
        keeps_masks: whether the job writes masks; those of an earlier run go where it doesn't.
        probabilities: whether it writes probabilities.

    Returns:
        Every picture once, and the files that no picture claims.
    """
    found: dict[str, FoundFile] = {}
    beside: set[str] = set()
    # A file of its own is younger than what was packed.
    for file in sorted(files, key=lambda file: not file.place):
        if file.folder == _MASKS:
            found[file.image_id] = file
        else:
            beside.add(_name_in(file.folder, file.image_id))
    entries: dict[str, list[Recorded]] = {}
    for entry in recorded:
        entries.setdefault(entry.image_id, []).append(entry)
    result = Sorted()
    for picture in located:
        outcome = _still_holding(
            entries.get(picture.image_id, ()), found, fingerprint(picture, settings_digest), retry_failed
        )
        if outcome is None:
            result.todo.append(picture)
            if keeps_masks:
                found.pop(picture.image_id, None)  # what is done again replaces or deletes it
        elif isinstance(outcome, PictureRecord):
            if outcome.mask_uri:
                mask = found.pop(picture.image_id, None)
                outcome = replace(outcome, mask_uri=(mask and mask.place) or _name_in(_MASKS, picture.image_id))
            result.records.append(outcome)
        else:
            result.failures.append(outcome)
            continue
        # What is done again replaces these, but knows nothing of those that it was not asked for.
        if picture.overlay:
            beside.discard(_name_in(_OVERLAYS, picture.image_id))
        if probabilities:
            beside.discard(_name_in(_PROBABILITIES, picture.image_id))
    result.stale = [*(_name_in(_MASKS, image_id) for image_id in sorted(found)), *sorted(beside)]
    return result


def _name_in(folder: str, image_id: str) -> str:
    return picture_file(folder, image_id, _ENDING)


def _still_holding(
    entries: Iterable[Recorded], masks: dict[str, FoundFile], present: str, retry_failed: bool
) -> PictureRecord | Failure | None:
    failure = None
    for entry in sorted(entries, key=lambda entry: -entry.written_ns):
        outcome = journal.parse_entry(entry.line)
        if outcome.fingerprint != present:
            continue
        if isinstance(outcome, Failure):
            # Earlier versions did not segment a picture whose truth failed: it is done now.
            if outcome.stage != TRUTH_STAGE and not _is_retried(outcome.error_type, retry_failed):
                failure = failure or outcome
            continue
        if outcome.truth_error_type and _is_retried(outcome.truth_error_type, retry_failed):
            continue
        mask = masks.get(entry.image_id)
        if not outcome.mask_uri:
            return outcome
        if mask and mask.size_bytes == outcome.mask_bytes and mask.modified_ns <= entry.written_ns:
            return outcome
    return failure


def _is_retried(error_type: str, retry_failed: bool) -> bool:
    return retry_failed or error_type in RETRIED_ERRORS
