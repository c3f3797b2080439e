"""Listing and pairing alone, over more and more names: seconds and peak memory at each size.

    python tests/benchmarks/pairing.py [--sizes 125000 250000 500000] [--json FILE]

Empty files replace pictures and masks, and a counting step replaces the model: what is measured is the job's own
listing, join by key and shuffle of locations, in a separate process, from the empty pipeline to its end.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_FILES_A_FOLDER = 5_000


def make_files(root: Path, count: int) -> None:
    """Makes `count` empty pictures and masks of the same names, in folders of 5,000."""
    for kind in ("images", "masks"):
        for first in range(0, count, _FILES_A_FOLDER):
            folder = root / kind / f"{first // _FILES_A_FOLDER:04d}"
            folder.mkdir(parents=True)
            for number in range(first, min(first + _FILES_A_FOLDER, count)):
                os.close(os.open(folder / f"picture_{number:07d}.png", os.O_CREAT | os.O_WRONLY, 0o644))


def locate(root: Path) -> None:
    """Runs the job's `LocatePictures` over the files and prints what it gave, its seconds and its peak memory."""
    import resource

    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from pipeline.core.decode import DEFAULT_MAX_PIXELS
    from pipeline.core.recipe import Recipe
    from pipeline.engines.model_folder import open_model
    from pipeline.output.outputs import Destination
    from pipeline.output.resume import ResumePlanner
    from pipeline.progress.counts import SILENT
    from pipeline.sources.folders import FolderSource
    from pipeline.transforms.begin_run import BeginRun, ReadEarlierRun
    from pipeline.transforms.locate_pictures import LocatePictures

    logging.getLogger().setLevel(logging.ERROR)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    destination = Destination(str(root / "out"), ())
    model = open_model("shapes")
    recipe = Recipe(model.spec, model.digest, model.spec.labels(), model.spec.ignore_label, DEFAULT_MAX_PIXELS)
    start = time.perf_counter()
    pipeline = beam.Pipeline(runner=FnApiRunner())
    earlier = pipeline | BeginRun(destination, "resume") | ReadEarlierRun()
    locations = pipeline | LocatePictures(
        [FolderSource(str(root / "images"))],
        [FolderSource(str(root / "masks"))],
        SILENT,
        earlier,
        ResumePlanner(recipe, destination),
    )
    counted = (
        locations.todo
        | "Spread" >> beam.Reshuffle()
        | "OnlyPaired" >> beam.Filter(lambda located: located.truth is not None)
        | "Count" >> beam.combiners.Count.Globally()
    )
    _ = counted | "Write" >> beam.Map(lambda count: (root / "count").write_text(str(count)))
    pipeline.run().wait_until_finish()
    row = {
        "paired": int((root / "count").read_text()),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "before_mb": round(before_mb),
    }
    print(json.dumps(row))


def main() -> None:
    """Measures each size in a separate process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[125_000, 250_000, 500_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--locate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.locate is not None:
        locate(arguments.locate)
        return
    rows: list[dict[str, Any]] = []
    print(f"{'pairs':>9s} {'seconds':>8s} {'pairs/s':>8s} {'peak MB':>8s} {'of it before':>12s}")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory() as folder:
            make_files(Path(folder), size)
            done = subprocess.run(
                [sys.executable, __file__, "--locate", folder],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        rate = row["paired"] / row["seconds"]
        print(f"{row['paired']:9,d} {row['seconds']:8.1f} {rate:8,.0f} {row['peak_mb']:8,d} {row['before_mb']:12,d}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
