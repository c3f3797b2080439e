"""Sums records: one CombineFn over the exact totals, for the whole job and for each group."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import AsSingleton, PCollection
from apache_beam.transforms.combiners import Count

from pipeline.core.groups import FEW_GROUPS, MANY_GROUPS, group_detail
from pipeline.core.measures.measure import WHOLE_JOB, Detail
from pipeline.core.records import PictureRecord
from pipeline.core.totals import Totals


class SumTotalsFn(beam.CombineFn):
    """Sums pictures; any split and merge gives the same totals.

    Args:
        num_classes: the model's.
        detail: how much detail the totals keep.
    """

    def __init__(self, num_classes: int, detail: Detail = WHOLE_JOB) -> None:
        self._num_classes = num_classes
        self._detail = detail

    def create_accumulator(self) -> Totals:
        return Totals(self._num_classes, self._detail)

    def add_input(self, accumulator: Totals, record: PictureRecord) -> Totals:
        return accumulator.add(record)

    def merge_accumulators(self, accumulators: Iterable[Totals]) -> Totals:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Totals) -> Totals:
        return accumulator


class GroupSums(NamedTuple):
    """The outputs of `SumGroups`.

    Args:
        group_count: int, how many groups there are.
        totals: (group, `Totals`); empty if there are too many groups.
    """

    group_count: PCollection[int]
    totals: PCollection[tuple[str, Totals]]


class SumGroups(beam.PTransform[Any, Any]):
    """Sums records by their group, in as much detail as the number of groups allows.

    The groups are counted first, so that the detail depends only on the records.

    Args:
        num_classes: the model's.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self._num_classes = num_classes

    def expand(self, records: PCollection[PictureRecord]) -> GroupSums:
        count = (
            records
            | "Names" >> beam.Map(lambda record: record.group).with_output_types(str)
            | "DistinctNames" >> beam.Distinct()
            | "CountGroups" >> Count.Globally()
        )
        totals = (
            records
            | f"KeyBy/{name}"
            >> beam.FlatMap(_keyed, AsSingleton(count), self._num_classes, detail).with_output_types(
                tuple[str, PictureRecord]
            )
            | f"Sum/{name}" >> beam.CombinePerKey(SumTotalsFn(self._num_classes, detail))
            for name, detail in (("few", FEW_GROUPS), ("many", MANY_GROUPS))
        )
        return GroupSums(count, tuple(totals) | "FewOrMany" >> beam.Flatten())


def _keyed(record: PictureRecord, groups: int, num_classes: int, detail: Detail) -> Iterable[tuple[str, PictureRecord]]:
    """The record keyed by its group, if the number of groups selects this detail."""
    if group_detail(groups, num_classes) == detail:
        yield record.group, record
