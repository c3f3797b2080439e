"""The chapter's U-Net against the default preset: trained on the same pictures, scored on the same kept ones.

    python -m tests.benchmarks.training_table --dataset FOLDER --output DIR --label_map 1=0,2=1,3=2 \
        --class_names pet,background,border --border border --test_fraction 0.22 --seed 3

The chapter's preset is trained as the chapter says: Adam at 0.001, cross-entropy, no augmentation. The default preset
is trained as `python -m model train` does by default. Both see the same number of pictures. Existing trainings in DIR
are not repeated, unfinished ones are resumed. Prints a table in Markdown.
"""

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.encoded_pairs import open_source
from model.evaluate import load_engine, score_pictures
from model.options import DEFAULT_PRESET
from model.split import split_pictures
from pipeline.core.scores import dice_per_class, iou_per_class, mean_of_present
from pipeline.core.spec import FLOAT_MODEL_FILE, INT8_MODEL_FILE, METADATA_FILE, ModelSpec
from pipeline.core.truth import Labels
from pipeline.engines.base import Engine
from pipeline.engines.quiet import start_keras

CHAPTER = "--preset chapter --loss ce --augment none --schedule constant --learning_rate 0.001"
ROUNDS = 60


@dataclass(frozen=True)
class Row:
    """One trained preset."""

    spec: ModelSpec
    engines: dict[str, Engine]
    matrices: dict[str, npt.NDArray[np.int64]]

    @property
    def matrix(self) -> npt.NDArray[np.int64]:
        """The confusion matrix of the float model."""
        return self.matrices[FLOAT_MODEL_FILE]


def train(arguments: argparse.Namespace, folder: Path, recipe: str) -> None:
    """Trains one preset, or goes on where it stopped."""
    if (folder / METADATA_FILE).exists():
        return
    command = [sys.executable, "-m", "model", "train", "--resume", "--dataset", arguments.dataset]
    command += ["--output", str(folder), *recipe.split()]
    for name in (
        "image_size",
        "label_map",
        "class_names",
        "epochs",
        "batch_size",
        "seed",
        "val_fraction",
        "test_fraction",
    ):
        if getattr(arguments, name) is not None:
            command += [f"--{name}", str(getattr(arguments, name))]
    subprocess.run(command, check=True)


def score(folder: Path, arguments: argparse.Namespace) -> Row:
    """The confusion matrix of a model over the kept pictures, at their own size."""
    spec = ModelSpec.from_json((folder / METADATA_FILE).read_text())
    pairs = list(open_source(arguments.dataset, None))
    ids = [pair.pair_id for pair in pairs]
    kept = split_pictures(ids, arguments.seed, arguments.val_fraction, arguments.test_fraction).test
    labels = Labels(spec.labels(), spec.num_classes, spec.ignore_label)
    row = Row(spec, {}, {})
    for file in (FLOAT_MODEL_FILE, INT8_MODEL_FILE):
        engine = load_engine((folder / file).read_bytes(), spec.height, spec.width, spec.channels)
        left_out: dict[str, str] = {}
        pictures = list(score_pictures(iter([pairs[index] for index in kept]), labels, engine, spec, left_out))
        if left_out:
            sys.exit(f"{len(left_out)} kept pictures can't be scored: {left_out}")
        row.engines[file] = engine
        row.matrices[file] = np.stack([picture.matrix for picture in pictures]).sum(axis=0)
    return row


def pictures_per_second(rows: list[Row], file: str) -> list[float]:
    """Pictures a second of each model on one thread, one picture after the other in turns; the median of many."""
    seconds: list[list[float]] = [[] for _ in rows]
    for _ in range(ROUNDS):
        for row, times in zip(rows, seconds, strict=True):
            picture = np.zeros((1, row.spec.height, row.spec.width, row.spec.channels), np.uint8)
            begin = time.perf_counter()
            row.engines[file].logits(picture)
            times.append(time.perf_counter() - begin)
    return [1.0 / statistics.median(times) for times in seconds]


def network_size(spec: ModelSpec) -> tuple[int, float, float]:
    """Parameters, and GFLOP a picture of the convolutions as trained and as exported."""
    start_keras()
    import keras

    from model.layers import TrainableBlocks
    from model.network import build_logits
    from model.rewrite import InferenceBlocks
    from model.stored_network import config_of

    def gflop(network: keras.Model) -> float:
        convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
        return float(sum(2e-9 * np.prod(one.kernel.shape) * np.prod(one.output.shape[1:3]) for one in convolutions))

    plain = build_logits(config_of(spec), TrainableBlocks())
    return plain.count_params(), gflop(plain), gflop(build_logits(config_of(spec), InferenceBlocks()))


def without(matrix: npt.NDArray[np.int64], class_id: int) -> tuple[float, float]:
    """Mean IoU and Dice of the other classes where the true pixels of one class are ignored."""
    scored = matrix.copy()
    scored[class_id] = 0
    others = [number for number in range(len(matrix)) if number != class_id]
    return mean_of_present(iou_per_class(scored)[others]), mean_of_present(dice_per_class(scored)[others])


def print_table(rows: list[Row], border: str | None) -> None:
    """Prints Markdown, a column a preset."""
    lines = {"preset": [f"`{row.spec.training['preset']}`" for row in rows]}
    sizes = [network_size(row.spec) for row in rows]
    lines["input, px"] = [f"{row.spec.height}×{row.spec.width}" for row in rows]
    lines["parameters"] = [f"{size[0]:,}" for size in sizes]
    lines["GFLOP a picture, as trained"] = [f"{size[1]:.2f}" for size in sizes]
    lines["GFLOP a picture, as exported"] = [f"{size[2]:.2f}" for size in sizes]
    for name, file in (("float32", FLOAT_MODEL_FILE), ("int8", INT8_MODEL_FILE)):
        rates = pictures_per_second(rows, file)
        lines[f"LiteRT {name}, pictures/s on one thread"] = [f"{rate:.0f}" for rate in rates]
    lines["`global_mean_iou`"] = [f"{mean_of_present(iou_per_class(row.matrix)):.3f}" for row in rows]
    lines["`global_mean_dice`"] = [f"{mean_of_present(dice_per_class(row.matrix)):.3f}" for row in rows]
    int8 = [row.matrices[INT8_MODEL_FILE] for row in rows]
    lines["`global_mean_iou` of int8"] = [f"{mean_of_present(iou_per_class(matrix)):.3f}" for matrix in int8]
    for class_id, name in enumerate(rows[0].spec.class_names):
        lines[f"IoU {name}"] = [f"{iou_per_class(row.matrix)[class_id]:.3f}" for row in rows]
    if border is not None:
        other = [without(row.matrix, row.spec.class_names.index(border)) for row in rows]
        lines[f"`global_mean_iou`, {border} ignored"] = [f"{iou:.3f}" for iou, _ in other]
        lines[f"`global_mean_dice`, {border} ignored"] = [f"{dice:.3f}" for _, dice in other]
    for number, (name, cells) in enumerate(lines.items()):
        print(f"| {name} | " + " | ".join(cells) + " |")
        if number == 0:
            print("|---" * (len(cells) + 1) + "|")


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--image_size", default="128", help="of both presets")
    parser.add_argument("--label_map")
    parser.add_argument("--class_names")
    parser.add_argument("--border", help="the class that is also left out of the scores")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--val_fraction", type=float, default=0.1)
    parser.add_argument("--test_fraction", type=float, default=0.25)
    arguments = parser.parse_args()
    folders = [Path(arguments.output) / name for name in ("chapter", DEFAULT_PRESET)]
    for folder, recipe in zip(folders, (CHAPTER, ""), strict=True):
        train(arguments, folder, recipe)
    rows = [score(folder, arguments) for folder in folders]
    seen = rows[0].spec.training["pictures"] * arguments.epochs
    print(f"{rows[0].spec.training['pictures']} pictures, {arguments.epochs} epochs: {seen:,} seen by each\n")
    print_table(rows, arguments.border)


if __name__ == "__main__":
    main()
