"""Failures in blocks, because there may be as many as there are pictures."""

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from pipeline.core.records import Failure, PictureRecord
from pipeline.output.failure_blocks import FAILURES_A_BLOCK, pack_failures


class _PackDoFn(beam.DoFn):
    """Packs a bundle's failures."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []

    def start_bundle(self) -> None:
        self._failures = []

    def process(self, failure: Failure) -> Iterator[bytes]:
        self._failures.append(failure)
        if len(self._failures) == FAILURES_A_BLOCK:
            yield pack_failures(self._failures)
            self._failures = []

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._failures:
            yield GlobalWindows.windowed_value(pack_failures(self._failures))


def truth_failures(record: PictureRecord) -> Iterator[Failure]:
    """The failure of a segmented picture's ground truth, if it could not be used."""
    if (failure := record.truth_failure) is not None:
        yield failure


class PackFailures(beam.PTransform[PCollection[Failure], PCollection[bytes]]):
    """Packs failures into blocks; applied where they occur, before a runner materializes them one by one."""

    def expand(self, failures: PCollection[Failure]) -> PCollection[bytes]:
        packed: PCollection[bytes] = failures | beam.ParDo(_PackDoFn()).with_output_types(bytes)
        return packed
