"""Writes a job's results besides the files of pictures: tables, failures, the report and last the summary."""

import io
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.core.errors import TRUTH_STAGE, StorageError
from pipeline.core.groups import groups_note
from pipeline.core.layout import (
    FAILURES_FILE,
    JOURNAL_FOLDER,
    REPORT_FILE,
    SUMMARY_FILE,
    SUMMARY_TABLE_FILE,
    TABLES_FOLDER,
    shard_name,
)
from pipeline.core.measures.confusion import CONFUSION
from pipeline.core.records import Failure, PictureRecord
from pipeline.core.spec import ModelSpec
from pipeline.core.split_digests import TRAIN, VALIDATION
from pipeline.core.statistics import statistics
from pipeline.core.totals import Totals
from pipeline.output import journal, tables
from pipeline.output.journal_format import GzipMember, entry_line
from pipeline.output.lease_renewal import check_lease
from pipeline.output.outputs import Destination
from pipeline.output.removal import MaskCounts
from pipeline.output.run_counts import CountKey, RunCounts
from pipeline.output.summary_csv import summary_csv
from pipeline.report.page import report_html
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as

SUMMARY_SCHEMA_VERSION = 1
STATUS_DONE = "done"
STATUS_TOO_MANY_FAILURES = "too_many_failures"
STATUS_NO_TRUTH = "no_ground_truth"
_MAX_FAILURES_IN_REPORT = 100
_FAILURES_PART = f"failures{journal.PART_SUFFIX}"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Properties of a run that the launcher knows before its start.

    Args:
        started_s: seconds since the epoch.
        options: maskbeam's own options and the runner's name, no secrets.
        versions: of maskbeam and the libraries that make results.
        max_failure_ratio: the share of failures above which the job counts as failed.
        wants_truth: whether the job also counts as failed if pictures were segmented and none was scored.
        inference: the mode, overlap of tiles and augmentation that are used.
    """

    started_s: float
    options: dict[str, Any]
    versions: dict[str, str]
    max_failure_ratio: float
    wants_truth: bool = False
    inference: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WrittenFailures:
    """The properties of the written failures that the summary and the report show.

    Args:
        count: number of pictures that could not be segmented, and of faults of sources of pictures.
        first: the first hundred, sorted by id.
        by_type: number of each `error_type`, including those of ground truths.
        truth_count: number of ground truths that could not be used, and of faults of their sources.
    """

    count: int
    first: tuple[Failure, ...]
    by_type: dict[str, int] = field(default_factory=dict)
    truth_count: int = 0


@dataclass(frozen=True, slots=True)
class ResultsWriter:
    """Writes the results of one output; small, because it is sent to the workers.

    Args:
        destination: where to write.
        spec: the model's.
        model_name: as the user named it.
        model_digest: SHA-256 of the model file.
        run: properties of the run.
    """

    destination: Destination
    spec: ModelSpec
    model_name: str
    model_digest: str
    run: RunInfo

    @property
    def output(self) -> str:
        """The job's absolute folder or bucket prefix."""
        return self.destination.root

    def write_shard(self, shard: int, shards: int, records: Iterable[PictureRecord]) -> str:
        """Writes one Parquet file of rows of pictures, which are in order of their ids; returns its name."""
        check_lease(self.destination)
        name = shard_name(shard, shards)
        member = GzipMember()
        self._write(name, tables.pictures_parquet(member.recording(records), self.spec.class_names, self.model_digest))
        journal.write_part(self.output, _journal_part(name), member.finish())
        return name

    def write_failures(self, failures: Iterable[Failure]) -> WrittenFailures:
        """Writes sorted failures to `failures.jsonl`; the file is empty if there are none."""
        first: list[Failure] = []
        by_type: Counter[str] = Counter()
        truth_count = 0
        member = GzipMember()

        def counted() -> Iterator[Failure]:
            nonlocal truth_count
            for failure in failures:
                truth_count += failure.stage == TRUTH_STAGE
                by_type[failure.error_type] += 1
                if len(first) < _MAX_FAILURES_IN_REPORT:
                    first.append(failure)
                if failure.fingerprint:
                    member.add(entry_line(failure))
                yield failure

        self._write(FAILURES_FILE, tables.failures_jsonl(counted()))
        journal.write_part(self.output, _FAILURES_PART, member.finish())
        return WrittenFailures(by_type.total() - truth_count, tuple(first), dict(sorted(by_type.items())), truth_count)

    def write_summary(
        self,
        totals: Totals,
        failures: WrittenFailures,
        shards: Iterable[str],
        *,
        removed: MaskCounts,
        counts: Mapping[CountKey, float],
        groups: Mapping[str, Totals],
        group_count: int = 0,
        precision_cost: Iterable[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """Writes `summary.csv`, `report.html` and last `summary.json`, which marks the end of a job.

        Args:
            totals: the sums over all pictures.
            failures: properties of the written failures.
            shards: the Parquet files that were written; other ones in their folder are deleted.
            removed: counts of the masks of earlier runs that were removed.
            counts: all other counts.
            groups: the sums of each group; empty if groups were not requested or are too many.
            group_count: the number of groups.
            precision_cost: the cost of int8 if it was measured; one or none.

        Returns:
            The summary.

        Raises:
            StorageError: the output can't be written.
        """
        check_lease(self.destination)
        names = set(shards)
        self._delete_stale_parts(names)
        summary = self._summary(totals, failures, removed, RunCounts.of(counts), groups)
        note = groups_note(group_count, self.spec.num_classes)
        if note:
            summary["groups_note"] = note
        for cost in precision_cost:
            summary["run"]["precision_cost"] = dict(cost)
        self._write(SUMMARY_TABLE_FILE, summary_csv(summary).encode())
        self._write(REPORT_FILE, report_html(summary, failures.first).encode())
        self._write(SUMMARY_FILE, _json_bytes(summary))
        return summary

    def _summary(
        self,
        totals: Totals,
        failures: WrittenFailures,
        removed: MaskCounts,
        counts: RunCounts,
        groups: Mapping[str, Totals],
    ) -> dict[str, Any]:
        found = totals.pictures + failures.count
        all_failures = failures.count + failures.truth_count
        status = STATUS_DONE
        if all_failures > 0 and all_failures / max(1, found) > self.run.max_failure_ratio:
            status = STATUS_TOO_MANY_FAILURES
        elif self.run.wants_truth and totals.pictures and not totals.pictures_with(CONFUSION):
            status = STATUS_NO_TRUTH
        finished_s = time.time()
        return {
            "schema_version": SUMMARY_SCHEMA_VERSION,
            "run": {
                "status": status,
                "started": _iso(self.run.started_s),
                "finished": _iso(finished_s),
                "seconds": round(finished_s - self.run.started_s, 3),
                "resumed": counts.resumed,
                "updated": counts.updated,
                "inferred_again": counts.inferred_again,
                "removed_masks": removed.removed,
                "model": {"name": self.model_name, "digest": self.model_digest},
                "options": self.run.options,
                "inference": self.run.inference,
                "versions": self.run.versions,
                "stages": {stage: round(value, 3) for stage, value in counts.seconds.items()},
                "failures_by_type": failures.by_type,
            },
            "images": {
                "found": found,
                "segmented": totals.pictures,
                "failed": failures.count,
                "truth_failed": failures.truth_count,
                "ignored": sum(counts.ignored.values()),
                "ignored_by_ending": counts.ignored,
                "with_ground_truth": totals.pictures_with(CONFUSION),
                "unpaired_truth": counts.unpaired_truth,
                "unused": dict(sorted(totals.unused.items())),
                "trained_on": totals.pictures_in(TRAIN),
                "validated_on": totals.pictures_in(VALIDATION),
            },
            **statistics(totals, self.spec.classes),
            "groups": {
                name: {"images": {"segmented": part.pictures, "with_ground_truth": part.pictures_with(CONFUSION)}}
                | statistics(part, self.spec.classes)
                for name, part in sorted(groups.items())
            },
        }

    def _delete_stale_parts(self, shards: set[str]) -> None:
        """Deletes tables of another number of shards, and the parts of the journal that the new ones replace."""
        parts = {_journal_part(shard) for shard in shards} | {_FAILURES_PART}
        for folder, ending, written in (
            (TABLES_FOLDER, ".parquet", {filesystem.base_name(shard) for shard in shards}),
            (JOURNAL_FOLDER, journal.PART_SUFFIX, parts),
        ):
            for stored in filesystem.list_files(filesystem.join(self.output, folder)):
                if stored.uri.endswith(ending) and filesystem.base_name(stored.uri) not in written:
                    filesystem.delete(stored.uri)

    def _write(self, name: str, data: bytes) -> None:
        with os_errors_as(StorageError, f"the output can't be written: {name}"):
            filesystem.write_bytes(filesystem.join(self.output, name), data, filesystem.scratch_of(self.output))


def _json_bytes(content: dict[str, Any]) -> bytes:
    """Indented JSON. With many groups it has millions of lines, so they are encoded one by one."""
    text = io.BytesIO()
    for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(content):
        text.write(part.encode())
    text.write(b"\n")
    return text.getvalue()


def _journal_part(shard: str) -> str:
    """The part of the journal that belongs to a shard of the tables."""
    return f"{filesystem.base_name(shard).removesuffix('.parquet')}{journal.PART_SUFFIX}"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
