"""How much of the local speed is left where every file takes its time: a slow store, without the store.

    python tests/benchmarks/latency.py --images FOLDER [--model pets] [--read_ms 80] [--write_ms 120] [--rounds 3]

The same job in turns with files as they are, and with a pause before each picture is read and each mask is written, as
a bucket makes it. Printed are pictures a second of the jobs' own clock, and the ratio of each round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SLOWED = """
import sys, time
from pipeline.storage import filesystem

def paused(call, seconds, wanted):
    def slow(uri, *rest):
        if wanted in uri:
            time.sleep(seconds)
        return call(uri, *rest)
    return slow

filesystem.read_bytes = paused(filesystem.read_bytes, float(sys.argv[1]), sys.argv[3])
filesystem.write_bytes = paused(filesystem.write_bytes, float(sys.argv[2]), "/masks/")
from pipeline.app.launcher import main
sys.exit(main(sys.argv[4:]))
"""


def rate(images: Path, model: str, output: Path, read_ms: float, write_ms: float) -> float:
    """Runs the job once; its pictures a second."""
    pauses = [str(read_ms / 1e3), str(write_ms / 1e3), str(images.resolve())]
    job = ["--input", str(images.resolve()), "--model", model, "--output", str(output), "--existing", "overwrite"]
    subprocess.run([sys.executable, "-c", _SLOWED, *pauses, *job], cwd=ROOT, check=True, capture_output=True)
    summary = json.loads((output / "summary.json").read_text())
    return float(summary["images"]["segmented"] / summary["run"]["seconds"])


def main() -> None:
    """Runs all rounds and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", default="pets")
    parser.add_argument("--read_ms", type=float, default=80.0)
    parser.add_argument("--write_ms", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ratios = []
    print(f"{'as it is':>10s} {'slow store':>10s} {'ratio':>6s}")
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            fast = rate(arguments.images, arguments.model, Path(folder) / "fast", 0, 0)
            slow = rate(arguments.images, arguments.model, Path(folder) / "slow", arguments.read_ms, arguments.write_ms)
            ratios.append(slow / fast)
            print(f"{fast:10.1f} {slow:10.1f} {slow / fast:6.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
