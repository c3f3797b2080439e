"""Removes what earlier runs left and this one does not keep: first approved by number, then deleted."""

import logging
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsIter, AsSingleton, PCollection

from pipeline.core.process import LOGGER
from pipeline.output.earlier_run import Marker, begin_writing
from pipeline.output.removal import MaskCounts, check_removal, removal_text
from pipeline.storage import filesystem

_LOGGER = logging.getLogger(LOGGER)


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


def _sum_counts(counts: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(MaskCounts.total(map(MaskCounts._make, counts)))
