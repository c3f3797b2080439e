"""What groups cost: seconds and peak memory of a scored job with none, few and many groups of its pictures.

    python tests/benchmarks/groups.py [--pictures 8000] [--groups 0 300 4000 8000] [--json FILE]

Small pictures with ground truth are made, and the command is run on them as a user would, with `--group_by_regex` on a
number in their names. The bytes a group are those above the run without groups.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent.parent
TINY_MODEL = ROOT / "tests" / "data" / "tiny_model"
_DIFFERENT = 64


def make_archive(folder: Path, pictures: int, groups: int) -> None:
    """Writes pictures and masks of 48x40 px, hard links to a few that differ; the group is the first number."""
    random = np.random.default_rng(0)
    for name, shape in (("images", (40, 48, 3)), ("masks", (40, 48))):
        (folder / name).mkdir(parents=True)
        for index in range(_DIFFERENT):
            high = 256 if name == "images" else 3
            pixels = random.integers(0, high, (5, 6, *shape[2:]), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(pixels).save(folder / f"{name}-{index}.png")
        for index in range(pictures):
            os.link(
                folder / f"{name}-{index % _DIFFERENT}.png", folder / name / f"{index % max(1, groups)}_{index}.png"
            )


def measure(pictures: int, groups: int) -> dict[str, Any]:
    """Runs the command with so many groups.

    Raises:
        RuntimeError: it failed, or its summary holds another number of groups.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_archive(Path(folder), pictures, groups)
        command = [sys.executable, "-m", "pipeline", "--input", f"{folder}/images", "--output", f"{folder}/out"]
        command += ["--ground_truth", f"{folder}/masks", "--model", str(TINY_MODEL), "--mask_format", "none"]
        command += ["--group_by_regex", "^([0-9]+)_"] if groups else []
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as job:
            # The one way to learn what this child used, and not the largest of all.
            _, status, usage = os.wait4(job.pid, 0)
            job.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        summary = json.loads(Path(folder, "out", "summary.json").read_text("utf-8"))
        if job.returncode or len(summary["groups"]) != groups:
            raise RuntimeError(f"status {job.returncode}, {len(summary['groups']):,} groups for {groups:,}")
    return {"groups": groups, "seconds": round(seconds, 1), "peak_mb": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Measures each number of groups in a separate process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8_000)
    parser.add_argument("--groups", type=int, nargs="+", default=[0, 300, 4_000, 8_000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'groups':>8s} {'seconds':>8s} {'peak MB':>8s} {'kB a group':>11s}")
    for groups in arguments.groups:
        row = measure(arguments.pictures, groups)
        if rows and groups:
            row["kb_a_group"] = round((row["peak_mb"] - rows[0]["peak_mb"]) * 1024 / groups, 1)
        rows.append(row)
        print(f"{groups:8,d} {row['seconds']:8.1f} {row['peak_mb']:8,d} {row.get('kb_a_group', ''):>11}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
