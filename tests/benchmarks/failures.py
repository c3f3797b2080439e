"""Archives of which every member fails: seconds and peak memory at each size.

    python tests/benchmarks/failures.py [--sizes 50000 200000] [--json FILE]

A tar of so many empty pictures is made, the command is run on it as a user would, and its failures.jsonl is held
against what it must be: a line a member, in order. What the memory grows by a failure is taken between neighbours.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TINY_MODEL = ROOT / "tests" / "data" / "tiny_model"


def make_tar(path: Path, members: int) -> None:
    """Makes a tar of empty members with pictures' names, the last name first."""
    with path.open("wb") as file:
        for number in reversed(range(members)):
            file.write(tarfile.TarInfo(f"folder/picture_{number:07d}.jpg").tobuf(tarfile.USTAR_FORMAT))
        file.write(bytes(1024))


def measure(members: int) -> dict[str, Any]:
    """Runs the command on a tar of so many members.

    Returns:
        Seconds of the whole command, and its peak memory.

    Raises:
        RuntimeError: a failure is missing, or out of order.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive, output = Path(folder, "empty.tar"), Path(folder, "out")
        make_tar(archive, members)
        command = [sys.executable, "-m", "pipeline", "--input", str(archive), "--output", str(output)]
        command += ["--model", str(TINY_MODEL), "--max_failure_ratio", "1"]
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as job:
            # The one way to learn what this child used, and not the largest of all.
            _, status, usage = os.wait4(job.pid, 0)
            job.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        with (output / "failures.jsonl").open(encoding="utf-8") as lines:
            ids = [json.loads(line)["image_id"] for line in lines]
        if job.returncode or ids != [f"folder/picture_{number:07d}.jpg" for number in range(members)]:
            raise RuntimeError(f"status {job.returncode}, {len(ids):,} lines for {members:,} members")
        counted = json.loads((output / "summary.json").read_text("utf-8"))["images"]["failed"]
        if counted != members:
            raise RuntimeError(f"the summary counts {counted:,} of {members:,} failures")
    return {"failures": members, "seconds": round(seconds, 1), "peak_mb": round(usage.ru_maxrss / 1024)}


def main() -> None:
    """Measures each size in a separate process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'failures':>9s} {'seconds':>8s} {'peak MB':>8s} {'bytes a failure':>16s}")
    for size in arguments.sizes:
        row = measure(size)
        grown = ""
        if rows:
            row["bytes_a_failure"] = round(
                (row["peak_mb"] - rows[-1]["peak_mb"]) * 1024**2 / (row["failures"] - rows[-1]["failures"])
            )
            grown = f"{row['bytes_a_failure']:,d}"
        rows.append(row)
        print(f"{row['failures']:9,d} {row['seconds']:8.1f} {row['peak_mb']:8,d} {grown:>16s}", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
