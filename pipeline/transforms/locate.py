"""From sources to located pictures, each joined to its mask by key. Only names cross the shuffle."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection, TaggedOutput

from pipeline.core.records import Failure, FileRef, Located
from pipeline.stages.pairing import Grouping, pair
from pipeline.stages.sources import Ignored, Listed, Source, list_source
from pipeline.stages.tally import ProgressSender
from pipeline.transforms import coders

# A candidate of the join as primitives: is it a picture or a mask, its id, its file, a manifest's mask and columns.
_Candidate = tuple[Any, ...]
_PICTURE, _TRUTH = 0, 1


class Locations(NamedTuple):
    """What locating gives.

    Args:
        located: `Located`, the pictures to do.
        failures: `Failure`, the pictures that can't be named, told apart or paired.
        ignored: int, files that are no pictures.
        unpaired_truth: int, masks that no picture claims.
    """

    located: PCollection[Located]
    failures: PCollection[Failure]
    ignored: PCollection[int]
    unpaired_truth: PCollection[int]


def _candidates(element: tuple[int, Source]) -> Iterator[Any]:
    """Lists one source: its files as candidates under their pairing key, the rest under its tag."""
    role, source = element
    for item in list_source(source):
        if isinstance(item, Listed):
            yield item.pairing_key, _pack_candidate(role, item)
        elif role == _PICTURE:
            tag, value = ("ignored", item.files) if isinstance(item, Ignored) else ("failures", item)
            yield TaggedOutput(tag, value)


class _PairDoFn(beam.DoFn):
    """Joins the candidates of one key."""

    def __init__(self, progress: ProgressSender, grouping: Grouping | None) -> None:
        self._progress = progress
        self._grouping = grouping

    def process(self, element: tuple[str, Iterable[_Candidate]]) -> Iterator[Any]:
        pictures, truths = [], []
        for candidate in element[1]:
            listed = _unpack_candidate(candidate)
            if candidate[0] == _PICTURE:
                pictures.append(listed)
            else:
                truths.append(listed.truth or listed.file)
        paired = pair(pictures, truths, self._grouping)
        self._progress.located(len(paired.located))
        yield from paired.located
        for failure in paired.failures:
            yield TaggedOutput("failures", failure)
        if paired.unpaired_truth:
            yield TaggedOutput("unpaired_truth", paired.unpaired_truth)

    def finish_bundle(self) -> None:
        self._progress.flush()


class LocatePictures(beam.PTransform[Any, Any]):
    """Lists pictures and masks and joins them.

    Args:
        pictures: parsed sources of pictures.
        truths: parsed sources of masks, in the order of `pictures`, or none.
        progress: where to tell how many were found.
        grouping: how a picture's group is found, None where there are no groups.
    """

    def __init__(
        self,
        pictures: Sequence[Source],
        truths: Sequence[Source],
        progress: ProgressSender,
        grouping: Grouping | None = None,
    ) -> None:
        super().__init__()
        self._sources = [(_PICTURE, source) for source in pictures] + [(_TRUTH, source) for source in truths]
        self._progress = progress
        self._grouping = grouping

    def expand(self, pbegin: PBegin) -> Locations:
        listed = (
            pbegin
            | "Sources" >> beam.Create(self._sources, reshuffle=False)
            | "SpreadSources" >> beam.Reshuffle()
            | "List"
            >> beam.FlatMap(_candidates)
            .with_outputs("failures", "ignored", main="candidates")
            .with_output_types(tuple[str, tuple[Any, ...]])
        )
        paired = (
            listed.candidates
            | "JoinByKey" >> beam.GroupByKey()
            | "Pair"
            >> beam.ParDo(_PairDoFn(self._progress, self._grouping))
            .with_outputs("failures", "unpaired_truth", main="located")
            .with_output_types(Located)
        )
        failures = (listed.failures, paired.failures) | "LocateFailures" >> beam.Flatten()
        return Locations(paired.located, failures, listed.ignored, paired.unpaired_truth)


def _pack_candidate(role: int, item: Listed) -> _Candidate:
    return role, item.image_id, coders.pack(item.file), coders.pack(item.truth), item.columns


def _unpack_candidate(candidate: _Candidate) -> Listed:
    _, image_id, file, truth, columns = candidate
    return Listed(image_id, coders.unpack(file, FileRef), truth and coders.unpack(truth, FileRef), columns)
