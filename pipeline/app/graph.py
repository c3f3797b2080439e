"""The job's graph, one line per step."""

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam

from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, Located, Update
from pipeline.engines.backends import INT8
from pipeline.output.earlier_run import OVERWRITE, Marker
from pipeline.output.outputs import Destination
from pipeline.output.results import ResultsWriter
from pipeline.output.resume import ResumePlanner
from pipeline.progress.counts import ProgressReporter
from pipeline.sources.pairing import Grouping
from pipeline.sources.source import Source
from pipeline.transforms.begin_run import BeginRun, ReadEarlierRun
from pipeline.transforms.compare_precisions import ComparePrecisions
from pipeline.transforms.locate_pictures import LocatePictures
from pipeline.transforms.pack_failures import PackFailures, truth_failures
from pipeline.transforms.remove_stale import ApproveRemoval, Await, DeleteStale
from pipeline.transforms.repack_masks import DeleteOtherParts, RepackMasks
from pipeline.transforms.segment_images import EngineSettings, SegmentImages
from pipeline.transforms.update_pictures import UpdatePictures, inferred_again
from pipeline.transforms.write_results import EndRun, WriteFailures, WriteSummary, WriteTables


@dataclass(frozen=True)
class Job:
    """A checked job, from which the graph is built.

    Args:
        pictures: sources of pictures.
        truths: sources of masks, none or one for each of `pictures`.
        recipe: what determines the results.
        destination: where and what to write of each picture.
        engine: how a process runs the model.
        writer: where the results go.
        existing: `resume` or `overwrite`: what to do with an earlier run's results.
        retry_failed: whether to segment pictures again that failed before.
        prune: whether any number of masks of earlier runs may be removed.
        progress: where to report progress.
        grouping: how a picture's group is determined, None without groups.
        overlays: the number of pictures with an overlay.
    """

    pictures: Sequence[Source]
    truths: Sequence[Source]
    recipe: Recipe
    destination: Destination
    engine: EngineSettings
    writer: ResultsWriter
    existing: str
    retry_failed: bool
    prune: bool
    progress: ProgressReporter
    grouping: Grouping | None = None
    overlays: int = 0


def build(root: beam.Pipeline, job: Job) -> None:
    """Adds the whole job to a pipeline.

    Args:
        root: an empty pipeline.
        job: the job.
    """
    output = job.destination.root
    paths = root | "BeginRun" >> BeginRun(job.destination, job.existing)
    earlier = paths | "ReadEarlierRun" >> ReadEarlierRun()
    planner = ResumePlanner(job.recipe, job.destination, retry_failed=job.retry_failed)
    locations = root | "Locate" >> LocatePictures(
        job.pictures, job.truths, job.progress, earlier, planner, job.grouping, job.overlays
    )
    marker = Marker(job.recipe.inference_digest())
    may_remove = job.prune or job.existing == OVERWRITE
    approved = locations.masks | "Approve" >> ApproveRemoval(output, marker, may_remove=may_remove)
    todo = locations.todo | "AwaitToDo" >> Await(approved, Located)
    updates = locations.updates | "AwaitUpdates" >> Await(approved, Update)
    located = locations.located | "AwaitTables" >> Await(approved, int)
    updated = updates | "Update" >> UpdatePictures(job.recipe, job.destination, job.engine.processes, job.progress)
    todo = (todo, updated.todo) | "AllToDo" >> beam.Flatten()
    segmented = todo | "Segment" >> SegmentImages(job.engine, job.recipe, job.destination, job.progress)
    resumed = (locations.records, updated.records) | "Resumed" >> beam.Flatten()
    repacked = resumed | "RepackMasks" >> RepackMasks(job.destination, made=segmented.records)
    records = repacked.records
    failed = segmented.failures | "PackFailures" >> PackFailures()
    truth_failed = (
        records
        | "TruthFailures" >> beam.FlatMap(truth_failures).with_output_types(Failure)
        | "PackTruthFailures" >> PackFailures()
    )
    failures = (locations.failures, failed, truth_failed) | "AllFailures" >> beam.Flatten()

    shards = records | "WriteTables" >> WriteTables(job.writer, located)
    model = job.engine.model
    compared = None
    if model.precision == INT8:
        compared = todo | "ComparePrecisions" >> ComparePrecisions(model, job.recipe, output)
    written = failures | "WriteFailures" >> WriteFailures(job.writer)
    stale = (locations.stale, repacked.stale) | "Stale" >> beam.Flatten()
    deleted = stale | "DeleteStale" >> DeleteStale(output, after=shards)
    deleted_parts = records | "DeleteOtherParts" >> DeleteOtherParts(job.destination, after=shards)
    summary = records | "Summarise" >> WriteSummary(
        job.writer,
        failures=written,
        shards=shards,
        resumed=resumed,
        updated=updated.records,
        removed=approved,
        inferred_again=todo | "InferredAgain" >> beam.FlatMap(inferred_again).with_output_types(int),
        stale=(deleted, deleted_parts) | "Deleted" >> beam.Flatten(),
        ignored=locations.ignored,
        unpaired_truth=locations.unpaired_truth,
        seconds=(segmented.seconds, updated.seconds) | "Seconds" >> beam.Flatten(),
        grouped=job.grouping is not None,
        precision_cost=compared,
    )
    _ = summary | "EndRun" >> EndRun(job.destination)
