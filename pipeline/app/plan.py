"""`--plan`: counts, segments a sample and estimates the whole job; nothing is written to the output."""

import heapq
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.app.prepared import Prepared
from pipeline.core.errors import TRUTH_STAGE, StorageError
from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.records import Failure, FileRef, Located
from pipeline.core.wording import bytes_text, duration_text, rate_text
from pipeline.engines.load import load_engine, usable_cores
from pipeline.segmenting.segmenter import Segmenter
from pipeline.segmenting.stage_threads import Done, StageThreads
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Listed, Source
from pipeline.storage.filesystem import join, list_files
from pipeline.storage.os_errors import os_errors_as

SAMPLE_PICTURES = 256
SAMPLE_S = 20.0
START_S = 5.0
"""Start of a local job before its first picture: imports, the graph, the model. Measured: 2 to 5 s."""
CLUSTER_START_S = 300.0
"""Start of a cluster before the first picture: machines and images. An assumption."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The estimate of a job.

    Args:
        pictures: number of pictures in the sources.
        ignored: files that are not pictures.
        source_bytes: size of all pictures' files; those of unknown size are left out.
        listing_s: seconds that the listing took.
        sampled: pictures that were segmented.
        sample_failed: how many of them failed.
        sample_s: seconds for the sample on this machine with all its cores.
        cores: the number of these cores.
        mask_bytes: mean size of a mask.
    """

    pictures: int
    ignored: int
    source_bytes: int
    listing_s: float
    sampled: int
    sample_failed: int
    sample_s: float
    cores: int
    mask_bytes: float

    @property
    def rate(self) -> float:
        """Pictures per second on this machine."""
        return self.sampled / self.sample_s if self.sample_s else 0.0

    def seconds(self, workers: int | None = None) -> float:
        """The whole job's seconds on this machine, or on several workers like it.

        Args:
            workers: machines like this one; None for this one alone.
        """
        start = START_S if workers is None else CLUSTER_START_S
        return start + self.listing_s + self.pictures / (self.rate * (workers or 1)) if self.rate else float("inf")


def make_plan(job: Prepared, batch_size: int) -> Plan:
    """Lists the sources and segments a sample of them, as the job would.

    Args:
        job: the checked job; nothing is written to its output.
        batch_size: windows per batch of the engine, at least 1.

    Returns:
        The plan.

    Raises:
        EngineError: the engine can't run.
        StorageError: a source can't be listed.
    """
    with tempfile.TemporaryDirectory(prefix="maskbeam-plan-") as folder:
        return _make_plan(_moved(job, folder), batch_size)


def _moved(job: Prepared, folder: str) -> Prepared:
    """A job that writes separate masks to another folder."""
    spool = join(folder, SPOOL_FOLDER)
    return replace(
        job,
        destination=replace(job.destination, root=folder, packs_masks=False),
        pictures=[replace(source, spool=spool) for source in job.pictures],
        truths=[replace(source, spool=spool) for source in job.truths],
    )


def _make_plan(job: Prepared, batch_size: int) -> Plan:
    start = time.perf_counter()
    # The pictures with the lowest checksums of their ids: a reproducible sample from the whole archive.
    sample: list[tuple[int, int, Listed]] = []
    count = ignored = source_bytes = 0
    for item in _items(job.pictures):
        if isinstance(item, Ignored):
            ignored += item.files
            continue
        if isinstance(item, Failure) and item.stage == TRUTH_STAGE:
            continue  # the picture itself is listed
        count += 1
        if isinstance(item, Listed):
            source_bytes += max(0, item.file.size_bytes)
            entry = (-zlib.crc32(item.image_id.encode("utf-8", "replace")), -count, item)
            push = heapq.heappush if len(sample) < SAMPLE_PICTURES else heapq.heappushpop
            push(sample, entry)
    masks = _masks_of([listed for _, _, listed in sample], job.truths)
    listing_s = time.perf_counter() - start
    located = [
        Located(listed.image_id, listed.file, masks.get(listed.pairing_key, listed.truth)) for _, _, listed in sample
    ]
    cores = usable_cores()
    segmenter = Segmenter(job.recipe, job.destination, load_engine(job.model, cores), engine_batch=batch_size)
    threads = StageThreads(segmenter, cores)
    try:
        sampled, failed, mask_bytes, sample_s = _segment(threads, located, batch_size, cores, job.destination.root)
    finally:
        threads.shutdown()
    return Plan(count, ignored, source_bytes, listing_s, sampled, failed, sample_s, cores, mask_bytes)


def _items(sources: Iterable[Source]) -> Iterator[Listed | Ignored | Failure]:
    for source in sources:
        with os_errors_as(StorageError, f"{source.uri} can't be listed"):
            yield from source.items()


def _masks_of(sample: Sequence[Listed], truths: Sequence[Source]) -> dict[str, FileRef]:
    wanted = {listed.pairing_key for listed in sample}
    masks: dict[str, FileRef] = {}
    for item in _items(truths):
        if isinstance(item, Listed) and item.pairing_key in wanted:
            masks[item.pairing_key] = item.truth or item.file
    return masks


def _segment(
    threads: StageThreads,
    located: Sequence[Located],
    batch_size: int,
    cores: int,
    folder: str,
) -> tuple[int, int, float, float]:
    """Segments pictures until the sample or its time is used up; a first round warms up and is not measured."""
    warm_up = threads.stream(batch_size)
    for picture in located[: cores * batch_size]:
        list(warm_up.add(picture))
    list(warm_up.finish())
    stream = threads.stream(batch_size)
    batches: list[Done] = []
    start = time.perf_counter()
    for picture in located:
        batches.extend(stream.add(picture))
        if time.perf_counter() - start > SAMPLE_S:
            break
    batches.extend(stream.finish())
    seconds = time.perf_counter() - start
    outcomes = [outcome for done, _ in batches for outcome in done]
    failed = sum(isinstance(outcome, Failure) for outcome in outcomes)
    sizes = [file.size_bytes for file in list_files(folder) if file.uri.endswith(".png")]
    return len(outcomes), failed, sum(sizes) / len(sizes) if sizes else 0.0, seconds


def plan_text(plan: Plan, workers: int | None, price_per_hour: float | None) -> str:
    """The plan for a person.

    Args:
        plan: what `make_plan` gives.
        workers: machines like this one, None to leave them out.
        price_per_hour: the price of one such machine, in any currency; None to leave the cost out.

    Returns:
        A few lines.
    """
    lines = [
        f"{plan.pictures:,} pictures, {bytes_text(plan.source_bytes)}; {plan.ignored:,} other files are ignored"
        f" (listed in {duration_text(plan.listing_s)})",
        f"Sample: {plan.sampled} pictures at {rate_text(plan.rate)} pictures/s on {plan.cores} cores,"
        f" {plan.sample_failed} of them failed",
        f"Masks: about {bytes_text(plan.mask_bytes * plan.pictures)}",
        f"This machine: {duration_text(plan.seconds())}",
    ]
    if workers is not None:
        hours = plan.seconds(workers) * workers / 3600
        cost = "" if price_per_hour is None else f", {hours * price_per_hour:,.2f} at {price_per_hour:g} an hour each"
        lines.append(f"{workers} workers: {duration_text(plan.seconds(workers))}, {hours:,.1f} machine hours{cost}")
    lines.append(
        "Assumed: the sample is typical; workers are like this machine, read as fast, and share the work evenly;"
        f" {duration_text(START_S)} to start here, {duration_text(CLUSTER_START_S)} on a cluster."
    )
    return "\n".join(lines)
