"""Populations of pictures with known scores, to measure how often intervals contain them.

Each population draws the confusion matrices of independent pictures with three classes: 0 is the background, 1 an
object that most pictures show, 2 a smaller one. True scores are those of a very large sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import scores
from pipeline.core.fixed_point import FRACTION_ONE
from pipeline.core.measures.left_out import SCORE_ONE
from pipeline.core.measures.score_sums import ScoreSums

NUM_CLASSES = 3
Matrices = npt.NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], Matrices]
Values = npt.NDArray[np.float64]
_LARGE_SAMPLE = 400_000
_AT_A_TIME = 50_000


@dataclass(frozen=True)
class Pictures:
    """The distributions that pictures are drawn from, each of one number per picture.

    Args:
        px: pixels per picture: the standard deviation of the logarithm, around 200,000 px.
        object_share: share of the picture that is class 1.
        small_share: share of the picture that is class 2.
        object_hits: share of class 1's pixels that are found.
        small_hits: share of class 2's pixels that are found.
        clutter: maximum share of the background that is taken for class 1; a quarter of it for class 2.
    """

    px: float
    object_share: Callable[[np.random.Generator, int], Values]
    small_share: Callable[[np.random.Generator, int], Values]
    object_hits: Callable[[np.random.Generator, Values], Values]
    small_hits: Callable[[np.random.Generator, Values], Values]
    clutter: float

    def __call__(self, rng: np.random.Generator, count: int) -> Matrices:
        """Draws so many pictures: (count, 3, 3) int64 confusion matrices [truth, prediction]."""
        px = 200_000 * np.exp(self.px * rng.standard_normal(count))
        shares = self.object_share(rng, count), self.small_share(rng, count)
        hits = self.object_hits(rng, shares[0]), self.small_hits(rng, shares[1])
        (truth, small), background = (px * share for share in shares), px * (1 - shares[0] - shares[1])
        missed, small_missed = truth * (1 - hits[0]), small * (1 - hits[1])
        # Clutter is small in most pictures and large in a few. The outline of what is found is wrong on both sides.
        outline, small_outline = np.where(hits[0] > 0, missed, 0), np.where(hits[1] > 0, small_missed, 0)
        false = self.clutter * background * rng.random(count) ** 4 + 0.7 * outline * rng.random(count)
        small_false = self.clutter / 4 * background * rng.random(count) ** 4 + 0.7 * small_outline * rng.random(count)
        false, small_false = np.minimum(false, background / 3), np.minimum(small_false, background / 3)
        matrix = np.empty((count, NUM_CLASSES, NUM_CLASSES))
        matrix[:, 0] = np.stack([background - false - small_false, false, small_false], axis=1)
        # Some of the missed pixels are taken for the other object, if the picture shows it.
        swapped = 0.2 * np.where(small > 0, missed, 0), 0.3 * small_missed
        matrix[:, 1] = np.stack([missed - swapped[0], truth - missed, swapped[0]], axis=1)
        matrix[:, 2] = np.stack([small_missed - swapped[1], swapped[1], small - small_missed], axis=1)
        return np.rint(matrix).astype(np.int64)


def _beta(a: float, b: float, scale: float = 1.0) -> Callable[[np.random.Generator, Any], Values]:
    """Beta distributed values."""

    def draw(rng: np.random.Generator, like: int | Values) -> Values:
        return scale * rng.beta(a, b, like if isinstance(like, int) else len(like))

    return draw


def _heavy(median: float, largest: float) -> Callable[[np.random.Generator, int], Values]:
    """Log-normal shares: the largest of a hundred is about thirty times the median."""
    return lambda rng, count: np.minimum(largest, median * np.exp(1.5 * rng.standard_normal(count)))


def _in_some(presence: float, draw: Callable[[np.random.Generator, int], Values]) -> Any:
    """Shares that are 0 in most pictures."""
    return lambda rng, count: np.where(rng.random(count) < presence, draw(rng, count), 0.0)


def _missed_in(share: float, hits: Callable[[np.random.Generator, Values], Values]) -> Any:
    """Hits that are 0 in some pictures: the object is not found at all."""
    return lambda rng, like: np.where(rng.random(len(like)) < share, 0.0, hits(rng, like))


def _by_size(rng: np.random.Generator, share: Values) -> Values:
    """The larger an object, the better it is found: 60 % at a hundredth of the picture, 90 % at a half."""
    mean = 1 / (1 + np.exp(-(1.6 + 0.8 * np.log(share / 0.25 + 1e-9))))
    return rng.beta(8 * mean, 8 * (1 - mean) + 0.05)


_SHARE, _SMALL_SHARE = _beta(2, 4), _beta(2, 5, 0.3)
_HITS, _SMALL_HITS = _beta(9, 2), _beta(6, 2)
_ordinary = partial(Pictures, 0.4, _SHARE, _SMALL_SHARE, _HITS, _SMALL_HITS, 0.02)


def _perfect(missed: float) -> Pictures:
    hits, small_hits = _missed_in(missed, _beta(150, 2)), _missed_in(missed, _beta(150, 3))
    return Pictures(0.4, _beta(3, 6), _beta(3, 6, 0.3), hits, small_hits, 0.0005)


def _rare(presence: float, *, hits: Callable[[np.random.Generator, Values], Values] = _SMALL_HITS) -> Pictures:
    return Pictures(0.4, _SHARE, _in_some(presence, _SMALL_SHARE), _HITS, hits, 0.0)


def _never_predicted(rng: np.random.Generator, count: int) -> Matrices:
    """Class 2 is in a fifth of the pictures, and all of it is taken for background."""
    matrices = _rare(0.2)(rng, count)
    matrices[:, :, 0] += matrices[:, :, 2]
    matrices[:, :, 2] = 0
    return matrices


def _false_alarms(presence: float) -> Draw:
    """Class 2 is in 5 % of the pictures, and small parts of as many others are taken for it."""

    def draw(rng: np.random.Generator, count: int) -> Matrices:
        matrices = _rare(presence)(rng, count)
        alarms = 2_000 * np.exp(rng.standard_normal(count)) * (rng.random(count) < 0.05)
        alarms = np.minimum(np.rint(alarms), matrices[:, 0, 0] // 2).astype(np.int64)
        matrices[:, 0, 0] -= alarms
        matrices[:, 0, 2] += alarms
        return matrices

    return draw


POPULATIONS: dict[str, tuple[Draw, int]] = {
    "ordinary": (_ordinary(), 1),
    "alike": (Pictures(0.1, _beta(8, 16), _beta(8, 20, 0.3), _beta(60, 10), _beta(50, 15), 0.004), 1),
    "large ones found better": (
        Pictures(0.4, _beta(1.2, 3), _SMALL_SHARE, _by_size, _SMALL_HITS, 0.02),
        1,
    ),
    "a quarter difficult": (
        Pictures(
            0.4,
            _SHARE,
            _SMALL_SHARE,
            lambda rng, like: np.where(
                rng.random(len(like)) < 0.25, rng.beta(1, 4, len(like)), rng.beta(14, 2, len(like))
            ),
            _SMALL_HITS,
            0.02,
        ),
        1,
    ),
    "nearly perfect": (_perfect(0.0), 1),
    "nearly perfect, 3 % missed": (_perfect(0.03), 1),
    "mostly missed": (Pictures(0.4, _SHARE, _SMALL_SHARE, _missed_in(0.6, _beta(2, 4)), _beta(2, 3), 0.05), 1),
    "heavy-tailed picture sizes": (Pictures(1.5, _SHARE, _SMALL_SHARE, _HITS, _SMALL_HITS, 0.02), 1),
    "heavy-tailed object sizes": (
        Pictures(0.1, _heavy(0.01, 0.8), _heavy(0.002, 0.1), _HITS, _SMALL_HITS, 0.001),
        1,
    ),
    "heavy-tailed, large ones found better": (
        Pictures(0.1, _heavy(0.01, 0.8), _heavy(0.002, 0.1), _by_size, _SMALL_HITS, 0.001),
        1,
    ),
    "class in 5 % of pictures": (_rare(0.05), 2),
    "class in 1 % of pictures": (_rare(0.01), 2),
    "class in 5 %, false in 5 %": (_false_alarms(0.05), 2),
    "only false, in 5 %": (_false_alarms(0.0), 2),
    "never predicted": (_never_predicted, 2),
}
"""By name: how pictures are drawn, and the class to examine."""


def sums_of(matrices: Matrices, block_ids: npt.NDArray[np.int64], blocks: int) -> ScoreSums:
    """The sums of a job over these pictures, as adding them one at a time makes them.

    Args:
        matrices: (count, num_classes, num_classes) int64 confusion matrices.
        block_ids: (count,) the block of each picture.
        blocks: how many blocks there are.
    """
    num_classes = matrices.shape[1]
    both = np.diagonal(matrices, axis1=1, axis2=2)
    true, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    overlaps = scores.iou_from_counts(both, true, predicted), scores.dice_from_counts(both, true, predicted)
    present = ~np.isnan(overlaps[0])
    classes, has_mean = present.sum(axis=1), present.any(axis=1)
    means = [np.nan_to_num(overlap).sum(axis=1) / np.maximum(classes, 1) for overlap in overlaps]
    sums = ScoreSums.empty(num_classes, blocks)
    assert sums.blocks is not None
    terms = [both, true, predicted, *(_integers(mean, SCORE_ONE) for mean in means), has_mean]
    np.add.at(sums.blocks.sums, block_ids, np.column_stack(terms))
    sums.pictures, sums.sample_means = len(matrices), int(has_mean.sum())
    sums.matrix[...] += matrices.sum(axis=0)
    sums.sample_present = present.sum(axis=0).tolist()
    sums.sample_iou_sum, sums.sample_dice_sum = (
        _integers(np.nan_to_num(overlap), FRACTION_ONE).sum(axis=0).tolist() for overlap in overlaps
    )
    sums.sample_mean_iou_sum, sums.sample_mean_dice_sum = (int(_integers(mean, FRACTION_ONE).sum()) for mean in means)
    return sums


def _integers(values: Values, one: int) -> npt.NDArray[np.int64]:
    return np.rint(values * one).astype(np.int64)


@cache
def true_scores(name: str) -> dict[str, Values]:
    """The scores of a population: `iou` and `dice` by class, and the metrics that are not means of these."""
    draw = POPULATIONS[name][0]
    rng = np.random.default_rng(1)
    sums = ScoreSums.empty(NUM_CLASSES, 0)
    iou_sum = dice_sum = pictures = 0.0
    for _ in range(_LARGE_SAMPLE // _AT_A_TIME):
        matrices = draw(rng, _AT_A_TIME)
        part = sums_of(matrices, np.zeros(len(matrices), np.int64), 1)
        sums.matrix[...] += part.matrix
        iou_sum, dice_sum = iou_sum + part.sample_mean_iou_sum, dice_sum + part.sample_mean_dice_sum
        pictures += part.sample_means
    return {
        "iou": scores.iou_per_class(sums.matrix),
        "dice": scores.dice_per_class(sums.matrix),
        "pixel_accuracy": np.array(scores.pixel_accuracy(sums.matrix)),
        "frequency_weighted_iou": np.array(scores.frequency_weighted_iou(sums.matrix)),
        "samplewise_mean_iou": np.array(iou_sum / pictures / FRACTION_ONE),
        "samplewise_mean_dice": np.array(dice_sum / pictures / FRACTION_ONE),
    }
