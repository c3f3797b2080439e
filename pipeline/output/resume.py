"""What of an earlier run still holds, picture by picture: a pure function of its journal and of the files there are.

A record has one fingerprint of the inference and one of its values (ground truth, label map, what is measured); each of
its files has the digest of what the output shows besides. So a change of options redoes what it changes and no more:
what needs logits is inferred, what follows from the picture and its mask is made from these.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from pipeline.core.errors import TRUTH_STAGE, ErrorType
from pipeline.core.limits import max_file_bytes
from pipeline.core.recipe import Fingerprints, Recipe
from pipeline.core.records import Failure, Located, OutputFile, PictureRecord, Update
from pipeline.output import registry
from pipeline.output.earlier_run import FoundFile, JournalEntry
from pipeline.output.journal_format import parse_entry
from pipeline.output.journal_v1 import MEASURES_V1, VERSION_1, FingerprintsV1
from pipeline.output.mask_output import MASK
from pipeline.output.outputs import Destination
from pipeline.output.removal import MaskCounts
from pipeline.output.tar_parts import is_of_version_1

RETRIED_ERRORS = frozenset((ErrorType.MISSING, ErrorType.UNREADABLE, ErrorType.STORE_FAULT, ErrorType.OUT_OF_MEMORY))
"""Failures that say more of the store or the machine than of the picture: taken up again on every resume."""

_Dated = tuple[PictureRecord | Failure, int]
"""An outcome, and when the part of the journal that names it was written."""


@dataclass(slots=True)
class ResumePlan:
    """What of some pictures is done and what is to do.

    Args:
        todo: pictures to segment; their `kept_files` are not written again.
        updates: pictures of which something is to be made or verified without the engine.
        records: pictures of which nothing is missing.
        failures: failures that still hold.
        stale: names, below the output, of files that no picture claims.
        masks: how many masks there are, and how many of them go.
    """

    todo: list[Located] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    records: list[PictureRecord] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    masks: MaskCounts = field(default_factory=MaskCounts)


@dataclass(frozen=True, slots=True)
class _Usable:
    """A file of an earlier run that is there, and whether somebody else may have written it since."""

    file: OutputFile
    is_doubtful: bool


class ResumePlanner:
    """Compares what earlier runs recorded with the pictures and files as they are now.

    Args:
        recipe: the job's.
        destination: the job's.
        retry_failed: whether no failure holds.
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
        parts: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    ) -> ResumePlan:
        """Plans what to do.

        Args:
            located: pictures with distinct ids.
            recorded: what was recorded of these or of pictures that are gone.
            files: what was written of the same.
            parts: size and time of writing, as in `FoundTar`, of the tar files of masks, by name.

        Returns:
            Every picture once, and the files that no picture claims.
        """
        found: dict[str, list[FoundFile]] = {}
        for file in files:
            found.setdefault(file.image_id, []).append(file)
        outcomes: dict[str, list[_Dated]] = {}
        for entry in sorted(entries, key=lambda entry: -entry.written_ns):
            outcomes.setdefault(entry.image_id, []).append((parse_entry(entry.line), entry.written_ns))
        for image_id, dated in outcomes.items():
            packed = [mask for outcome, _ in dated if (mask := _packed_mask(outcome, parts)) is not None]
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
            for image_id, there in found.items()
            if image_id not in ids and any(file.output == MASK for file in there)
        ]
        plan.masks = MaskCounts.total(counts)
        unclaimed = [file for there in found.values() for file in there if not file.part]
        plan.stale = sorted({registry.file_name(file.output, file.image_id) for file in unclaimed})
        return plan

    def _plan_picture(
        self,
        picture: Located,
        outcomes: Sequence[_Dated],
        there: list[FoundFile],
        plan: ResumePlan,
    ) -> MaskCounts:
        """Adds one picture to a plan, removes from `there` what the picture claims, and counts its mask."""
        records: list[tuple[PictureRecord, int]] = []
        failure: Failure | None = None
        for outcome, written_ns in outcomes:
            holding = self._holding(picture, outcome)
            if isinstance(holding, PictureRecord):
                records.append((holding, written_ns))
            elif holding is not None:
                failure = failure or holding
        has_mask = int(any(file.output == MASK for file in there))
        update = self._update(picture, records, there) if records else None
        if update is None and failure is not None:
            plan.failures.append(failure)
            return MaskCounts(has_mask, unlisted=has_mask)
        wanted = {output.name for output in self.destination.wanted(picture)}
        claimed = set(wanted)
        mask = update.record.file(MASK) if update else None
        if self.destination.packs_masks and (mask is None or mask.part):
            claimed.discard(MASK)  # what is done again goes into a tar file
        there[:] = [file for file in there if file.output not in claimed]
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
        # Version 1's don't tell what has changed.
        return fingerprint.startswith(VERSION_1) or self._fingerprints.is_of_other_recipe(fingerprint, picture)

    def _holding(self, picture: Located, outcome: PictureRecord | Failure) -> PictureRecord | Failure | None:
        """An outcome in the present form where it is one of the picture as it is now; None for others."""
        if outcome.fingerprint.startswith(VERSION_1):
            outcome_then = self._from_version_1(picture, outcome)
            if outcome_then is None:
                return None
            outcome = outcome_then
        if isinstance(outcome, Failure):
            is_present = outcome.fingerprint == self._fingerprints.of_failure(picture)
            return outcome if is_present and not self._is_retried(outcome.error_type) else None
        if outcome.fingerprint != self._fingerprints.of_image(picture) or self._is_refused(picture, outcome):
            return None
        return replace(outcome, source_uri=picture.image.display_uri, group=picture.group)

    def _from_version_1(self, picture: Located, outcome: PictureRecord | Failure) -> PictureRecord | Failure | None:
        then = self._version_1.written_then(outcome, picture)
        if then is None:
            return None
        if isinstance(outcome, Failure):
            # Version 1 did not segment a picture whose truth failed: it is done now.
            is_of_truth = outcome.stage == TRUTH_STAGE
            return None if is_of_truth else replace(outcome, fingerprint=self._fingerprints.of_failure(picture))
        masks = [replace(file, digest=self._digests[file.output]) for file in outcome.files if then.has_mask]
        others = [OutputFile(name, self._digests[name]) for name in then.outputs]
        return replace(
            outcome,
            fingerprint=self._fingerprints.of_image(picture),
            measured=self._fingerprints.of_measures(picture) if self._measures_are_v1 else "",
            files=(*others, *masks),
        )

    def _is_refused(self, picture: Located, record: PictureRecord) -> bool:
        """Whether a picture that was segmented would be refused with the present `--max_pixels`."""
        sizes = [record.source_bytes, picture.image.size_bytes, picture.truth.size_bytes if picture.truth else 0]
        max_pixels = self._recipe.max_pixels
        return record.width * record.height > max_pixels or max(sizes) > max_file_bytes(max_pixels)

    def _is_retried(self, error_type: str) -> bool:
        return self._retry_failed or error_type in RETRIED_ERRORS

    def _update(
        self, picture: Located, records: Sequence[tuple[PictureRecord, int]], there: Sequence[FoundFile]
    ) -> Update:
        """What is missing of a picture, the newest of its records first."""
        usable = {output.name: _usable(output.name, records, there) for output in registry.OUTPUTS}
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


def _packed_mask(outcome: PictureRecord | Failure, parts: Mapping[str, tuple[int, int]]) -> FoundFile | None:
    """The mask that a record says to be in a tar file, where this is there and long enough; None for others."""
    mask = outcome.file(MASK) if isinstance(outcome, PictureRecord) else None
    if mask is None or not mask.offset_bytes or mask.part not in parts:
        return None
    size_bytes, modified_ns = parts[mask.part]
    if mask.offset_bytes + mask.size_bytes > size_bytes:
        return None
    return FoundFile(MASK, outcome.image_id, mask.size_bytes, modified_ns, mask.part, mask.offset_bytes)


def _usable(output: str, records: Iterable[tuple[PictureRecord, int]], there: Iterable[FoundFile]) -> _Usable | None:
    """The file of an output that one of the records names and that is there with its size.

    A file that is younger than the part of the journal which names it is doubtful: somebody else may have written it.
    """
    doubtful: _Usable | None = None
    files = [found for found in there if found.output == output]
    for record, written_ns in records:
        file = record.file(output)
        for found in files if file is not None else ():
            if file is None or not _is_of(found, file):
                continue
            is_doubtful = found.modified_ns > written_ns
            if is_doubtful and file.crc32 < 0:
                continue
            placed = replace(file, size_bytes=found.size_bytes, part=found.part, offset_bytes=found.offset_bytes)
            if not is_doubtful:
                return _Usable(placed, is_doubtful=False)
            doubtful = doubtful or _Usable(placed, is_doubtful=True)
    return doubtful


def _is_of(found: FoundFile, file: OutputFile) -> bool:
    """Whether what was found may be what was recorded, by place and size; version 1 did not record places."""
    if file.size_bytes not in (found.size_bytes, -1):
        return False
    is_same_place = (found.part, found.offset_bytes) == (file.part, file.offset_bytes)
    return is_same_place or is_of_version_1(found.part)
