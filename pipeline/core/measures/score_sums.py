"""Confusion matrices summed over pictures, and the scores of `summary.json` that come from the sums."""

from array import array
from dataclasses import dataclass, field
from operator import add
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.core import scores
from pipeline.core.fixed_point import fixed, mean_of_fixed
from pipeline.core.measures.measure import SummaryPart
from pipeline.core.records import PictureRecord, Value
from pipeline.core.replicates import Replicates, interval_of

REPLICATE_ONE = 1 << 30
"""Scale of per-picture scores within replicates: 2^30 · 10^9 pictures still fit in 63 bits."""


@dataclass(slots=True)
class ScoreSums:
    """Sums over the pictures that have ground truth.

    Args:
        num_classes: the model's number of classes.
        replicates: bootstrap replicates of 3 · num_classes + 3 sums: intersection, truth and predicted pixels a class;
            mean IoU, mean Dice, and how many pictures have them. None where no intervals are wanted.
    """

    num_classes: int
    replicates: Replicates | None
    pictures: int = 0
    counts: "array[int]" = field(init=False)
    sample_present: list[int] = field(init=False)
    sample_iou_sum: list[int] = field(init=False)
    sample_dice_sum: list[int] = field(init=False)
    sample_mean_iou_sum: int = 0
    sample_mean_dice_sum: int = 0
    sample_means: int = 0

    @staticmethod
    def empty(num_classes: int, *, intervals: bool) -> "ScoreSums":
        """Sums over no pictures, with or without what intervals are computed from."""
        return ScoreSums(num_classes, Replicates(3 * num_classes + 3) if intervals else None)

    def __post_init__(self) -> None:
        self.counts = array("q", bytes(8 * self.num_classes**2))
        for name in _CLASS_SUMS:
            setattr(self, name, [0] * self.num_classes)

    @property
    def matrix(self) -> scores.Counts:
        """The (num_classes, num_classes) int64 sum of the confusion matrices; a view of the sums, not a copy."""
        return np.frombuffer(self.counts, np.int64).reshape(self.num_classes, self.num_classes)

    def add(self, value: Value, picture: PictureRecord) -> None:
        self.pictures += 1
        matrix = scores.matrix_of(value, self.num_classes)
        self.matrix[...] += matrix
        iou, dice = scores.iou_per_class(matrix), scores.dice_per_class(matrix)
        present = np.flatnonzero(~np.isnan(iou)).tolist()
        for class_id in present:
            self.sample_present[class_id] += 1
            self.sample_iou_sum[class_id] += fixed(float(iou[class_id]))
            self.sample_dice_sum[class_id] += fixed(float(dice[class_id]))
        mean_iou, mean_dice = (scores.mean_of_present(score) if present else 0.0 for score in (iou, dice))
        self.sample_means += bool(present)
        self.sample_mean_iou_sum += fixed(mean_iou)
        self.sample_mean_dice_sum += fixed(mean_dice)
        if self.replicates is not None:
            means = [round(mean_iou * REPLICATE_ONE), round(mean_dice * REPLICATE_ONE), int(bool(present))]
            terms = [np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0), means]
            self.replicates.add(picture.image_id, np.concatenate(terms).astype(np.int64))

    def merge(self, other: "ScoreSums") -> None:
        for name in ("pictures", "sample_mean_iou_sum", "sample_mean_dice_sum", "sample_means"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _CLASS_SUMS:
            setattr(self, name, list(map(add, getattr(self, name), getattr(other, name))))
        self.matrix[...] += other.matrix
        if self.replicates is not None and other.replicates is not None:
            self.replicates.merge(other.replicates)

    def summary(self) -> SummaryPart:
        replicated = None if self.replicates is None else _scores_of(self.replicates, self.num_classes)
        counts = self.matrix.tolist() if self.pictures else None
        return SummaryPart(
            classes=self._classes(replicated),
            metrics=self._metrics(replicated),
            keys={"confusion_matrix": {"rows": "truth", "columns": "prediction", "counts": counts}},
        )

    def _classes(self, replicated: "_Replicated | None") -> list[dict[str, Any]]:
        matrix = self.matrix
        truth_px, predicted_px, intersection_px = matrix.sum(axis=1), matrix.sum(axis=0), np.diagonal(matrix)
        counts = {
            "truth_px": truth_px,
            "predicted_px": predicted_px,
            "intersection_px": intersection_px,
            "union_px": truth_px + predicted_px - intersection_px,
        }
        overlaps = {"iou": scores.iou_per_class(matrix), "dice": scores.dice_per_class(matrix)}
        shares = {"precision": scores.precision_per_class(matrix), "recall": scores.recall_per_class(matrix)}
        rows: list[dict[str, Any]] = []
        for k, pictures in enumerate(self.sample_present):
            row: dict[str, Any] = {}
            for name, values in overlaps.items():
                estimate = scores.known(values[k])
                drawn = None if replicated is None else replicated.classes[name][:, k]
                row |= interval_of(estimate, drawn, pictures).keys_of(name, estimate)
            row |= {name: scores.known(values[k]) for name, values in shares.items()}
            row |= {name: int(values[k]) if self.pictures else None for name, values in counts.items()}
            row["samplewise_iou"] = mean_of_fixed(self.sample_iou_sum[k], pictures)
            row["samplewise_dice"] = mean_of_fixed(self.sample_dice_sum[k], pictures)
            rows.append(row)
        return rows

    def _metrics(self, replicated: "_Replicated | None") -> dict[str, Any]:
        matrix = self.matrix
        values = {
            "pixel_accuracy": scores.known(scores.pixel_accuracy(matrix)),
            "global_mean_iou": scores.known(scores.mean_of_present(scores.iou_per_class(matrix))),
            "global_mean_dice": scores.known(scores.mean_of_present(scores.dice_per_class(matrix))),
            "frequency_weighted_iou": scores.known(scores.frequency_weighted_iou(matrix)),
            "samplewise_mean_iou": mean_of_fixed(self.sample_mean_iou_sum, self.sample_means),
            "samplewise_mean_dice": mean_of_fixed(self.sample_mean_dice_sum, self.sample_means),
        }
        keys: dict[str, Any] = {}
        for name, estimate in values.items():
            drawn = None if replicated is None else replicated.metrics[name]
            keys |= interval_of(estimate, drawn, self.sample_means).keys_of(name, estimate)
        return keys


class _Replicated(NamedTuple):
    """Scores in each replicate, NaN where a replicate has none.

    Args:
        classes: (REPLICATES, num_classes) each, by the name of the score.
        metrics: (REPLICATES,) each, by the name of the score.
    """

    classes: dict[str, npt.NDArray[np.float64]]
    metrics: dict[str, npt.NDArray[np.float64]]


def _scores_of(replicates: Replicates, num_classes: int) -> _Replicated:
    sums = replicates.sums
    both, true, predicted = (sums[:, part * num_classes : (part + 1) * num_classes] for part in range(3))
    mean_iou_sum, mean_dice_sum, means = (sums[:, 3 * num_classes + part] for part in range(3))
    iou, dice = scores.iou_from_counts(both, true, predicted), scores.dice_from_counts(both, true, predicted)
    all_px = true.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        metrics = {
            "pixel_accuracy": both.sum(axis=1) / all_px,
            "global_mean_iou": _row_means(iou),
            "global_mean_dice": _row_means(dice),
            "frequency_weighted_iou": (true * np.nan_to_num(iou)).sum(axis=1) / all_px,
            "samplewise_mean_iou": mean_iou_sum / REPLICATE_ONE / means,
            "samplewise_mean_dice": mean_dice_sum / REPLICATE_ONE / means,
        }
    return _Replicated({"iou": iou, "dice": dice}, metrics)


def _row_means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    present = ~np.isnan(values)
    means: npt.NDArray[np.float64] = np.where(present, values, 0.0).sum(axis=1) / present.sum(axis=1)
    return means


_CLASS_SUMS = ("sample_present", "sample_iou_sum", "sample_dice_sum")
