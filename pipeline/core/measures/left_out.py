"""A job's scores with each block of pictures left out, from which their intervals are computed."""

import numpy as np

from pipeline.core import scores
from pipeline.core.blocks import BlockSums
from pipeline.core.intervals import LeftOut

SCORE_ONE = 1 << 30
"""The integer that represents 1 in the sums of per-picture scores: 2^30 · 10^9 pictures fit in 63 bits."""


def scores_left_out(blocks: BlockSums, num_classes: int) -> dict[str, LeftOut]:
    """Computes every score that has an interval, with each block left out.

    Args:
        blocks: 3 · num_classes + 3 sums per block: intersection, truth and predicted pixels by class; then mean IoU and
            mean Dice of each picture, times `SCORE_ONE`, and how many pictures have them.
        num_classes: the model's number of classes.

    Returns:
        `iou` and `dice` with a score per class, and the metrics of the whole job that are not means over classes.
    """
    both, true, predicted, samples = np.split(blocks.left_out(), [num_classes * part for part in (1, 2, 3)], axis=1)
    own_both, own_true, own_predicted, own_samples = np.split(
        blocks.sums, [num_classes * part for part in (1, 2, 3)], axis=1
    )
    iou, dice = scores.iou_from_counts(both, true, predicted), scores.dice_from_counts(both, true, predicted)
    own_px, own_pictures = own_true.sum(axis=1, keepdims=True), own_samples[:, [2]]
    with np.errstate(divide="ignore", invalid="ignore"):
        px = true.sum(axis=1, keepdims=True).astype(np.float64)
        accuracy = both.sum(axis=1, keepdims=True) / px
        weighted_iou = (true * np.nan_to_num(iou)).sum(axis=1, keepdims=True) / px
        mean_iou, mean_dice = (samples[:, [part]] / SCORE_ONE / samples[:, [2]] for part in (0, 1))
    return {
        "iou": LeftOut(iou, own_true + own_predicted - own_both),
        "dice": LeftOut(dice, own_true + own_predicted),
        "pixel_accuracy": LeftOut(accuracy, own_px),
        "frequency_weighted_iou": LeftOut(weighted_iou, own_px),
        "samplewise_mean_iou": LeftOut(mean_iou, own_pictures),
        "samplewise_mean_dice": LeftOut(mean_dice, own_pictures),
    }
