"""Pictures a second through the same network: ours beside the ways people do it today.

    python tests/benchmarks/throughput.py --images FOLDER --model MODEL [--seconds 30] [--rounds 3] [--json FILE]

FOLDER holds the pictures; MODEL is a model folder with `model.keras` and `model.tflite`. Each contender runs as a
separate process, in turn, round after round, over the same pictures (repeated until a round of ours takes
`--seconds`). The clock runs from the first picture's read to the last mask's write (ours: the job's own `run.seconds`,
so the graph, the load of the model and the tables count against us); imports count for nobody. Peak memory is that of
the whole process tree.
`bare` is the engine alone on pictures that are already decoded: no pipeline can be faster.

Peers that are not installed are left out and named: pip install ray tensorflow-hub
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

CONTENDERS_FILE = Path(__file__).with_name("contenders.py")
ROOT = Path(__file__).parents[2]


@dataclass
class Contender:
    """One way to segment a folder.

    Args:
        name: as printed.
        needs: a package without which it can't run.
        command: from (images, model, output) to a command line that prints its seconds as the last line.
    """

    name: str
    needs: str
    command: Callable[[Path, Path, Path], list[str]]
    rates: list[float] = field(default_factory=list)
    peaks_mb: list[float] = field(default_factory=list)
    agreement: float | None = None


def peer(name: str) -> Callable[[Path, Path, Path], list[str]]:
    """The command of a contender that lives in contenders.py."""
    return lambda images, model, output: [
        sys.executable, str(CONTENDERS_FILE), name, str(images), str(model), str(output)
    ]  # fmt: skip


def ours(*options: str) -> Callable[[Path, Path, Path], list[str]]:
    """Our own command, as a user would type it."""
    return lambda images, model, output: [
        sys.executable, "-m", "pipeline", "--input", str(images), "--model", str(model), "--output", str(output),
        *options,
    ]  # fmt: skip


CONTENDERS = (
    Contender("bare engine loop", "ai_edge_litert", peer("bare")),
    Contender("bare calls by hand, whole way", "ai_edge_litert", peer("by_hand")),
    Contender("maskbeam", "apache_beam", ours()),
    Contender(
        "maskbeam, 2 threads",
        "apache_beam",
        ours("--direct_running_mode", "multi_threading", "--direct_num_workers", "2"),
    ),
    Contender(
        "maskbeam, 2 processes",
        "apache_beam",
        ours("--direct_running_mode", "multi_processing", "--direct_num_workers", "2"),
    ),
    Contender("Keras model.predict script", "tensorflow", peer("keras")),
    Contender("Beam RunInference, TFModelHandlerTensor", "tensorflow_hub", peer("runinference")),
    Contender("Ray Data", "ray", peer("ray")),
)


def run(contender: Contender, images: Path, model: Path, output: Path) -> tuple[float, float]:
    """Runs a contender once.

    Returns:
        Its seconds and the peak memory of its process tree, MB.
    """
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    log = output.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(
            contender.command(images, model, output), stdout=file, stderr=subprocess.STDOUT, cwd=ROOT
        )
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peak))
        watcher.start()
        status = process.wait()
        watcher.join()
    if status != 0:
        raise SystemExit(f"{contender.name} ended with status {status}:\n{log.read_text()[-3000:]}")
    summary = output / "summary.json"
    if summary.exists():
        return float(json.loads(summary.read_text())["run"]["seconds"]), peak[0]
    return float(log.read_text().strip().splitlines()[-1]), peak[0]


def _watch(process: psutil.Process, peak: list[float]) -> None:
    """Keeps the largest sum of proportional set sizes: pages that processes share count once."""
    while True:
        total = 0.0
        try:
            for part in [process, *process.children(recursive=True)]:
                try:
                    total += part.memory_full_info().pss
                except psutil.Error:
                    continue
        except psutil.Error:
            return
        if not total and not process.is_running():
            return
        peak[0] = max(peak[0], total / 1e6)
        if process.status() == psutil.STATUS_ZOMBIE:
            return
        # Asking costs the kernel a walk over all pages: ten times a second it took a fifth of a core.
        time.sleep(1.0)


def equal_share(masks: Path, reference: Path) -> float | None:
    """The share of mask pixels that equal the reference's, over the files both have; None where there are none."""
    equal = total = 0
    for path in sorted(reference.rglob("*.png"))[:200]:
        other = masks / path.relative_to(reference)
        if other.exists():
            first, second = np.asarray(Image.open(path)), np.asarray(Image.open(other))
            equal += int((first == second).sum())
            total += first.size
    return equal / total if total else None


def main() -> None:
    """Runs all rounds and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=30.0, help="a round of ours takes at least so long")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=None, help="names of contenders, by their beginning")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    contenders = [c for c in CONTENDERS if importlib.util.find_spec(c.needs)]
    for left_out in {c.name for c in CONTENDERS} - {c.name for c in contenders}:
        print(f"left out, not installed: {left_out}")
    if arguments.only is not None:
        contenders = [c for c in contenders if any(c.name.lower().startswith(o.lower()) for o in arguments.only)]
    with tempfile.TemporaryDirectory() as folder:
        pictures = repeated(arguments.images, Path(folder) / "images", arguments.model, arguments.seconds)
        count = sum(1 for path in pictures.rglob("*") if path.is_file())
        for round_number in range(arguments.rounds):
            for contender in contenders:
                output = Path(folder) / contender.name.replace(" ", "_").replace(",", "")
                seconds, peak_mb = run(contender, pictures, arguments.model, output)
                contender.rates.append(count / seconds)
                contender.peaks_mb.append(peak_mb)
                print(f"round {round_number + 1}: {contender.name}: {count / seconds:.2f} pictures/s", flush=True)
        reference = Path(folder) / "maskbeam" / "masks"
        for contender in contenders:
            output = Path(folder) / contender.name.replace(" ", "_").replace(",", "")
            contender.agreement = equal_share(output / "masks", reference)
    print_table(contenders, count)
    if arguments.json:
        rows = [
            {"name": c.name, "rates": c.rates, "peaks_mb": c.peaks_mb, "equal_pixels": c.agreement} for c in contenders
        ]
        document = {"pictures": count, "cores": os.cpu_count(), "contenders": rows}
        arguments.json.write_text(json.dumps(document, indent=2))


def repeated(images: Path, target: Path, model: Path, seconds: float) -> Path:
    """Links the pictures as often as our own job needs for a round of so many seconds."""
    link_all(images, target, 0)
    probe = Contender("probe", "", ours())
    once, _ = run(probe, target, model, target.with_name("probe"))
    for copy in range(1, int(np.ceil(seconds / once))):
        link_all(images, target, copy)
    return target


def link_all(images: Path, target: Path, copy: int) -> None:
    """Links each picture once into a separate folder."""
    folder = target / f"copy{copy}"
    folder.mkdir(parents=True)
    for path in sorted(images.rglob("*")):
        if path.is_file():
            (folder / path.name).symlink_to(path.resolve())


def print_table(contenders: list[Contender], pictures: int) -> None:
    """Prints medians, and ratios pair by pair within a round to the bare loop and to our default."""
    by_name = {contender.name: contender for contender in contenders}
    bare, default = by_name.get("bare engine loop"), by_name.get("maskbeam")
    print(f"\n{pictures} pictures a round, medians of {len(contenders[0].rates)} rounds, {os.cpu_count()} cores")
    print(f"{'':42s} {'pictures/s':>10s} {'to bare':>8s} {'ours to it':>10s} {'peak MB':>8s} {'equal px':>9s}")
    for contender in contenders:
        cells = [f"{statistics.median(contender.rates):10.2f}"]
        for top, bottom in ((contender, bare), (default, contender)):
            if top and bottom:
                ratio = statistics.median(a / b for a, b in zip(top.rates, bottom.rates, strict=True))
                cells.append(f"{ratio:8.3f}" if bottom is bare else f"{ratio:10.2f}")
            else:
                cells.append(" " * 8)
        cells.append(f"{statistics.median(contender.peaks_mb):8.0f}")
        cells.append("" if contender.agreement is None else f"{contender.agreement:9.5f}")
        print(f"{contender.name:42s} {' '.join(cells)}")


if __name__ == "__main__":
    main()
