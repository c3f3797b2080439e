"""Writes a job's results besides masks: tables, failures, and last the summary."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsIter, AsSingleton, PCollection

from pipeline.core.records import PictureRecord
from pipeline.core.totals import Totals
from pipeline.output import tables
from pipeline.output.failure_blocks import unpack_failures
from pipeline.output.lease_renewal import release_lease
from pipeline.output.outputs import Destination
from pipeline.output.removal import MaskCounts
from pipeline.output.results import ResultsWriter, WrittenFailures
from pipeline.output.run_counts import (
    DELETED,
    IGNORED,
    INFERRED_AGAIN,
    RESUMED,
    SECONDS,
    UNPAIRED_TRUTH,
    UPDATED,
    CountKey,
)
from pipeline.sources.archives.spool import remove_spool
from pipeline.transforms import coders
from pipeline.transforms.sum_totals import SumGroups, SumTotalsFn

# Rows stay encoded until they are written, which takes a fifth of the memory of records.
_CODER = coders.PictureRecordCoder()
_NO_ROW = b""


def _write_shard(keyed: tuple[int, Iterable[bytes]], pictures: int, writer: ResultsWriter) -> str:
    shard, rows = keyed
    in_order = sorted((row for row in rows if row != _NO_ROW), key=lambda row: _CODER.decode(row).image_id)
    return writer.write_shard(shard, tables.shard_count(pictures), map(_CODER.decode, in_order))


def _keyed_by_shard(record: PictureRecord, pictures: int) -> tuple[int, bytes]:
    return tables.shard_of(record.image_id, tables.shard_count(pictures)), _CODER.encode(record)


def _empty_shards(_: None, pictures: int) -> Iterable[tuple[int, bytes]]:
    return ((shard, _NO_ROW) for shard in range(tables.shard_count(pictures)))


class WriteTables(beam.PTransform[Any, Any]):
    """Writes the pictures' rows as Parquet shards; emits the name of each.

    Args:
        writer: the output's.
        located: numbers of located pictures, whose sum determines the number of shards.
    """

    def __init__(self, writer: ResultsWriter, located: PCollection[Any]) -> None:
        super().__init__()
        self._writer = writer
        self._located = located

    def expand(self, records: PCollection[PictureRecord]) -> PCollection[str]:
        pictures = AsSingleton(self._located | "SumLocated" >> beam.CombineGlobally(sum))
        rows = records | "KeyByShard" >> beam.Map(_keyed_by_shard, pictures).with_output_types(tuple[int, bytes])
        # Every shard has an entry even without rows, so that the tables exist if all pictures failed.
        places = (
            records.pipeline
            | "Once" >> beam.Create([None])
            | "Places" >> beam.FlatMap(_empty_shards, pictures).with_output_types(tuple[int, bytes])
        )
        written: PCollection[str] = (
            (rows, places)
            | "RowsAndPlaces" >> beam.Flatten()
            | "GroupByShard" >> beam.GroupByKey()
            | "WriteShard" >> beam.Map(_write_shard, pictures, self._writer).with_output_types(str)
        )
        return written


class WriteFailures(beam.PTransform[Any, Any]):
    """Takes blocks of failures, writes `failures.jsonl` and emits their counts for the summary.

    Args:
        writer: the output's.
    """

    def __init__(self, writer: ResultsWriter) -> None:
        super().__init__()
        self._writer = writer

    def expand(self, blocks: PCollection[bytes]) -> PCollection[WrittenFailures]:
        writer = self._writer

        def write(_: None, everything: Iterable[bytes]) -> WrittenFailures:
            return writer.write_failures(unpack_failures(everything))

        written: PCollection[WrittenFailures] = (
            blocks.pipeline
            | "Once" >> beam.Create([None])
            | "WriteFailures" >> beam.Map(write, AsIter(blocks)).with_output_types(WrittenFailures)
        )
        return written


class WriteSummary(beam.PTransform[Any, Any]):
    """Sums the records and writes the summary after everything else is written.

    Args:
        writer: the output's.
        failures: what `WriteFailures` emits.
        shards: what `WriteTables` emits.
        resumed: the records among all whose inference is an earlier run's.
        updated: the records among `resumed` of which something was made or verified.
        inferred_again: a number for each picture that was inferred again for an output that needs it.
        removed: counts of the masks of earlier runs that were removed.
        stale: how many files were deleted that belong to no picture.
        ignored: (ending, number) pairs to be summed.
        unpaired_truth: counts to be summed.
        seconds: (stage, seconds) pairs to be summed.
        grouped: whether records are also summed by group.
        precision_cost: what `ComparePrecisions` emits, None where nothing was compared.
    """

    def __init__(
        self,
        writer: ResultsWriter,
        *,
        failures: PCollection[WrittenFailures],
        shards: PCollection[str],
        resumed: PCollection[PictureRecord],
        updated: PCollection[PictureRecord],
        inferred_again: PCollection[int],
        removed: PCollection[MaskCounts],
        stale: PCollection[int],
        ignored: PCollection[tuple[str, int]],
        unpaired_truth: PCollection[int],
        seconds: PCollection[tuple[str, float]],
        grouped: bool = False,
        precision_cost: PCollection[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self._writer = writer
        self._failures = failures
        self._shards = shards
        self._removed = removed
        self._records = {RESUMED: resumed, UPDATED: updated}
        self._numbers = {INFERRED_AGAIN: inferred_again, DELETED: stale, UNPAIRED_TRUTH: unpaired_truth}
        self._detailed = {IGNORED: ignored, SECONDS: seconds}
        self._grouped = grouped
        self._compared = {} if precision_cost is None else {"precision_cost": AsIter(precision_cost)}

    def expand(self, records: PCollection[PictureRecord]) -> PCollection[dict[str, Any]]:
        writer, num_classes = self._writer, self._writer.spec.num_classes
        totals = records | "SumTotals" >> beam.CombineGlobally(SumTotalsFn(num_classes)).with_output_types(Totals)
        groups: dict[str, Any] = {"groups": {}}
        if self._grouped:
            summed = records | "SumGroups" >> SumGroups(num_classes)
            groups = {"groups": AsDict(summed.totals), "group_count": AsSingleton(summed.group_count)}
        summary: PCollection[dict[str, Any]] = totals | "WriteSummary" >> beam.Map(
            writer.write_summary,
            AsSingleton(self._failures),
            AsIter(self._shards),
            removed=AsSingleton(self._removed),
            counts=AsDict(self._summed_counts()),
            **groups,
            **self._compared,
        )
        return summary

    def _summed_counts(self) -> PCollection[tuple[CountKey, float]]:
        """All counts by name in one sum, because each separate sum takes about ten steps of a runner."""
        keyed = [
            *(some | f"Count/{name}" >> beam.Map(_counted, name) for name, some in self._records.items()),
            *(some | f"Number/{name}" >> beam.Map(_named, name) for name, some in self._numbers.items()),
            *(some | f"Detail/{name}" >> beam.Map(_detailed, name) for name, some in self._detailed.items()),
        ]
        summed: PCollection[tuple[CountKey, float]] = (
            keyed | "AllCounts" >> beam.Flatten() | "SumCounts" >> beam.CombinePerKey(sum)
        )
        return summed


def _counted(_: PictureRecord, name: str) -> tuple[CountKey, float]:
    return (name, ""), 1


def _named(number: int, name: str) -> tuple[CountKey, float]:
    return (name, ""), number


def _detailed(counted: tuple[str, float], name: str) -> tuple[CountKey, float]:
    detail, number = counted
    return (name, detail), number


class EndRun(beam.PTransform[Any, Any]):
    """Removes the spool and releases the output; takes what `WriteSummary` emits.

    Args:
        destination: the job's.
    """

    def __init__(self, destination: Destination) -> None:
        super().__init__()
        self._output, self._holder = destination.root, destination.holder

    def expand(self, summary: PCollection[dict[str, Any]]) -> PCollection[None]:
        output, holder = self._output, self._holder

        def end_run(_: dict[str, Any]) -> None:
            remove_spool(output)
            if holder is not None:
                release_lease(output, holder)

        ended: PCollection[None] = summary | "EndRun" >> beam.Map(end_run)
        return ended
