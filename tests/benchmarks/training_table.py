"""The presets against each other: trained on the same pictures, scored on the same kept ones.

    python -m tests.benchmarks.training_table --dataset FOLDER --output DIR --label_map 1=0,2=1,3=2 \
        --class_names pet,background,border --border border --test_fraction 0.22 --seed 3 --train_seeds 4,5,6

FOLDER holds images/ and masks/. --seed chooses the kept pictures; each of --train_seeds is a training of every preset,
with its own weights, order, augmentation and pictures that choose the epoch. The chapter's preset is trained as the
chapter says: Adam at 0.001, cross-entropy, no augmentation. The others are trained as `python -m model train` does by
default. All see the same number of pictures. Existing trainings in DIR are not repeated, unfinished ones are
resumed. Prints a table in Markdown: scores are the mean over the trainings, with the standard deviation of one.
"""

import argparse
import csv
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.data.encoded_pairs import open_source
from model.data.split import split_pictures
from model.evaluate import score_pictures
from pipeline.core.scores import dice_per_class, iou_per_class, mean_of_present
from pipeline.core.spec import FLOAT_MODEL_FILE, INT8_MODEL_FILE, METADATA_FILE, ModelSpec
from pipeline.core.truth import Labels
from pipeline.engines.base import Engine
from pipeline.engines.litert import LiteRTEngine
from pipeline.engines.quiet import start_keras
from tests.benchmarks.training_changes import listed, write_manifest

RECIPES = {
    "chapter": "--preset chapter --loss ce --augment none --schedule constant --learning_rate 0.001",
    "residual": "--preset residual",
    "efficientnet_lite": "--preset efficientnet_lite",
}
ROUNDS = 100
THREADS = (1, 2)
SECONDS_FILE = "seconds.csv"


@dataclass(frozen=True)
class Trained:
    """One training."""

    spec: ModelSpec
    engines: dict[tuple[str, int], Engine]
    matrices: dict[str, npt.NDArray[np.int64]]
    seconds: float


@dataclass(frozen=True)
class Column:
    """The trainings of one preset."""

    name: str
    trainings: list[Trained]

    @property
    def spec(self) -> ModelSpec:
        """The metadata of the first training."""
        return self.trainings[0].spec

    def scores(self, score: Callable[[npt.NDArray[np.int64]], float], file: str = FLOAT_MODEL_FILE) -> str:
        """Mean and standard deviation of a score of a confusion matrix over the trainings."""
        found = [score(one.matrices[file]) for one in self.trainings]
        spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
        return f"{statistics.mean(found):.3f}{spread}"


def write_manifests(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Writes the pictures that take part in trainings and the kept ones as two manifests."""
    rows = listed(Path(arguments.dataset))
    split = split_pictures([row[0] for row in rows], arguments.seed, arguments.val_fraction, arguments.test_fraction)
    paths = (Path(arguments.output) / "others.csv", Path(arguments.output) / "kept.csv")
    write_manifest(paths[0], [rows[index] for index in sorted((*split.train, *split.validation))])
    write_manifest(paths[1], [rows[index] for index in split.test])
    return paths


def train(arguments: argparse.Namespace, manifests: tuple[Path, Path], folder: Path, recipe: str, seed: int) -> None:
    """Trains one preset, or continues where it stopped."""
    if (folder / METADATA_FILE).exists():
        return
    command = [sys.executable, "-m", "model", "train", "--resume", "--dataset", str(manifests[0])]
    command += ["--test_dataset", str(manifests[1]), "--output", str(folder), "--seed", str(seed), *recipe.split()]
    for name in ("label_map", "class_names", "epochs", "batch_size", "val_fraction", "image_size"):
        if getattr(arguments, name) is not None:
            command += [f"--{name}", str(getattr(arguments, name))]
    begin, begin_cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    core_s = used.ru_utime + used.ru_stime - begin_cpu.ru_utime - begin_cpu.ru_stime
    with (folder / SECONDS_FILE).open("w", newline="") as file:
        csv.writer(file).writerows([("wall_s", "core_s"), (time.perf_counter() - begin, core_s)])


def score(folder: Path, kept: Path) -> Trained:
    """The confusion matrices of a model over the kept pictures, at their own size."""
    spec = ModelSpec.from_json((folder / METADATA_FILE).read_text())
    labels = Labels(spec.labels(), spec.num_classes, spec.ignore_label)
    engines: dict[tuple[str, int], Engine] = {}
    matrices: dict[str, npt.NDArray[np.int64]] = {}
    for file in (FLOAT_MODEL_FILE, INT8_MODEL_FILE):
        content = (folder / file).read_bytes()
        engines |= {(file, threads): LiteRTEngine(content, threads) for threads in THREADS}
        left_out: dict[str, str] = {}
        pictures = list(score_pictures(open_source(str(kept), None), labels, engines[file, 1], spec, left_out))
        if left_out:
            sys.exit(f"{len(left_out)} kept pictures can't be scored: {left_out}")
        matrices[file] = np.stack([picture.matrix for picture in pictures]).sum(axis=0)
    seconds = folder / SECONDS_FILE
    core_s = float(next(csv.DictReader(seconds.open()))["core_s"]) if seconds.exists() else float("nan")
    return Trained(spec, engines, matrices, core_s)


def milliseconds(columns: list[Column], file: str, threads: int) -> list[str]:
    """Time of the network a picture, the presets in turns; the median and the least of many, ms."""
    seconds: list[list[float]] = [[] for _ in columns]
    for _ in range(ROUNDS):
        for column, times in zip(columns, seconds, strict=True):
            picture = np.zeros((1, column.spec.height, column.spec.width, column.spec.channels), np.uint8)
            engine = column.trainings[0].engines[file, threads]
            begin = time.perf_counter()
            engine.logits(picture)
            times.append(time.perf_counter() - begin)
    return [f"{1e3 * statistics.median(times):.1f} ({1e3 * min(times):.1f})" for times in seconds]


def network_size(spec: ModelSpec) -> tuple[int, float, float]:
    """Parameters, and GFLOP a picture of the convolutions as trained and as exported."""
    start_keras()
    import keras

    from model.networks.layers import TrainableBlocks
    from model.networks.network import build_logits
    from model.networks.rewrite import InferenceBlocks
    from model.networks.stored_network import config_of

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)

    def gflop(network: keras.Model) -> float:
        convolutions = [layer for layer in network.layers if isinstance(layer, kinds)]
        return float(sum(2e-9 * np.prod(one.kernel.shape) * np.prod(one.output.shape[1:3]) for one in convolutions))

    plain = build_logits(config_of(spec), TrainableBlocks())
    return plain.count_params(), gflop(plain), gflop(build_logits(config_of(spec), InferenceBlocks()))


def without(matrix: npt.NDArray[np.int64], class_id: int) -> tuple[float, float]:
    """Mean IoU and Dice of the other classes where the true pixels of one class are ignored."""
    scored = matrix.copy()
    scored[class_id] = 0
    others = [number for number in range(len(matrix)) if number != class_id]
    return mean_of_present(iou_per_class(scored)[others]), mean_of_present(dice_per_class(scored)[others])


def print_table(columns: list[Column], border: str | None) -> None:
    """Prints Markdown, a column a preset."""
    lines = {"preset": [f"`{column.name}`" for column in columns]}
    sizes = [network_size(column.spec) for column in columns]
    lines["input, px"] = [f"{column.spec.height}×{column.spec.width}" for column in columns]
    lines["parameters"] = [f"{size[0]:,}" for size in sizes]
    lines["GFLOP a picture, as trained"] = [f"{size[1]:.2f}" for size in sizes]
    lines["GFLOP a picture, as exported"] = [f"{size[2]:.2f}" for size in sizes]
    for name, file in (("float32", FLOAT_MODEL_FILE), ("int8", INT8_MODEL_FILE)):
        for threads in THREADS:
            label = f"LiteRT {name}, ms a picture, {threads} thread{'s' if threads > 1 else ''}: median (least)"
            lines[label] = milliseconds(columns, file, threads)
    lines["core-seconds of a training"] = [
        f"{statistics.mean(one.seconds for one in column.trainings):.0f}" for column in columns
    ]
    lines["`global_mean_iou`"] = [column.scores(mean_iou) for column in columns]
    lines["`global_mean_dice`"] = [column.scores(mean_dice) for column in columns]
    lines["`global_mean_iou` of int8"] = [column.scores(mean_iou, INT8_MODEL_FILE) for column in columns]
    for class_id, name in enumerate(columns[0].spec.class_names):
        lines[f"IoU {name}"] = [column.scores(lambda matrix, c=class_id: class_iou(matrix, c)) for column in columns]
    if border is not None:
        ignored = columns[0].spec.class_names.index(border)
        for number, score_name in enumerate(("global_mean_iou", "global_mean_dice")):
            cells = [column.scores(lambda matrix, n=number: without(matrix, ignored)[n]) for column in columns]
            lines[f"`{score_name}`, {border} ignored"] = cells
    for number, (name, cells) in enumerate(lines.items()):
        print(f"| {name} | " + " | ".join(cells) + " |")
        if number == 0:
            print("|---" * (len(cells) + 1) + "|")


def mean_iou(matrix: npt.NDArray[np.int64]) -> float:
    """`global_mean_iou`."""
    return mean_of_present(iou_per_class(matrix))


def mean_dice(matrix: npt.NDArray[np.int64]) -> float:
    """`global_mean_dice`."""
    return mean_of_present(dice_per_class(matrix))


def class_iou(matrix: npt.NDArray[np.int64], class_id: int) -> float:
    """The IoU of one class."""
    return float(iou_per_class(matrix)[class_id])


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--label_map")
    parser.add_argument("--class_names")
    parser.add_argument("--border", help="the class that is also left out of the scores")
    parser.add_argument("--presets", default=",".join(RECIPES), help="which of them, in this order")
    parser.add_argument("--image_size", help="for all; the default is each training's own choice")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3, help="of the kept pictures")
    parser.add_argument("--train_seeds", default="4,5,6")
    parser.add_argument("--val_fraction", type=float, default=0.1)
    parser.add_argument("--test_fraction", type=float, default=0.25)
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.train_seeds.split(",")]
    presets = arguments.presets.split(",")
    manifests = write_manifests(arguments)
    folders = {preset: [Path(arguments.output) / preset / f"seed_{seed}" for seed in seeds] for preset in presets}
    for number, seed in enumerate(seeds):
        for preset in presets:
            train(arguments, manifests, folders[preset][number], RECIPES[preset], seed)
    columns = [Column(preset, [score(folder, manifests[1]) for folder in folders[preset]]) for preset in presets]
    trained = columns[0].spec.training
    print(
        f"{trained['pictures']} pictures, {arguments.epochs} epochs, trainings of the seeds {arguments.train_seeds}\n"
    )
    print_table(columns, arguments.border)


if __name__ == "__main__":
    main()
