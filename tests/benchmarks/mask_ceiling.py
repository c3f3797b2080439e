"""The score of a perfect network of a given input size: true masks shrunk and brought back as the job does.

    python -m tests.benchmarks.mask_ceiling --dataset FOLDER --label_map 0=0,255=1 --class_names background,nucleus \
        --test_fraction 0.25 --val_fraction 0.15 --seed 3 --sizes 128 192 256

The logits of the perfect network are each class's share of the pixels that a logit covers (Pillow's antialiased
bilinear filter, as pictures are shrunk), or one for the class at the centre (nearest, as training masks are shrunk).
Scored are the kept pictures of `python -m model train` with the same options; --all takes every picture. Prints a table
in Markdown.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from model.classes import resolve_classes
from model.data.dataset import load_pair
from model.data.encoded_pairs import open_source
from model.data.image_size import class_shares
from model.data.split import split_pictures
from model.options import TrainOptions
from pipeline.core.labels import ClassIds, parse_ignore_label
from pipeline.core.resize import mask_from_logits, resize_mask_nearest
from pipeline.core.scores import confusion_matrix, iou_per_class, mean_of_present

Logits = npt.NDArray[np.float32]


def antialiased(mask: ClassIds, num_classes: int, size: int) -> Logits:
    """Each class's share of the pixels around every logit, (size, size, num_classes) in 0..1."""
    return class_shares(mask, range(num_classes), (size, size))


def nearest_class(mask: ClassIds, num_classes: int, size: int) -> Logits:
    """One for the class at every logit's centre, (size, size, num_classes)."""
    small = resize_mask_nearest(mask, size, size)
    return (small[..., None] == np.arange(num_classes)).astype(np.float32)


def ceiling(masks: Sequence[ClassIds], num_classes: int, size: int, shrink: Callable[..., Logits]) -> float:
    """`global_mean_iou` of masks, (H, W) class ids, against themselves after the way through the model's size."""
    total = np.zeros((num_classes, num_classes), np.int64)
    for mask in masks:
        back = mask_from_logits(shrink(mask, num_classes, size), *mask.shape)
        total += confusion_matrix(mask, back, num_classes)
    return float(mean_of_present(iou_per_class(total)))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--ground_truth")
    parser.add_argument("--label_map")
    parser.add_argument("--ignore_label", type=parse_ignore_label)
    parser.add_argument("--class_names", required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192, 256])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--val_fraction", type=float, default=0.1)
    parser.add_argument("--test_fraction", type=float, default=0.1)
    parser.add_argument("--all", action="store_true", help="score every picture, not the kept ones alone")
    arguments = parser.parse_args()
    options = TrainOptions(
        arguments.dataset,
        "",
        ground_truth=arguments.ground_truth,
        label_map=arguments.label_map,
        ignore_label=arguments.ignore_label,
        class_names=tuple(arguments.class_names.split(",")),
    )
    labels, _ = resolve_classes(options)
    pairs = list(open_source(options.dataset, options.ground_truth))
    if not arguments.all:
        ids = [pair.pair_id for pair in pairs]
        split = split_pictures(ids, arguments.seed, arguments.val_fraction, arguments.test_fraction)
        pairs = [pairs[index] for index in split.test]
    masks = [load_pair(pair, labels, channels=3).mask for pair in pairs]
    print(f"{len(masks)} masks\n\n| input, px | antialiased | nearest |\n|---:|---:|---:|")
    for size in arguments.sizes:
        scores = [ceiling(masks, labels.num_classes, size, shrink) for shrink in (antialiased, nearest_class)]
        print(f"| {size} | {scores[0]:.3f} | {scores[1]:.3f} |")


if __name__ == "__main__":
    main()
