"""Summing records: one CombineFn over the exact totals."""

import apache_beam as beam

from pipeline.core.records import PictureRecord
from pipeline.core.totals import Totals


class SumTotalsFn(beam.CombineFn):
    """Adds pictures up; any split and merge gives the same totals.

    Args:
        num_classes: the model's.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes

    def create_accumulator(self) -> Totals:
        return Totals(self._num_classes)

    def add_input(self, accumulator: Totals, record: PictureRecord) -> Totals:
        return accumulator.add(record)

    def merge_accumulators(self, accumulators: list[Totals]) -> Totals:
        merged = Totals(self._num_classes)
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Totals) -> Totals:
        return accumulator
