"""Which results of earlier runs are still valid: a pure function of the journal and the existing files.

A record has one fingerprint of the inference and one of its values (ground truth, label map, measures), and each of its
files has a digest of its output's settings. So a change of options redoes only what it affects: outputs that need
logits are inferred again, the others are made from the picture and its mask.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from pipeline.core.errors import TRUTH_STAGE, ErrorType
from pipeline.core.limits import max_file_bytes
from pipeline.core.recipe import Fingerprints, Recipe
from pipeline.core.records import Failure, Located, OutputFile, PictureRecord, Update
from pipeline.core.tiff_windows import may_have_windows
from pipeline.core.usage import TILE
from pipeline.output import registry
from pipeline.output.earlier_run import FoundFile, JournalEntry
from pipeline.output.journal_format import parse_entry
from pipeline.output.journal_v1 import MEASURES_V1, VERSION_1, FingerprintsV1
from pipeline.output.mask_output import MASK
from pipeline.output.outputs import Destination
from pipeline.output.removal import MaskCounts
from pipeline.output.tar_parts import is_of_version_1

RETRIED_ERRORS = frozenset((ErrorType.MISSING, ErrorType.UNREADABLE, ErrorType.STORE_FAULT, ErrorType.OUT_OF_MEMORY))
"""Failures caused by the store or the machine rather than the picture; retried on every resume."""

_Dated = tuple[PictureRecord | Failure, int]
"""An outcome, and the modification time of its part of the journal, ns."""


@dataclass(slots=True)
class ResumePlan:
    """The work on pictures that is left to do, and the results that are still valid.

    Args:
        todo: pictures to segment; their `kept_files` are not written again.
        updates: pictures with something to make or verify without the engine.
        records: pictures that are up to date.
        failures: failures that are still valid.
        stale: paths, below the output, of files that belong to no picture.
        masks: numbers of existing masks and of masks to remove.
    """

    todo: list[Located] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    records: list[PictureRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    masks: MaskCounts = field(default_factory=MaskCounts)


@dataclass(frozen=True, slots=True)
class _Usable:
    """An existing file of an earlier run, and whether something else may have written it since."""

    file: OutputFile
    is_doubtful: bool


class ResumePlanner:
    """Compares what earlier runs recorded with the pictures and files as they are now.

    Args:
        recipe: the job's.
        destination: the job's.
        retry_failed: whether all failures are retried.
    """

    def __init__(self, recipe: Recipe, destination: Destination, *, retry_failed: bool = False) -> None:
        self._recipe = recipe
        self.destination = destination
        self._retry_failed = retry_failed
        self._fingerprints = Fingerprints(recipe)
        self._version_1 = FingerprintsV1(recipe)
        self._digests = {output.name: output(recipe).digest() for output in registry.OUTPUTS}
        self._measures_are_v1 = recipe.measure_names == MEASURES_V1

    def plan(
        self,
        located: Sequence[Located],
        entries: Iterable[JournalEntry],
        files: Iterable[FoundFile],
        tars: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    ) -> ResumePlan:
        """Plans what to do.

        Args:
            located: pictures with distinct ids.
            entries: the journal's entries of these pictures and of pictures that were removed.
            files: existing files of the same pictures.
            tars: size and modification time, as in `FoundTar`, of the tar files of masks, by name.

        Returns:
            The plan, which has every picture once, and the files that belong to no picture.
        """
        found: dict[str, list[FoundFile]] = {}
        for file in files:
            found.setdefault(file.image_id, []).append(file)
        outcomes: dict[str, list[_Dated]] = {}
        for entry in sorted(entries, key=lambda entry: -entry.written_ns):
            outcomes.setdefault(entry.image_id, []).append((parse_entry(entry.line), entry.written_ns))
        for image_id, dated in outcomes.items():
            packed = [mask for outcome, _ in dated if (mask := _packed_mask(outcome, tars)) is not None]
            if packed:
                found.setdefault(image_id, []).extend(dict.fromkeys(packed))
        plan = ResumePlan()
        counts = [
            self._plan_picture(one, outcomes.get(one.image_id, ()), found.get(one.image_id, []), plan)
            for one in located
        ]
        ids = {picture.image_id for picture in located}
        counts += [
            MaskCounts(1, unlisted=1)
            for image_id, existing in found.items()
            if image_id not in ids and any(file.output == MASK for file in existing)
        ]
        plan.masks = MaskCounts.total(counts)
        unclaimed = [file for existing in found.values() for file in existing if not file.part]
        plan.stale = sorted({registry.file_name(file.output, file.image_id) for file in unclaimed})
        return plan

    def _plan_picture(
        self,
        picture: Located,
        outcomes: Sequence[_Dated],
        existing: list[FoundFile],
        plan: ResumePlan,
    ) -> MaskCounts:
        """Adds one picture to a plan, removes its valid files from `existing`, and counts its mask."""
        records: list[tuple[PictureRecord, int]] = []
        failure: Failure | None = None
        for outcome, written_ns in outcomes:
            valid = self._valid(picture, outcome)
            if isinstance(valid, PictureRecord):
                records.append((valid, written_ns))
            elif valid is not None:
                failure = failure or valid
        has_mask = int(any(file.output == MASK for file in existing))
        update = self._update(picture, records, existing) if records else None
        if update is None and failure is not None:
            plan.failures.append(failure)
            return MaskCounts(has_mask, unlisted=has_mask)
        wanted = {output.name for output in self.destination.wanted(picture)}
        claimed = set(wanted)
        mask = update.record.file(MASK) if update else None
        if self.destination.packs_masks and (mask is None or mask.part):
            claimed.discard(MASK)  # a mask that is made again is written to a tar file
        existing[:] = [file for file in existing if file.output not in claimed]
        is_replaced = False
        if update is None or self._needs_inference(update):
            kept = tuple(file for file in update.record.files if file.output not in update.verify) if update else ()
            plan.todo.append(replace(picture, kept_files=kept))
            is_replaced = any(self._is_of_other_recipe(outcome.fingerprint, picture) for outcome, _ in outcomes)
            is_replaced = is_replaced and all(file.output != MASK for file in kept)
        elif update.make or update.verify or update.measure:
            plan.updates.append(update)
        else:
            plan.records.append(update.record)
        if MASK not in wanted:
            return MaskCounts(has_mask, unwanted=has_mask)
        return MaskCounts(has_mask, replaced=has_mask if is_replaced else 0)

    def _is_of_other_recipe(self, fingerprint: str, picture: Located) -> bool:
        # From a fingerprint of version 1, what has changed is unknown.
        return fingerprint.startswith(VERSION_1) or self._fingerprints.is_of_other_recipe(fingerprint, picture)

    def _valid(self, picture: Located, outcome: PictureRecord | Failure) -> PictureRecord | Failure | None:
        """An outcome in the present form if it is valid for the picture as it is now; else None."""
        if outcome.fingerprint.startswith(VERSION_1):
            converted = self._from_version_1(picture, outcome)
            if converted is None:
                return None
            outcome = converted
        if isinstance(outcome, Failure):
            is_present = outcome.fingerprint == self._fingerprints.of_failure(picture)
            return outcome if is_present and not self._is_retried(outcome.error_type) else None
        if outcome.fingerprint != self._fingerprints.of_image(picture) or self._is_refused(picture, outcome):
            return None
        return replace(outcome, source_uri=picture.image.display_uri, group=picture.group)

    def _from_version_1(self, picture: Located, outcome: PictureRecord | Failure) -> PictureRecord | Failure | None:
        options = self._version_1.options_of(outcome, picture)
        if options is None:
            return None
        if isinstance(outcome, Failure):
            # Version 1 did not segment a picture whose truth failed; it is segmented now.
            is_of_truth = outcome.stage == TRUTH_STAGE
            return None if is_of_truth else replace(outcome, fingerprint=self._fingerprints.of_failure(picture))
        masks = [replace(file, digest=self._digests[file.output]) for file in outcome.files if options.has_mask]
        others = [OutputFile(name, self._digests[name]) for name in options.outputs]
        return replace(
            outcome,
            fingerprint=self._fingerprints.of_image(picture),
            measured=self._fingerprints.of_measures(picture) if self._measures_are_v1 else "",
            files=(*others, *masks),
        )

    def _is_refused(self, picture: Located, record: PictureRecord) -> bool:
        """Whether a picture that was segmented would be refused with the present `--max_pixels`."""
        if self._recipe.mode == TILE and may_have_windows(picture.image):
            return False  # it may have been read by window, for which there is no limit
        sizes = [record.source_bytes, picture.image.size_bytes, picture.truth.size_bytes if picture.truth else 0]
        max_pixels = self._recipe.max_pixels
        return record.width * record.height > max_pixels or max(sizes) > max_file_bytes(max_pixels)

    def _is_retried(self, error_type: str) -> bool:
        return self._retry_failed or error_type in RETRIED_ERRORS

    def _update(
        self, picture: Located, records: Sequence[tuple[PictureRecord, int]], existing: Sequence[FoundFile]
    ) -> Update:
        """What is missing for a picture; its records are in order, the newest first."""
        usable = {output.name: _usable(output.name, records, existing) for output in registry.OUTPUTS}
        measured = self._fingerprints.of_measures(picture)
        record, must_measure = records[0][0], True
        for candidate, _ in records:
            is_retried = bool(candidate.truth_error_type) and self._is_retried(candidate.truth_error_type)
            if candidate.measured == measured and not is_retried:
                record, must_measure = candidate, False
                break
        kept: list[OutputFile] = []
        make: list[str] = []
        verify: list[str] = []
        for output in self.destination.wanted(picture):
            one = usable[output.name]
            if one is None or one.file.digest != output.digest():
                make.append(output.name)
                continue
            kept.append(one.file)
            if one.is_doubtful:
                verify.append(output.name)
        mask = usable[MASK]
        if mask is not None and mask.is_doubtful and MASK not in verify and (make or must_measure):
            verify.append(MASK)
        return Update(
            picture,
            replace(record, files=tuple(kept)),
            mask.file if mask is not None else None,
            tuple(make),
            tuple(verify),
            must_measure,
        )

    def _needs_inference(self, update: Update) -> bool:
        outputs = {output.name: output for output in self.destination.outputs}
        if any(outputs[name].needs_inference for name in update.make):
            return True
        return update.mask is None and bool(update.make or update.measure)


def _packed_mask(outcome: PictureRecord | Failure, tars: Mapping[str, tuple[int, int]]) -> FoundFile | None:
    """A record's mask in a tar file, if that file exists and is long enough; else None."""
    mask = outcome.file(MASK) if isinstance(outcome, PictureRecord) else None
    if mask is None or not mask.offset_bytes or mask.part not in tars:
        return None
    size_bytes, modified_ns = tars[mask.part]
    if mask.offset_bytes + mask.size_bytes > size_bytes:
        return None
    return FoundFile(MASK, outcome.image_id, mask.size_bytes, modified_ns, mask.part, mask.offset_bytes)


def _usable(output: str, records: Iterable[tuple[PictureRecord, int]], existing: Iterable[FoundFile]) -> _Usable | None:
    """The existing file of an output that has the size in one of the records.

    A file is doubtful if its modification time is later than that of the part of the journal that names it: something
    else may have written it.
    """
    doubtful: _Usable | None = None
    files = [found for found in existing if found.output == output]
    for record, written_ns in records:
        file = record.file(output)
        for found in files if file is not None else ():
            if file is None or not _is_of(found, file):
                continue
            is_doubtful = found.modified_ns > written_ns
            if is_doubtful and file.crc32 < 0:
                continue
            located = replace(file, size_bytes=found.size_bytes, part=found.part, offset_bytes=found.offset_bytes)
            if not is_doubtful:
                return _Usable(located, is_doubtful=False)
            doubtful = doubtful or _Usable(located, is_doubtful=True)
    return doubtful


def _is_of(found: FoundFile, file: OutputFile) -> bool:
    """Whether a found file may be the recorded one, by location and size; version 1 did not record locations."""
    if file.size_bytes not in (found.size_bytes, -1):
        return False
    is_same_location = (found.part, found.offset_bytes) == (file.part, file.offset_bytes)
    return is_same_location or is_of_version_1(found.part)
