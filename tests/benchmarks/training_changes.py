"""What a change of the training's options is worth: trained and scored on several folds, the kept pictures apart.

    python -m tests.benchmarks.training_changes --dataset FOLDER --output DIR --label_map 0=0,255=1 \
        --class_names background,nucleus --val_fraction 0.15 --test_fraction 0.25 --seed 3 \
        --change '--image_size 128' --change '--image_size 128 --batch_size 4' --change '--image_size 256'

FOLDER holds images/ and masks/. The pictures that `python -m model train` with the same options keeps for the end take
no part. The others are divided into --parts; each of the first --folds parts is scored, at the pictures' own size, by a
model trained on the other parts. Every fold is a separate training, so the whole takes folds × changes trainings; one
that is finished in DIR is not repeated. Prints `global_mean_iou` as a table in Markdown.
"""

import argparse
import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from model.data.split import split_pictures
from pipeline.core.spec import METADATA_FILE
from pipeline.sources.source import pairing_key

Rows = Sequence[tuple[str, Path, Path]]


def listed(folder: Path) -> Rows:
    """Id, image and mask of the pictures of a folder, by id."""
    masks = {pairing_key(path.name): path for path in sorted((folder / "masks").iterdir())}
    images = sorted((folder / "images").iterdir())
    return [(path.name, path, masks[key]) for path in images if (key := pairing_key(path.name)) in masks]


def write_manifest(path: Path, rows: Rows) -> None:
    """Writes a manifest that `python -m model train` takes as --dataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image_id", "image", "mask"))
        writer.writerows((image_id, image.absolute(), mask.absolute()) for image_id, image, mask in rows)


def trained_score(folder: Path, arguments: argparse.Namespace, names: Iterable[str], options: Iterable[str]) -> float:
    """Trains into a folder, unless that is done, and returns the `global_mean_iou` of the test pictures.

    Args:
        folder: the model's.
        arguments: of the benchmark.
        names: options of `train` that have the values of the benchmark's own.
        options: further words of the command; of an option that is given twice the later counts.
    """
    metadata = folder / METADATA_FILE
    if not metadata.exists():
        command = [sys.executable, "-m", "model", "train", "--resume", "--output", str(folder)]
        for name in names:
            command += [f"--{name}", str(getattr(arguments, name))]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
    return float(json.loads(metadata.read_text())["scores"]["global_mean_iou"])


def score(arguments: argparse.Namespace, fold: int, change: str) -> float:
    """Trains without a fold, unless that is done, and returns the `global_mean_iou` on it."""
    name = re.sub(r"[^0-9a-z.]+", "_", change.lower()).strip("_") or "default"
    folder = Path(arguments.output) / name / f"fold_{fold + 1}"
    manifests = Path(arguments.output) / "manifests"
    data = ["--dataset", f"{manifests}/{fold + 1}_others.csv", "--test_dataset", f"{manifests}/{fold + 1}.csv"]
    # By the seed that chose the kept pictures, those that guide the training are nearly all among them.
    options = [*data, "--seed", str(arguments.seed + 1), *shlex.split(change)]
    return trained_score(
        folder, arguments, ("label_map", "class_names", "epochs", "batch_size", "val_fraction"), options
    )


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--label_map", required=True)
    parser.add_argument("--class_names", required=True)
    parser.add_argument("--change", action="append", required=True, help="options of `train`; '' for none")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--val_fraction", type=float, default=0.1)
    parser.add_argument("--test_fraction", type=float, default=0.1)
    arguments = parser.parse_args()
    rows = listed(Path(arguments.dataset))
    split = split_pictures([row[0] for row in rows], arguments.seed, arguments.val_fraction, arguments.test_fraction)
    pool = [rows[index] for index in sorted((*split.train, *split.validation))]
    for fold in range(arguments.folds):
        manifests = Path(arguments.output) / "manifests"
        write_manifest(manifests / f"{fold + 1}.csv", pool[fold :: arguments.parts])
        others = [row for number, row in enumerate(pool) if number % arguments.parts != fold]
        write_manifest(manifests / f"{fold + 1}_others.csv", others)
    heading = [f"fold {fold + 1} ({len(pool[fold :: arguments.parts])} pictures)" for fold in range(arguments.folds)]
    print("| change | " + " | ".join(heading) + " |")
    print("|---" + "|---:" * arguments.folds + "|")
    for change in arguments.change:
        scores = [f"{score(arguments, fold, change):.3f}" for fold in range(arguments.folds)]
        print(f"| {f'`{change}`' if change else 'none'} | " + " | ".join(scores) + " |", flush=True)


if __name__ == "__main__":
    main()
