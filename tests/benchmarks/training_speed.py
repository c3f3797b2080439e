"""Whether a training waits for its input or for the network, and what batch size, XLA and mixed precision change.

    python -m tests.benchmarks.training_speed --dataset FOLDER --label_map 1=0,2=1,3=2 \
        --class_names pet,background,border --image_size 128

Each row trains a network of --preset for --steps steps on pictures as `python -m model train` prepares and varies them
(real), and on one batch that is repeated (constant), in turns, and takes the least of --turns. Core time is the CPU
time of the process, all threads: the difference of the two is what the input costs, also on a busy machine. Wall time
depends on what else runs. `input` is the share of the real steps' core time that the constant ones do not need. Prints
a table in Markdown, milliseconds a picture.
"""

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.options import DEFAULT_PRESET, TrainOptions
from pipeline.engines.quiet import start_keras

if TYPE_CHECKING:
    from model.job import TrainingJob

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        batch_size: pictures a step.
        jit: whether XLA compiles the step.
        precision: as `--precision` of a training, or `mixed_bfloat16`.
    """

    batch_size: int
    jit: bool = False
    precision: str = "float32"

    def __str__(self) -> str:
        return f"batch {self.batch_size}, {self.precision}{', XLA' if self.jit else ''}"


@dataclass(frozen=True)
class Cost:
    """Milliseconds a picture."""

    wall_ms: float
    core_ms: float


def core_s() -> float:
    """The CPU time of the process, all threads, seconds."""
    used = os.times()
    return used.user + used.system


def measure(variant: Variant, prepared: "TrainingJob", steps: int, turns: int) -> tuple[Cost, Cost]:
    """Trains on real and on constant batches, in turns.

    Returns:
        The cost of a picture with real and with constant batches.
    """
    import keras
    import tensorflow as tf

    from model.data.batches import epoch_batches
    from model.train import make_fitter, new_network, set_seed_and_precision

    job = replace(prepared, options=replace(prepared.options, batch_size=variant.batch_size))
    set_seed_and_precision(job.options)
    keras.mixed_precision.set_dtype_policy(variant.precision)
    network = new_network(job, lambda line: None)
    fitter = make_fitter(job, network, Path())
    trained, pictures = fitter.network, fitter.pictures
    if variant.jit:
        trained.compile(trained.optimizer, trained.loss, jit_compile=True)
    keras.mixed_precision.set_dtype_policy("float32")

    def real(epoch: int) -> object:
        return epoch_batches(pictures, epoch).repeat().take(steps)

    image, mask = pictures.batch(0, pictures.order(0)[: variant.batch_size])
    constant = tf.data.Dataset.from_tensors((image, mask)).cache().repeat()

    def cost(batches: object) -> Cost:
        wall, core = time.perf_counter(), core_s()
        trained.fit(batches, verbose=0, shuffle=False)
        count = steps * variant.batch_size
        return Cost(1000 * (time.perf_counter() - wall) / count, 1000 * (core_s() - core) / count)

    trained.fit(constant.take(WARM_UP_STEPS), verbose=0)
    found: tuple[list[Cost], list[Cost]] = ([], [])
    for turn in range(turns):
        found[0].append(cost(real(turn)))
        found[1].append(cost(constant.take(steps)))
    return least(found[0]), least(found[1])


def least(costs: list[Cost]) -> Cost:
    """The smallest wall and core time."""
    return Cost(min(one.wall_ms for one in costs), min(one.core_ms for one in costs))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--label_map")
    parser.add_argument("--class_names", required=True)
    parser.add_argument("--preset", default=DEFAULT_PRESET)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--augment", default="light")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    start_keras()
    options = TrainOptions(
        arguments.dataset,
        "",
        label_map=arguments.label_map,
        class_names=tuple(arguments.class_names.split(",")),
        preset=arguments.preset,
        image_size=(arguments.image_size, arguments.image_size),
        augment=arguments.augment,
    )
    from model.preparation import prepare_job

    job = prepare_job(options, lambda line: None)
    first = arguments.batch_sizes[0]
    variants = [Variant(size) for size in arguments.batch_sizes]
    variants += [Variant(first, jit=True), Variant(first, precision="mixed_bfloat16")]
    print("| | core, real | core, constant | input | wall, real | wall, constant |\n|---|---:|---:|---:|---:|---:|")
    for variant in variants:
        real, constant = measure(variant, job, arguments.steps, arguments.turns)
        share = max(0.0, 1.0 - constant.core_ms / real.core_ms)
        core = f"{real.core_ms:.1f} | {constant.core_ms:.1f} | {share:.0%}"
        cells = f"{core} | {real.wall_ms:.1f} | {constant.wall_ms:.1f}"
        print(f"| {variant} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
