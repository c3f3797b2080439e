"""What unlabelled pictures add to few labelled ones: self-training against the same pictures without it.

    python -m tests.benchmarks.self_training --dataset FOLDER --output DIR --label_map 1=0,2=1,3=2 \
        --class_names pet,background,border --test_fraction 0.22 --labelled 50 --options '--image_size 96'

FOLDER holds images/ and masks/. The pictures that `python -m model train` with the same --seed and --test_fraction
keeps for the end are scored, at their own size, and take no other part. Of the others --labelled are drawn for each of
--draws draws; the rest is given without masks. Three trainings a draw: on the labelled pictures; on them with as many
weight updates as the third has; and with --unlabelled. One that is finished in DIR is not repeated. Prints
`global_mean_iou` as a table in Markdown, with the mean and the standard deviation over the draws.
"""

import argparse
import csv
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from model.data.split import split_pictures
from model.self_training import labelled_repeats
from pipeline.core.spec import METADATA_FILE
from tests.benchmarks.training_changes import Rows, listed, trained_score, write_manifest

WAYS = ("labelled", "as many updates", "self-training")


def write_unlabelled(path: Path, rows: Rows) -> None:
    """Writes a manifest without masks."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_id", "image"))
        writer.writerows((image_id, image.absolute()) for image_id, image, _ in rows)


def score(arguments: argparse.Namespace, draw: int, way: str, epochs: int) -> float:
    """Trains in one of the ways, unless that is done, and returns the `global_mean_iou` of the kept pictures."""
    output = Path(arguments.output)
    folder = output / f"draw_{draw + 1}" / way.replace(" ", "_")
    options = ["--dataset", f"{output}/{draw + 1}_labelled.csv", "--test_dataset", f"{output}/kept.csv"]
    if way == "self-training":
        options += ["--unlabelled", f"{output}/{draw + 1}_unlabelled.csv"]
    # By the seed that chose the kept pictures, there would be hardly any to choose the epoch.
    options += ["--epochs", str(epochs), "--seed", str(11 + draw), *shlex.split(arguments.options)]
    return trained_score(folder, arguments, ("label_map", "class_names", "batch_size", "val_fraction"), options)


def equal_epochs(arguments: argparse.Namespace, draw: int) -> int:
    """The epochs of the labelled pictures alone that make as many weight updates as teacher and student together."""
    folder = Path(arguments.output) / f"draw_{draw + 1}" / "self-training"
    training = json.loads((folder / METADATA_FILE).read_text())["training"]
    labelled, unlabelled = training["pictures"], training["self_training"]["pictures"]
    student_log = (folder / "training" / "student" / "log.csv").read_text()
    student = labelled * labelled_repeats(labelled, unlabelled) + unlabelled
    updates = (len(student_log.splitlines()) - 1) * (student // arguments.batch_size)
    return arguments.epochs + round(updates / (labelled // min(arguments.batch_size, labelled)))


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--label_map", required=True)
    parser.add_argument("--class_names", required=True)
    parser.add_argument("--labelled", type=int, default=50)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--val_fraction", type=float, default=0.3)
    parser.add_argument("--test_fraction", type=float, default=0.22)
    parser.add_argument("--options", default="", help="further options of `train`")
    arguments = parser.parse_args()
    rows = listed(Path(arguments.dataset))
    split = split_pictures([row[0] for row in rows], arguments.seed, 0.1, arguments.test_fraction)
    pool = [rows[index] for index in sorted((*split.train, *split.validation))]
    output = Path(arguments.output)
    write_manifest(output / "kept.csv", [rows[index] for index in split.test])
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for draw in range(arguments.draws):
        order = np.random.default_rng(draw).permutation(len(pool))
        write_manifest(output / f"{draw + 1}_labelled.csv", [pool[index] for index in order[: arguments.labelled]])
        write_unlabelled(output / f"{draw + 1}_unlabelled.csv", [pool[index] for index in order[arguments.labelled :]])
        for way in ("labelled", "self-training", "as many updates"):
            epochs = equal_epochs(arguments, draw) if way == "as many updates" else arguments.epochs
            found[way].append(score(arguments, draw, way, epochs))
            print(f"draw {draw + 1}, {way}, {epochs} epochs: {found[way][-1]:.4f}", file=sys.stderr, flush=True)
    print(f"{arguments.labelled} labelled, {len(pool) - arguments.labelled} unlabelled, {len(split.test)} kept\n")
    print("| | " + " | ".join(f"draw {draw + 1}" for draw in range(arguments.draws)) + " | mean | deviation |")
    print("|---" + "|---:" * (arguments.draws + 2) + "|")
    for way, scores in found.items():
        cells = [f"{one:.3f}" for one in (*scores, float(np.mean(scores)), float(np.std(scores)))]
        print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
