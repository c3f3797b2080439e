"""Reads what an earlier run left: its journal and its masks, keyed as the pictures are."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsSingleton, PBegin, PCollection, TaggedOutput

from pipeline.core.process import LOGGER
from pipeline.output.earlier_run import (
    FoundFile,
    FoundPart,
    Marker,
    Recorded,
    Remains,
    begin,
    begin_writing,
    read_remains,
)
from pipeline.output.outputs import Destination
from pipeline.output.removal import MaskCounts, check_removal, removal_text
from pipeline.sources.source import pairing_key
from pipeline.storage import filesystem

RECORDED, FOUND_FILE = "recorded", "file"
_LOGGER = logging.getLogger(LOGGER)

# An entry of an earlier run as primitives: its kind, then the fields of `Recorded` or `FoundFile`.
Keyed = tuple[str, tuple[Any, ...]]


def _keyed(remains: Remains) -> Iterator[Any]:
    for found in read_remains(remains):
        if isinstance(found, FoundPart):
            yield TaggedOutput("parts", (found.name, (found.size_bytes, found.modified_ns)))
        elif isinstance(found, Recorded):
            yield pairing_key(found.image_id), (RECORDED, found.image_id, found.line, found.written_ns)
        else:
            yield pairing_key(found.image_id), (FOUND_FILE, *astuple(found))


class BeginRun(beam.PTransform[Any, Any]):
    """Acquires the output before any other step uses it; emits what an earlier run left.

    Args:
        destination: the job's.
        existing: `resume` or `overwrite`.
    """

    def __init__(self, destination: Destination, existing: str) -> None:
        super().__init__()
        self._output, self._holder = destination.root, destination.holder
        self._existing = existing

    def expand(self, pbegin: PBegin) -> PCollection[Remains]:
        output, existing, holder = self._output, self._existing, self._holder
        remains: PCollection[Remains] = (
            pbegin
            | "Once" >> beam.Create([None])
            | "Begin" >> beam.FlatMap(lambda _: begin(output, existing, holder)).with_output_types(Remains)
        )
        return remains


class ApproveRemoval(beam.PTransform[Any, Any]):
    """Takes the counts of masks to be removed and stops the job if they are too many; emits their sum.

    Nothing is written or deleted before it; the old summary is deleted first.

    Args:
        output: absolute folder or bucket prefix.
        marker: of this run.
        may_remove: whether any number may be removed.
    """

    def __init__(self, output: str, marker: Marker, *, may_remove: bool) -> None:
        super().__init__()
        self._output = output
        self._marker = marker
        self._may_remove = may_remove

    def expand(self, counts: PCollection[tuple[int, ...]]) -> PCollection[MaskCounts]:
        output, marker, may_remove = self._output, self._marker, self._may_remove

        def approve(summed: tuple[int, ...]) -> MaskCounts:
            total = MaskCounts(*summed)
            check_removal(output, total, may_remove=may_remove)
            if total.removed:
                _LOGGER.warning("removing %s", removal_text(total))
            begin_writing(output, marker)
            return total

        approved: PCollection[MaskCounts] = (
            counts
            | "SumMasks" >> beam.CombineGlobally(_sum_counts).with_output_types(tuple[int, ...])
            | "Approve" >> beam.Map(approve)
        )
        return approved


class Await(beam.PTransform[Any, Any]):
    """Emits its elements after another collection is computed.

    Args:
        first: a collection of one element.
        element_type: of the elements.
    """

    def __init__(self, first: PCollection[Any], element_type: type) -> None:
        super().__init__()
        self._first = first
        self._element_type = element_type

    def expand(self, elements: PCollection[Any]) -> PCollection[Any]:
        passed = beam.Map(lambda element, _: element, AsSingleton(self._first))
        awaited: PCollection[Any] = elements | "Pass" >> passed.with_output_types(self._element_type)
        return awaited


def _sum_counts(counts: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(MaskCounts.total(map(MaskCounts._make, counts)))


class EarlierRun(NamedTuple):
    """What an earlier run left.

    Args:
        keyed: its outcomes and files under their pictures' pairing keys.
        parts: name, size and time of writing of each of its tar files of masks.
    """

    keyed: PCollection[Keyed]
    parts: PCollection[tuple[str, tuple[int, int]]]


class ReadRemains(beam.PTransform[Any, Any]):
    """Reads what an earlier run recorded and lists what it wrote."""

    def expand(self, remains: PCollection[Remains]) -> EarlierRun:
        read = (
            remains
            | "SpreadRemains" >> beam.Reshuffle()
            | "ReadRemains"
            >> beam.FlatMap(_keyed)
            .with_output_types(tuple[str, tuple[Any, ...]], parts=tuple[str, tuple[int, int]])
            .with_outputs("parts", main="keyed")
        )
        return EarlierRun(read.keyed, read.parts)


class DeleteStale(beam.PTransform[Any, Any]):
    """Deletes output files that belong to no picture, after everything else is written; emits how many.

    Args:
        output: absolute folder or bucket prefix.
        after: results that must be written before.
    """

    def __init__(self, output: str, after: PCollection[Any]) -> None:
        super().__init__()
        self._output = output
        self._after = after

    def expand(self, stale: PCollection[str]) -> PCollection[int]:
        output = self._output

        def delete(name: str, _: Any) -> int:
            filesystem.delete_with_empty_folders(filesystem.join(output, name), output)
            return 1

        deleted: PCollection[int] = (
            stale
            | "Delete" >> beam.Map(delete, AsIter(self._after)).with_output_types(int)
            | "CountDeleted" >> beam.CombineGlobally(sum)
        )
        return deleted


def unpack_remains(value: tuple[Any, ...]) -> Recorded | FoundFile:
    """An entry that `ReadRemains` emitted."""
    return Recorded(*value[1:]) if value[0] == RECORDED else FoundFile(*value[1:])
