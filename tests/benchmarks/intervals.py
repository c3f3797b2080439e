"""How often the intervals of `summary.json` contain the true score, in many simulated jobs.

    python tests/benchmarks/intervals.py [--jobs 1000] [--pictures 10 30 100 400 2000] [--blocks 256] [--json FILE]
    python tests/benchmarks/intervals.py --compare [--jobs 1000] [--pictures 30 100 400]

Each job draws pictures from a population of `tests/populations.py` and sums and reports them as a real job does. Of the
jobs that print an interval, a table says how many in a hundred contain the true score, the interval's median width, and
how many in a hundred jobs print one, where not all do. The true mean over classes is that over the classes which occur
in the job. With `--compare` the IoU of a class is also given its interval by the methods of `other_intervals.py`.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from other_intervals import METHODS, Jobs
from populations import POPULATIONS, sums_of, true_scores

from pipeline.core import intervals
from pipeline.core.blocks import JOB_BLOCKS
from pipeline.core.intervals import student_t_975

SCORES = {
    "iou": "IoU of a class",
    "dice": "Dice of a class",
    "global_mean_iou": "Mean IoU, global",
    "global_mean_dice": "Mean Dice, global",
    "samplewise_mean_iou": "Mean IoU, samplewise",
    "samplewise_mean_dice": "Mean Dice, samplewise",
    "pixel_accuracy": "Pixel accuracy",
    "frequency_weighted_iou": "Frequency-weighted IoU",
}
_MIN_PRINTED = 0.05
Bounds = tuple[float, float] | None


class Tally:
    """What became of one score's intervals in the jobs of one population and size."""

    def __init__(self) -> None:
        self.jobs = self.below = self.above = 0
        self.widths: list[float] = []

    def add(self, bounds: Bounds, truth: float) -> None:
        """Counts one job."""
        self.jobs += 1
        if bounds is not None:
            self.below += truth < bounds[0]
            self.above += truth > bounds[1]
            self.widths.append(bounds[1] - bounds[0])

    def result(self) -> dict[str, Any]:
        """Shares of the jobs that print an interval, all but `printed`."""
        printed = len(self.widths)
        return {
            "jobs": self.jobs,
            "printed": printed / self.jobs,
            "coverage": 1 - (self.below + self.above) / printed if printed else None,
            "truth_below": self.below / printed if printed else None,
            "truth_above": self.above / printed if printed else None,
            "median_width": float(np.median(self.widths)) if printed else None,
        }

    def cell(self) -> str:
        """The result as the tables show it."""
        result = self.result()
        if result["printed"] < _MIN_PRINTED:
            return "none"
        text = f"{100 * result['coverage']:.1f} · {result['median_width']:.3f}"
        return text if result["printed"] > 0.995 else f"{text} · {100 * result['printed']:.0f} %"


def job_intervals(name: str, rng: np.random.Generator, pictures: int, blocks: int) -> dict[str, tuple[Bounds, float]]:
    """Runs one job: each score's interval, and the true score. A class that occurs nowhere has none."""
    draw, class_id = POPULATIONS[name]
    truth = true_scores(name)
    sums = sums_of(draw(rng, pictures), rng.integers(0, blocks, pictures), blocks)
    summary = sums.summary()
    occurs = np.array(sums.sample_present) > 0
    found: dict[str, tuple[Bounds, float]] = {}
    for score in SCORES:
        if score in ("iou", "dice"):
            found[score] = summary.classes[class_id][f"{score}_ci95"], float(truth[score][class_id])
        elif score.startswith("global_mean_"):
            found[score] = summary.metrics[f"{score}_ci95"], float(truth[score.rpartition("_")[2]][occurs].mean())
        else:
            found[score] = summary.metrics[f"{score}_ci95"], float(truth[score])
    return found


def compare(name: str, rng: np.random.Generator, pictures: int, jobs: int) -> dict[str, Tally]:
    """The IoU of a class by several methods; all but ours print one where two pictures show the class."""
    draw, class_id = POPULATIONS[name]
    truth = float(true_scores(name)["iou"][class_id])
    matrices = np.stack([draw(rng, pictures) for _ in range(jobs)])
    intersection = matrices[..., class_id, class_id].astype(float)
    union = matrices[..., class_id, :].sum(axis=-1) + matrices[..., :, class_id].sum(axis=-1) - intersection
    tallies: dict[str, Tally] = defaultdict(Tally)
    with np.errstate(all="ignore"):
        both = Jobs(union - intersection, union, rng)
        for method, bounds_of in METHODS.items():
            for low, high, showing in zip(*bounds_of(both), both.showing, strict=True):
                shown = showing >= 2 and np.isfinite(low) and np.isfinite(high)
                tallies[method].add((max(low, 0.0), min(high, 1.0)) if shown else None, truth)
    for job in matrices:
        sums = sums_of(job, rng.integers(0, JOB_BLOCKS, pictures), JOB_BLOCKS)
        tallies["this one"].add(sums.summary().classes[class_id]["iou_ci95"], truth)
        with mock.patch.object(intervals, "UNSEEN", 0.0):
            tallies["without the rule of three"].add(sums.summary().classes[class_id]["iou_ci95"], truth)
        with mock.patch.object(intervals, "student_t_975", lambda freedom: student_t_975(2 * freedom)):
            tallies["with Satterthwaite's degrees of freedom"].add(sums.summary().classes[class_id]["iou_ci95"], truth)
    return tallies


def main() -> None:
    """Prints a markdown table a score, or with `--compare` a size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--pictures", type=int, nargs="+", default=[10, 30, 100, 400, 2_000])
    parser.add_argument("--blocks", type=int, default=JOB_BLOCKS)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tallies: dict[tuple[str, str, int], Tally] = defaultdict(Tally)
    for name in POPULATIONS:
        for pictures in arguments.pictures:
            rng = np.random.default_rng(pictures)
            if arguments.compare:
                for method, tally in compare(name, rng, pictures, arguments.jobs).items():
                    tallies[method, name, pictures] = tally
                continue
            for _ in range(arguments.jobs):
                for score, (bounds, truth) in job_intervals(name, rng, pictures, arguments.blocks).items():
                    tallies[SCORES[score], name, pictures].add(bounds, truth)
        print(name, file=sys.stderr, flush=True)
    kinds = dict.fromkeys(kind for kind, _, _ in tallies)
    if arguments.compare:
        for pictures in arguments.pictures:
            print(f"\n**{pictures} pictures**\n\n| population | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
            for name in POPULATIONS:
                print(f"| {name} | {' | '.join(tallies[kind, name, pictures].cell() for kind in kinds)} |")
    else:
        sizes = [f"{pictures:,}" for pictures in arguments.pictures]
        for kind in kinds:
            print(f"\n**{kind}**\n\n| population | {' | '.join(sizes)} |\n|---|{'---|' * len(sizes)}")
            for name in POPULATIONS:
                cells = [tallies[kind, name, pictures].cell() for pictures in arguments.pictures]
                print(f"| {name} | {' | '.join(cells)} |")
    if arguments.json is not None:
        rows = [
            {"kind": kind, "population": name, "pictures": pictures} | tally.result()
            for (kind, name, pictures), tally in tallies.items()
        ]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
