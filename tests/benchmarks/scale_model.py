"""What a million, a hundred million and a thousand million pictures take, from costs measured on a few hundred.

    python tests/benchmarks/scale_model.py --images FOLDER --masks FOLDER --model MODEL [--hours 8] [--json FILE]

Runs the job on the first third and on all of the pictures in this process, four times each, and takes the difference
of the quickest, so that what a run costs once is left out; then once more over its own results, for what a resume
shuffles. pipeline/docs/scale.md explains the tables, and cites what isn't measured: the limits of Cloud Storage and of
Dataflow.
"""

import argparse
import contextlib
import io
import json
import math
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shuffled import Shuffle, measured_shuffles

from pipeline.app.launcher import main as run_job
from pipeline.core.model_input import model_input
from pipeline.engines.base import input_batch
from pipeline.engines.load import load_engine
from pipeline.engines.model_folder import open_model
from pipeline.output.tables import PICTURES_A_SHARD
from pipeline.storage.filesystem import list_files

SIZES = (10**6, 10**8, 10**9)
CORES_A_WORKER = 4
# https://cloud.google.com/storage/docs/request-rate: what a bucket takes at once; the rate may double every 20 minutes.
WRITES_A_SECOND, READS_A_SECOND, DOUBLING_MINUTES = 1_000, 5_000, 20
# https://cloud.google.com/storage/docs/json_api/v1/objects/list: names a request.
NAMES_A_PAGE = 1_000
# https://cloud.google.com/dataflow/quotas: machines of one batch job.
MAX_WORKERS = 4_000


@dataclass(frozen=True)
class Costs:
    """What one picture costs, and what is left of a run besides.

    Args:
        pictures: how many the means are over.
        infer_ms: CPU time of the engine.
        other_ms: CPU time of all else: read, decode, resize, mask, PNG, write, Beam, tables, sums.
        listing_us: CPU time to list one local file.
        source_bytes: size of a picture's file.
        mask_bytes: size of a mask.
        parquet_bytes: a row's share of its shard.
        location_bytes: what crosses the join for a picture with its mask.
        resume_bytes: what crosses it besides for a picture that an earlier run did.
        row_bytes: what crosses to the tables.
        sums_bytes: what one bundle sends to the sums, whatever it holds.
    """

    pictures: int
    infer_ms: float
    other_ms: float
    listing_us: float
    source_bytes: float
    mask_bytes: float
    parquet_bytes: float
    location_bytes: float
    resume_bytes: float
    row_bytes: float
    sums_bytes: float


@dataclass(frozen=True)
class Projection:
    """What so many pictures take.

    Args:
        pictures: how many.
        core_hours: CPU time.
        workers: machines of four cores that are done in the given hours.
        hours: what they need, without their start.
        pictures_a_second: at that rate.
        ramp_minutes: until a bucket that is new to it takes so many writes.
        list_requests: pages, one after the other for each source.
        read_requests: pictures and masks.
        write_requests: masks and shards.
        shuffled_gb: all groupings together.
        mask_gb: masks written.
        shards: Parquet files.
        failures_gb: lines of failures that one process puts together, if one picture in a hundred fails.
    """

    pictures: int
    core_hours: float
    workers: int
    hours: float
    pictures_a_second: float
    ramp_minutes: float
    list_requests: int
    read_requests: int
    write_requests: int
    shuffled_gb: float
    mask_gb: float
    shards: int
    failures_gb: float


_FAILURE_BYTES = 300
_REPEATS = 4
_FAILING = 0.01


def project(costs: Costs, pictures: int, hours: float) -> Projection:
    """Takes the costs of one picture to many.

    Args:
        costs: as measured, with ground truth.
        pictures: how many.
        hours: how long it may take.

    Returns:
        The projection; the machines are bounded by what one job may have, and then it takes longer.
    """
    core_s = pictures * (costs.infer_ms + costs.other_ms) / 1e3
    workers = min(MAX_WORKERS, max(1, math.ceil(core_s / (hours * 3600 * CORES_A_WORKER))))
    needed_s = core_s / (workers * CORES_A_WORKER)
    rate = pictures / needed_s
    pages = 2 * math.ceil(pictures / NAMES_A_PAGE)
    shards = math.ceil(pictures / PICTURES_A_SHARD)
    return Projection(
        pictures=pictures,
        core_hours=core_s / 3600,
        workers=workers,
        hours=needed_s / 3600,
        pictures_a_second=rate,
        ramp_minutes=DOUBLING_MINUTES
        * max(0.0, math.log2(max(rate / WRITES_A_SECOND, 2 * rate / READS_A_SECOND, 1.0))),
        list_requests=pages,
        read_requests=2 * pictures,
        write_requests=pictures + shards,
        shuffled_gb=pictures * (costs.location_bytes + costs.row_bytes) / 1e9,
        mask_gb=pictures * costs.mask_bytes / 1e9,
        shards=shards,
        failures_gb=pictures * _FAILING * _FAILURE_BYTES / 1e9,
    )


def measure(images: Path, masks: Path, model: str) -> Costs:
    """Runs the job and counts.

    Args:
        images: a folder of pictures, a few hundred at least.
        masks: their masks.
        model: a model folder or a carried model's name.

    Returns:
        The costs of one picture.
    """
    files = sorted(path for path in images.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        part = folder / "part"
        for path in files[: len(files) // 3]:
            target = part / path.relative_to(images)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(path, target)
        _run(part, masks, model, folder / "warm")  # imports, and the libraries' first calls
        few_s, many_s = math.inf, math.inf
        # In turn, and the least of each: whatever else the machine does only adds.
        for index in range(_REPEATS):
            few_s = min(few_s, _run(part, masks, model, folder / f"few{index}")[0])
            if index:
                shutil.rmtree(folder / "many")
            took_s, shuffles = _run(images, masks, model, folder / "many")
            many_s = min(many_s, took_s)
        _, again = _run(images, masks, model, folder / "many")
        begin = time.process_time()
        listed = sum(1 for _ in list_files(str(images)))
        listing_s = time.process_time() - begin
        written = [path.stat().st_size for path in (folder / "many/masks").rglob("*.png")]
        tables = sum(path.stat().st_size for path in (folder / "many/images").glob("*.parquet"))
    count = len(files)
    infer_ms = _engine_ms(model)
    all_ms = (many_s - few_s) * 1e3 / (count - count // 3)
    join = shuffles["Locate/JoinByKey"].total_bytes
    return Costs(
        pictures=count,
        infer_ms=infer_ms,
        other_ms=all_ms - infer_ms,
        listing_us=listing_s * 1e6 / listed,
        source_bytes=float(np.mean([path.stat().st_size for path in files])),
        mask_bytes=float(np.mean(written)),
        parquet_bytes=tables / count,
        location_bytes=join / count,
        resume_bytes=(again["Locate/JoinByKey"].total_bytes - join) / count,
        row_bytes=shuffles["WriteTables/GroupByShard"].total_bytes / count,
        sums_bytes=float(sum(shuffle.largest_bytes for name, shuffle in shuffles.items() if "Sum" in name)),
    )


def _run(images: Path, masks: Path, model: str, output: Path) -> tuple[float, dict[str, Shuffle]]:
    """One run: its CPU seconds in this process, and its shuffles."""
    before = _cpu_s()
    with measured_shuffles() as shuffles, _quiet():
        status = run_job(
            [f"--input={images}", f"--ground_truth={masks}", f"--model={model}", f"--output={output}", "--threads=1"]
        )
    if status != 0:
        raise SystemExit(f"the job ended with status {status}")
    return _cpu_s() - before, shuffles


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _engine_ms(model: str) -> float:
    """CPU milliseconds of the engine for a picture, alone; the least of some tens."""
    folder = open_model(model)
    spec = folder.spec
    engine = load_engine(folder, 1)
    random = np.random.default_rng(0)
    taken = []
    for _ in range(40):
        pixels = random.integers(0, 256, (spec.height, spec.width, spec.channels), dtype=np.uint8)
        batch = input_batch([model_input(pixels, spec.input)])
        begin = time.thread_time()
        engine.logits(batch)
        taken.append((time.thread_time() - begin) * 1e3)
    return min(taken)


def show(costs: Costs, projections: list[Projection]) -> str:
    """Both tables as Markdown."""
    lines = ["| one picture | |", "|---|---:|"]
    lines += [f"| {name.replace('_', ' ')} | {value:,.1f} |" for name, value in asdict(costs).items()]
    lines += ["", "| | " + " | ".join(f"{p.pictures:,}" for p in projections) + " |"]
    lines.append("|---" * (1 + len(projections)) + "|")
    for name in asdict(projections[0]):
        if name != "pictures":
            values = [getattr(p, name) for p in projections]
            shown = [f"{v:,}" if isinstance(v, int) else f"{v:,.1f}" for v in values]
            lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measures, projects and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    costs = measure(arguments.images.absolute(), arguments.masks.absolute(), arguments.model)
    projections = [project(costs, size, arguments.hours) for size in SIZES]
    print(show(costs, projections))
    if arguments.json:
        content = {"costs": asdict(costs), "projections": [asdict(projection) for projection in projections]}
        arguments.json.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
