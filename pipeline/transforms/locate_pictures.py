"""From sources to located pictures, each joined to its mask by key. Only names cross the shuffle, no pixels."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsSingleton, PBegin, PCollection, TaggedOutput

from pipeline.core.errors import TRUTH_STAGE, StorageError
from pipeline.core.records import Failure, FileRef, Located, PictureRecord, Update
from pipeline.output.earlier_run import FoundFile, JournalEntry
from pipeline.output.lease_renewal import check_lease
from pipeline.output.outputs import Destination
from pipeline.output.resume import ResumePlanner
from pipeline.progress.counts import Count, ProgressReporter
from pipeline.sources.ignored import Ignored
from pipeline.sources.pairing import Grouping, overlay_rank, pair
from pipeline.sources.source import Listed, Source
from pipeline.storage.os_errors import os_errors_as
from pipeline.transforms import coders
from pipeline.transforms.begin_run import FOUND_FILE, JOURNAL_ENTRY, EarlierRun, unpack
from pipeline.transforms.pack_failures import PackFailures
from pipeline.transforms.picture_counts import PictureCounts

# A candidate of the join as primitives: picture or mask, its id, its file, a manifest's mask and columns.
_Candidate = tuple[Any, ...]
_PICTURE, _TRUTH = 0, 1


class Locations(NamedTuple):
    """The outputs of `LocatePictures`.

    Args:
        todo: `Located`, the pictures to segment.
        records: `PictureRecord`, of the pictures that an earlier run segmented.
        updates: `Update`, of the pictures that an earlier run inferred and of which something is missing.
        failures: blocks of failures: pictures with unsafe or ambiguous ids, pictures that failed in an earlier run, and
            ambiguous truths.
        stale: str, names of output files that belong to no picture.
        masks: `MaskCounts` as tuples, to be summed.
        located: int, pictures with a unique id, to be summed.
        ignored: (ending, number) of files that are not pictures.
        unpaired_truth: int, masks without a picture.
    """

    todo: PCollection[Located]
    records: PCollection[PictureRecord]
    updates: PCollection[Update]
    failures: PCollection[bytes]
    stale: PCollection[str]
    masks: PCollection[tuple[int, ...]]
    located: PCollection[int]
    ignored: PCollection[tuple[str, int]]
    unpaired_truth: PCollection[int]


def _candidates(element: tuple[int, Source], progress: ProgressReporter, destination: Destination) -> Iterator[Any]:
    """Lists one source: its files as candidates by their pairing key, everything else with a tag.

    The pictures are counted here, before the join, so that the count is complete when the first one is segmented.
    """
    role, source = element
    counts = PictureCounts(progress)
    check_lease(destination)
    with os_errors_as(StorageError, f"{source.uri} can't be listed"):
        for item in source.items():
            if isinstance(item, Listed):
                if role == _PICTURE:
                    counts.add(Count.LOCATED)
                yield item.pairing_key, _pack_candidate(role, item)
            elif role == _PICTURE and isinstance(item, Ignored):
                for counted in item.by_ending:
                    yield TaggedOutput("ignored", counted)
            elif isinstance(item, Failure):
                # The mask of a record may fail while its picture does not.
                if role == _PICTURE and item.stage != TRUTH_STAGE:
                    counts.add(Count.LOCATED)
                    counts.add(Count.FAILED)
                yield TaggedOutput("failures", item)
    counts.flush()


class _PairDoFn(beam.DoFn):
    """Joins the candidates of one key with what an earlier run left of them."""

    def __init__(self, progress: ProgressReporter, planner: ResumePlanner, grouping: Grouping | None) -> None:
        self._counts = PictureCounts(progress)
        self._planner = planner
        self._grouping = grouping

    def setup(self) -> None:
        check_lease(self._planner.destination)

    def process(
        self,
        element: tuple[str, Iterable[_Candidate]],
        tars: dict[str, tuple[int, int]],
        last_overlay: int = -1,
    ) -> Iterator[Any]:
        pictures: list[Listed] = []
        truths: list[FileRef] = []
        entries: list[JournalEntry] = []
        files: list[FoundFile] = []
        for candidate in element[1]:
            role = candidate[0]
            if role in (JOURNAL_ENTRY, FOUND_FILE):
                found = unpack(candidate)
                entries.append(found) if isinstance(found, JournalEntry) else files.append(found)
                continue
            listed = _unpack_candidate(candidate)
            if role == _PICTURE:
                pictures.append(listed)
            else:
                truths.append(listed.file)
        paired = pair(pictures, truths, self._grouping)
        located = [replace(one, overlay=overlay_rank(one.image_id) <= last_overlay) for one in paired.located]
        work = self._planner.plan(located, entries, files, tars)
        self._counts.add(Count.RESUMED, len(work.records))
        self._counts.add(Count.FAILED, len(paired.failures) + len(work.failures))
        yield from work.todo
        if paired.located:
            yield TaggedOutput("located", len(paired.located))
        for record in work.records:
            yield TaggedOutput("records", record)
        for update in work.updates:
            yield TaggedOutput("updates", update)
        for failure in (*paired.failures, *paired.truth_failures, *work.failures):
            yield TaggedOutput("failures", failure)
        if work.masks.existing:
            yield TaggedOutput("masks", tuple(work.masks))
        for name in work.stale:
            yield TaggedOutput("stale", name)
        if paired.unpaired_truth:
            yield TaggedOutput("unpaired_truth", paired.unpaired_truth)

    def finish_bundle(self) -> None:
        self._counts.flush()


class LocatePictures(beam.PTransform[Any, Any]):
    """Lists pictures and masks and joins them.

    Args:
        pictures: parsed sources of pictures.
        truths: parsed sources of masks, in the order of `pictures`, or none.
        progress: where to report how many were found.
        earlier: what `ReadEarlierRun` emits.
        planner: decides which of them are still valid.
        grouping: how a picture's group is determined, None without groups.
        overlays: the number of pictures with an overlay.
    """

    def __init__(
        self,
        pictures: Sequence[Source],
        truths: Sequence[Source],
        progress: ProgressReporter,
        earlier: EarlierRun,
        planner: ResumePlanner,
        grouping: Grouping | None = None,
        overlays: int = 0,
    ) -> None:
        super().__init__()
        self._overlays = overlays
        self._earlier = earlier
        self._planner = planner
        self._sources = [(_PICTURE, source) for source in pictures] + [(_TRUTH, source) for source in truths]
        self._progress = progress
        self._grouping = grouping

    def expand(self, pbegin: PBegin) -> Locations:
        listed = (
            pbegin
            | "Sources" >> beam.Create(self._sources, reshuffle=False)
            | "SpreadSources" >> beam.Reshuffle()
            | "List"
            # with_output_types first: after with_outputs Beam loses the types, and pickles what crosses a shuffle.
            >> beam.FlatMap(_candidates, self._progress, self._planner.destination)
            .with_output_types(tuple[str, tuple[Any, ...]], failures=Failure, ignored=tuple[str, int])
            .with_outputs("failures", "ignored", main="candidates")
        )
        last_overlay = []
        if self._overlays:
            last_overlay = [AsSingleton(listed.candidates | "ChooseOverlays" >> _LastOverlay(self._overlays))]
        paired = (
            (listed.candidates, self._earlier.keyed)
            | "WithEarlierRun" >> beam.Flatten()
            | "JoinByKey" >> beam.GroupByKey()
            | "Pair"
            >> beam.ParDo(
                _PairDoFn(self._progress, self._planner, self._grouping), AsDict(self._earlier.tars), *last_overlay
            )
            .with_output_types(
                Located,
                records=PictureRecord,
                updates=Update,
                failures=Failure,
                stale=str,
                masks=tuple[int, ...],
                located=int,
                unpaired_truth=int,
            )
            .with_outputs("records", "updates", "failures", "stale", "masks", "located", "unpaired_truth", main="todo")
        )
        failures = (
            listed.failures | "PackListed" >> PackFailures(),
            paired.failures | "PackPaired" >> PackFailures(),
        ) | "LocateFailures" >> beam.Flatten()
        return Locations(
            paired.todo,
            paired.records,
            paired.updates,
            failures,
            paired.stale,
            paired.masks,
            paired.located,
            listed.ignored,
            paired.unpaired_truth,
        )


class _LastOverlay(beam.PTransform[Any, Any]):
    """The rank of the last picture that gets an overlay; it doesn't depend on the order of listing."""

    def __init__(self, overlays: int) -> None:
        super().__init__()
        self._overlays = overlays

    def expand(self, candidates: PCollection[tuple[str, _Candidate]]) -> PCollection[int]:
        last: PCollection[int] = (
            candidates
            | "Rank" >> beam.FlatMap(_overlay_ranks).with_output_types(int)
            | "First" >> beam.combiners.Top.Smallest(self._overlays)
            | "Last" >> beam.Map(lambda ranks: ranks[-1] if ranks else -1).with_output_types(int)
        )
        return last


def _overlay_ranks(keyed: tuple[str, _Candidate]) -> Iterator[int]:
    if keyed[1][0] == _PICTURE:
        yield overlay_rank(keyed[1][1])


def _pack_candidate(role: int, item: Listed) -> _Candidate:
    return role, item.image_id, coders.pack(item.file), coders.pack(item.truth), item.columns


def _unpack_candidate(candidate: _Candidate) -> Listed:
    _, image_id, file, truth, columns = candidate
    return Listed(image_id, coders.unpack(file, FileRef), truth and coders.unpack(truth, FileRef), columns)
