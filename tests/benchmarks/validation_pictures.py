"""How many pictures it takes to choose the best epoch: the score lost by choosing on few.

    python -m tests.benchmarks.validation_pictures --dataset FOLDER --output DIR --label_map 1=0,2=1,3=2 \
        --class_names pet,background,border --val_fraction 0.1 --test_fraction 0.22 --seed 3 --epochs 20

Trains once and scores every picture that is not trained on after every epoch, at the model's size. Then n of these are
drawn, the epoch that is best on them is compared with the epoch that is best on the others, and both are scored on the
others; repeated many times for each n. The scores of the epochs are kept in DIR, so that the draws can be repeated
without the training. Prints a table in Markdown.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.options import TrainOptions
from pipeline.core.scores import iou_per_class, mean_of_present
from pipeline.engines.quiet import start_keras

Matrices = npt.NDArray[np.int64]
"""(epochs, pictures, num_classes, num_classes) [truth, prediction]."""

DRAWS = 2_000


def train(options: TrainOptions) -> Matrices:
    """Trains and returns the confusion matrices of all pictures that are not trained on."""
    start_keras()
    from model.fit import EpochDone, confusions_of
    from model.preparation import prepare_job
    from model.train import make_fitter, new_network, set_seed_and_precision

    job = prepare_job(options, print)
    set_seed_and_precision(options)
    fitter = make_fitter(job, new_network(job, print), Path(options.output))
    others = np.concatenate([job.split.validation, job.split.test])
    found: list[npt.NDArray[np.int64]] = []

    def record(done: EpochDone) -> None:
        print(f"epoch {int(done.row['epoch'])}: {done.row['val_global_mean_iou']:.4f}", flush=True)
        matrices = confusions_of(fitter.network, job.data.store, others, job.labels.num_classes)
        found.append(np.stack([matrix for _, matrix in matrices]))

    fitter.run(options.epochs, 0, record, [])
    return np.stack(found)


def mean_iou(matrices: Matrices) -> npt.NDArray[np.float64]:
    """`global_mean_iou` of each epoch over pictures, (epochs,)."""
    return np.array([mean_of_present(iou_per_class(matrix)) for matrix in matrices.sum(axis=1)])


def lost(matrices: Matrices, pictures: int, rng: np.random.Generator) -> float:
    """What one choice of the epoch on some pictures, drawn at random, loses on the others."""
    order = rng.permutation(matrices.shape[1])
    chosen = int(np.argmax(mean_iou(matrices[:, order[:pictures]])))
    scores = mean_iou(matrices[:, order[pictures:]])
    return float(scores.max() - scores[chosen])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--label_map")
    parser.add_argument("--class_names", required=True)
    parser.add_argument("--preset", help="the default is that of `python -m model train`")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--val_fraction", type=float, default=0.1)
    parser.add_argument("--test_fraction", type=float, default=0.25)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 2, 5, 10, 20, 35, 50])
    arguments = vars(parser.parse_args())
    sizes = arguments.pop("pictures")
    arguments["class_names"] = tuple(arguments["class_names"].split(","))
    kept = Path(arguments["output"]) / "epochs.npy"
    if not kept.exists():
        matrices = train(TrainOptions(**arguments, image_size=(128, 128)))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, matrices)
    matrices = np.load(kept)
    scores = mean_iou(matrices)
    print(f"{matrices.shape[1]} pictures not trained on; epochs score {scores.min():.3f} to {scores.max():.3f}\n")
    print("| chosen on | lost on the others, mean | 95th percentile |\n|---:|---:|---:|")
    rng = np.random.default_rng(0)
    for size in sizes:
        losses = [lost(matrices, size, rng) for _ in range(DRAWS)]
        print(f"| {size} | {np.mean(losses):.4f} | {np.percentile(losses, 95):.4f} |")


if __name__ == "__main__":
    main()
