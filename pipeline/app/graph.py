"""The job's graph: to be read like a table of contents."""

from collections.abc import Sequence
from dataclasses import dataclass

import apache_beam as beam

from pipeline.stages.pairing import Grouping
from pipeline.stages.results import ResultsWriter
from pipeline.stages.segment import SegmentSettings
from pipeline.stages.sources import Source
from pipeline.stages.tally import ProgressSender
from pipeline.transforms.locate import LocatePictures
from pipeline.transforms.segment import EngineSettings, SegmentImages
from pipeline.transforms.write import RemoveSpool, WriteFailures, WriteSummary, WriteTables


@dataclass(frozen=True)
class Job:
    """All that a job is, checked before the graph is built.

    Args:
        pictures: sources of pictures.
        truths: sources of masks, none or one for each of `pictures`.
        settings: what decides a picture's outcome.
        engine: how a process runs the model.
        writer: where the results go.
        progress: where to tell how far the job is.
        grouping: how a picture's group is found, None where there are no groups.
    """

    pictures: Sequence[Source]
    truths: Sequence[Source]
    settings: SegmentSettings
    engine: EngineSettings
    writer: ResultsWriter
    progress: ProgressSender
    grouping: Grouping | None = None


def build(root: beam.Pipeline, job: Job) -> None:
    """Adds the whole job to a pipeline.

    Args:
        root: an empty pipeline.
        job: what to do.
    """
    locations = root | "Locate" >> LocatePictures(job.pictures, job.truths, job.progress, job.grouping)
    segmented = locations.located | "Segment" >> SegmentImages(job.engine, job.settings, job.progress)
    failures = (locations.failures, segmented.failures) | "AllFailures" >> beam.Flatten()

    shards = segmented.records | "WriteTables" >> WriteTables(job.writer, locations.located)
    written = failures | "WriteFailures" >> WriteFailures(job.writer)
    summary = segmented.records | "Summarise" >> WriteSummary(
        job.writer,
        failures=written,
        shards=shards,
        ignored=locations.ignored,
        unpaired_truth=locations.unpaired_truth,
        seconds=segmented.seconds,
        grouped=job.grouping is not None,
    )
    _ = summary | "CleanUp" >> RemoveSpool(job.writer.output)
