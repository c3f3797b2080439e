"""The job's numbers as exact sums that merge in any order.

Counts are integers. Fractions and per-picture scores are summed as integers, round(x · 2^40), squares likewise, so
addition is associative and the last digit doesn't depend on sharding. Percentiles come from a 10,000-bin histogram.
Intervals come from a Poisson bootstrap over pictures (Chamandy, Muralidharan, Najmi and Naidu, "Estimating uncertainty
for massive data streams", Google 2012): each picture enters each replicate as often as a Poisson(1) draw that hangs on
its id alone, so replicates merge like everything else.
"""

import hashlib
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.core import scores
from pipeline.core.records import PictureRecord

FRACTION_ONE = 1 << 40
HISTOGRAM_BINS = 10_000
REPLICATES = 500
_REPLICATE_ONE = 1 << 30
"""Scale of per-picture scores within replicates: 2^30 · 10^9 pictures still fit in 63 bits."""

_POISSON_ONE_CDF = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(13)])
_POISSON_THRESHOLDS = np.minimum(np.rint(_POISSON_ONE_CDF * 2**32), 2**32 - 1).astype(np.uint32)


def fixed(value: float) -> int:
    """`value` as the integer round(value · 2^40)."""
    return round(value * FRACTION_ONE)


def replicate_weights(image_id: str) -> npt.NDArray[np.int64]:
    """How often a picture enters each bootstrap replicate.

    Args:
        image_id: the picture's id; the same id always gives the same weights, on any machine.

    Returns:
        (REPLICATES,) int64 draws from a Poisson distribution of mean 1.
    """
    digest = hashlib.shake_128(image_id.encode("utf-8", "surrogateescape")).digest(4 * REPLICATES)
    uniform = np.frombuffer(digest, "<u4")
    return np.searchsorted(_POISSON_THRESHOLDS, uniform, side="right").astype(np.int64)


class Totals:
    """Sums over pictures; `add` and `merge` in any order and grouping give equal totals.

    Args:
        num_classes: the model's number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.pictures = 0
        self.scored = 0
        self.area_px = [0] * num_classes
        self.area_m2_fixed = [0] * num_classes
        self.pictures_with_m2 = 0
        self.present = [0] * num_classes
        self.fraction_sum = [0] * num_classes
        self.fraction_square_sum = [0] * num_classes
        self.fraction_min: list[float] = [math.inf] * num_classes
        self.fraction_max: list[float] = [-math.inf] * num_classes
        self.histogram: dict[int, int] = {}
        self.confusion = np.zeros((num_classes, num_classes), np.int64)
        self.sample_present = [0] * num_classes
        self.sample_iou_sum = [0] * num_classes
        self.sample_dice_sum = [0] * num_classes
        self.sample_mean_iou_sum = 0
        self.sample_mean_dice_sum = 0
        self.sample_means = 0
        # Columns: intersection, truth and predicted px a class; sum of mean IoU, of mean Dice, and their number.
        self.replicates = np.zeros((REPLICATES, 3 * num_classes + 3), np.int64)

    def __eq__(self, other: object) -> bool:
        """Whether every sum is the same."""
        if not isinstance(other, Totals):
            return NotImplemented
        return all(np.array_equal(mine, vars(other)[name]) for name, mine in vars(self).items())

    __hash__ = None  # type: ignore[assignment]  # mutable

    def add(self, record: PictureRecord) -> "Totals":
        """Adds one picture.

        Args:
            record: a picture of the same number of classes.

        Returns:
            Self.
        """
        self.pictures += 1
        picture_px = record.width * record.height
        if record.pixel_area_m2 is not None:
            self.pictures_with_m2 += 1
        for class_id, area_px in enumerate(record.area_px):
            fraction = area_px / picture_px
            self.area_px[class_id] += area_px
            self.present[class_id] += area_px > 0
            self.fraction_sum[class_id] += fixed(fraction)
            self.fraction_square_sum[class_id] += fixed(fraction * fraction)
            self.fraction_min[class_id] = min(self.fraction_min[class_id], fraction)
            self.fraction_max[class_id] = max(self.fraction_max[class_id], fraction)
            key = class_id * HISTOGRAM_BINS + min(area_px * HISTOGRAM_BINS // picture_px, HISTOGRAM_BINS - 1)
            self.histogram[key] = self.histogram.get(key, 0) + 1
            if record.pixel_area_m2 is not None:
                self.area_m2_fixed[class_id] += fixed(area_px * record.pixel_area_m2)
        if record.confusion is not None:
            self._add_scores(record.image_id, matrix_of(record))
        return self

    def _add_scores(self, image_id: str, matrix: scores.Counts) -> None:
        self.scored += 1
        self.confusion += matrix
        iou, dice = scores.iou_per_class(matrix), scores.dice_per_class(matrix)
        for class_id in np.flatnonzero(~np.isnan(iou)).tolist():
            self.sample_present[class_id] += 1
            self.sample_iou_sum[class_id] += fixed(float(iou[class_id]))
            self.sample_dice_sum[class_id] += fixed(float(dice[class_id]))
        mean_iou, mean_dice = scores.mean_of_present(iou), scores.mean_of_present(dice)
        has_mean = not math.isnan(mean_iou)
        if has_mean:
            self.sample_means += 1
            self.sample_mean_iou_sum += fixed(mean_iou)
            self.sample_mean_dice_sum += fixed(mean_dice)
        row = np.concatenate(
            [
                np.diagonal(matrix),
                matrix.sum(axis=1),
                matrix.sum(axis=0),
                [round(mean_iou * _REPLICATE_ONE) if has_mean else 0],
                [round(mean_dice * _REPLICATE_ONE) if has_mean else 0],
                [int(has_mean)],
            ]
        ).astype(np.int64)
        self.replicates += np.multiply.outer(replicate_weights(image_id), row)

    def merge(self, other: "Totals") -> "Totals":
        """Adds another part's sums.

        Args:
            other: totals of the same number of classes over other pictures.

        Returns:
            Self.
        """
        for name in ("pictures", "scored", "pictures_with_m2", "sample_mean_iou_sum", "sample_mean_dice_sum"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.sample_means += other.sample_means
        for name in _CLASS_SUMS:
            setattr(self, name, [a + b for a, b in zip(getattr(self, name), getattr(other, name), strict=True)])
        self.fraction_min = list(map(min, self.fraction_min, other.fraction_min))
        self.fraction_max = list(map(max, self.fraction_max, other.fraction_max))
        for key, count in other.histogram.items():
            self.histogram[key] = self.histogram.get(key, 0) + count
        self.confusion = self.confusion + other.confusion
        self.replicates = self.replicates + other.replicates
        return self

    @staticmethod
    def of(records: Iterable[PictureRecord], num_classes: int) -> "Totals":
        """The totals of some pictures."""
        totals = Totals(num_classes)
        for record in records:
            totals.add(record)
        return totals


_CLASS_SUMS = (
    "area_px",
    "area_m2_fixed",
    "present",
    "fraction_sum",
    "fraction_square_sum",
    "sample_present",
    "sample_iou_sum",
    "sample_dice_sum",
)


def matrix_of(record: PictureRecord) -> scores.Counts:
    """A scored picture's (num_classes, num_classes) int64 confusion matrix.

    Raises:
        ValueError: the picture has no ground truth.
    """
    if record.confusion is None:
        raise ValueError(f"{record.image_id} has no ground truth")
    matrix = np.zeros(record.num_classes**2, np.int64)
    matrix[list(record.confusion[0::2])] = record.confusion[1::2]
    return matrix.reshape(record.num_classes, record.num_classes)


def cells_of(matrix: scores.Counts) -> tuple[int, ...]:
    """A confusion matrix without its zeros, as `PictureRecord.confusion` keeps it."""
    flat = matrix.reshape(-1)
    cells = np.flatnonzero(flat)
    return tuple(np.stack([cells, flat[cells]], axis=1).reshape(-1).tolist())
