"""Masks in separate files and in tar files: seconds of a job and requests to the store, local and slow.

    python tests/benchmarks/packed_masks.py --images FOLDER [--model pets] [--request_ms 60] [--rounds 3]

The same job in turns with `--mask_format png` and `tar`, each with the output's files as they are, and with a pause in
each request to a file below `masks/` or `_progress/packed`, as a bucket makes it. Printed are the seconds of the jobs'
own clock, how many requests they made to these files, and how many files hold the masks at the end.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COUNTED = """
import sys, threading, time
from pipeline.storage import filesystem

requests = 0
lock = threading.Lock()

def counted(call, seconds):
    def slow(uri, *rest):
        global requests
        if "/masks/" in uri or "/_progress/packed/" in uri:
            with lock:
                requests += 1
            time.sleep(seconds)
        return call(uri, *rest)
    return slow

for name in ("read_bytes", "read_range", "write_bytes", "delete", "stat_file"):
    setattr(filesystem, name, counted(getattr(filesystem, name), float(sys.argv[1])))
from pipeline.app.launcher import main
status = main(sys.argv[2:])
print(f"requests {requests}")
sys.exit(status)
"""


def run(images: Path, model: str, output: Path, mask_format: str, request_ms: float) -> tuple[float, int, int]:
    """Runs the job once; its seconds, the requests, and the files that hold the masks."""
    job = ["--input", str(images.resolve()), "--model", model, "--output", str(output), "--mask_format", mask_format]
    command = [sys.executable, "-c", _COUNTED, str(request_ms / 1e3), *job, "--existing", "overwrite"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    requests = int(done.stdout.rpartition("requests ")[2])
    files = sum(path.is_file() for path in (output / "masks").rglob("*"))
    return float(json.loads((output / "summary.json").read_text())["run"]["seconds"]), requests, files


def main() -> None:
    """Runs all rounds and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", default="pets")
    parser.add_argument("--request_ms", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'store':>8s} {'masks':>6s} {'seconds':>8s} {'requests':>9s} {'files':>6s}")
    with tempfile.TemporaryDirectory() as folder:
        for store, request_ms in (("local", 0.0), ("slow", arguments.request_ms)):
            found: dict[str, list[tuple[float, int, int]]] = {"png": [], "tar": []}
            for _ in range(arguments.rounds):
                for mask_format, runs in found.items():
                    output = Path(folder) / f"{store}_{mask_format}"
                    runs.append(run(arguments.images, arguments.model, output, mask_format, request_ms))
            for mask_format, runs in found.items():
                seconds = statistics.median(run_s for run_s, _, _ in runs)
                print(f"{store:>8s} {mask_format:>6s} {seconds:8.2f} {runs[-1][1]:9d} {runs[-1][2]:6d}", flush=True)


if __name__ == "__main__":
    main()
