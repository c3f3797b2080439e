"""The whole job over more and more small pictures: pictures a second and peak memory, in each running mode.

    python tests/benchmarks/scale.py [--sizes 1000 10000 100000] [--model shapes] [--modes default] [--json FILE]

The pictures are drawn once (48x40 px JPEG) and linked. Peak memory is the proportional set size of the process tree.
"""

import argparse
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from throughput import Contender, ours, run

MODES = {
    "default": (),
    "threads": ("--direct_running_mode", "multi_threading", "--direct_num_workers", "2"),
    "processes": ("--direct_running_mode", "multi_processing", "--direct_num_workers", "2"),
}
_A_FOLDER = 1000
_DIFFERENT = 64


def draw(folder: Path, count: int) -> None:
    """Writes `count` small pictures, a thousand a folder, hard links to a few that differ."""
    random = np.random.default_rng(0)
    originals = folder.with_name(f"{folder.name}-originals")
    originals.mkdir(parents=True)
    for index in range(_DIFFERENT):
        coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
        (originals / f"{index}.jpg").write_bytes(buffer.getvalue())
    for index in range(count):
        part = folder / f"{index // _A_FOLDER:04d}"
        if index % _A_FOLDER == 0:
            part.mkdir(parents=True)
        os.link(originals / f"{index % _DIFFERENT}.jpg", part / f"{index:07d}.jpg")


def main() -> None:
    """Runs every mode at every size and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(
        f"{'mode':10s} {'pictures':>9s} {'seconds':>8s} {'pictures/s':>10s} {'peak MB':>8s} {'kB a picture more':>18s}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            draw(Path(folder) / str(size), size)
        for mode in arguments.modes:
            first: tuple[int, float] | None = None
            for size in arguments.sizes:
                contender = Contender(mode, "", ours(*MODES[mode]))
                seconds, peak_mb = run(contender, Path(folder) / str(size), arguments.model, Path(folder) / "out")
                above = "" if first is None else f"{(peak_mb - first[1]) * 1e3 / (size - first[0]):18.2f}"
                first = first or (size, peak_mb)
                print(f"{mode:10s} {size:9d} {seconds:8.1f} {size / seconds:10.1f} {peak_mb:8.0f} {above}", flush=True)
                rows.append({"mode": mode, "pictures": size, "seconds": seconds, "peak_mb": peak_mb})
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
