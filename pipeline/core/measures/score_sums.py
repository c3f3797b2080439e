"""Confusion matrices summed over pictures, and the scores of `summary.json` that come from the sums."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import add
from typing import Any

import numpy as np

from pipeline.core import scores
from pipeline.core.blocks import BlockSums
from pipeline.core.fixed_point import fixed, mean_of_fixed
from pipeline.core.intervals import LeftOut, interval_of
from pipeline.core.measures.left_out import SCORE_ONE, scores_left_out
from pipeline.core.measures.measure import SummaryPart
from pipeline.core.records import PictureRecord, Value


@dataclass(slots=True)
class ScoreSums:
    """Sums over the pictures that have ground truth.

    Args:
        num_classes: the model's number of classes.
        blocks: sums for the intervals, in the columns that `scores_left_out` reads; None for no intervals.
    """

    num_classes: int
    blocks: BlockSums | None
    pictures: int = 0
    counts: "array[int]" = field(init=False)
    sample_present: list[int] = field(init=False)
    sample_iou_sum: list[int] = field(init=False)
    sample_dice_sum: list[int] = field(init=False)
    sample_mean_iou_sum: int = 0
    sample_mean_dice_sum: int = 0
    sample_means: int = 0

    @staticmethod
    def empty(num_classes: int, blocks: int) -> "ScoreSums":
        """Sums over no pictures, with a number of blocks for the intervals; 0 for no intervals."""
        return ScoreSums(num_classes, BlockSums(blocks, 3 * num_classes + 3) if blocks else None)

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
        if self.blocks is not None:
            means = [round(mean_iou * SCORE_ONE), round(mean_dice * SCORE_ONE), int(bool(present))]
            terms = [np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0), means]
            self.blocks.add(picture.image_id, np.concatenate(terms).astype(np.int64))

    def merge(self, other: "ScoreSums") -> None:
        for name in ("pictures", "sample_mean_iou_sum", "sample_mean_dice_sum", "sample_means"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _CLASS_SUMS:
            setattr(self, name, list(map(add, getattr(self, name), getattr(other, name))))
        self.matrix[...] += other.matrix
        if self.blocks is not None and other.blocks is not None:
            self.blocks.merge(other.blocks)

    def summary(self) -> SummaryPart:
        left_out = {} if self.blocks is None else scores_left_out(self.blocks, self.num_classes)
        counts = self.matrix.tolist() if self.pictures else None
        return SummaryPart(
            classes=self._classes(left_out),
            metrics=self._metrics(left_out),
            keys={"confusion_matrix": {"rows": "truth", "columns": "prediction", "counts": counts}},
        )

    def _classes(self, left_out: Mapping[str, LeftOut]) -> list[dict[str, Any]]:
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
                without = left_out.get(name)
                interval = interval_of(values[[k]], without and without.of(k), [pictures])
                row |= interval.keys_of(name, scores.known(values[k]))
            row |= {name: scores.known(values[k]) for name, values in shares.items()}
            row |= {name: int(values[k]) if self.pictures else None for name, values in counts.items()}
            row["samplewise_iou"] = mean_of_fixed(self.sample_iou_sum[k], pictures)
            row["samplewise_dice"] = mean_of_fixed(self.sample_dice_sum[k], pictures)
            rows.append(row)
        return rows

    def _metrics(self, left_out: Mapping[str, LeftOut]) -> dict[str, Any]:
        matrix, means = self.matrix, self.sample_means
        of_classes = {"global_mean_iou": "iou", "global_mean_dice": "dice"}
        values = {
            "pixel_accuracy": [scores.pixel_accuracy(matrix)],
            "global_mean_iou": scores.iou_per_class(matrix),
            "global_mean_dice": scores.dice_per_class(matrix),
            "frequency_weighted_iou": [scores.frequency_weighted_iou(matrix)],
            "samplewise_mean_iou": [mean_of_fixed(self.sample_mean_iou_sum, means)],
            "samplewise_mean_dice": [mean_of_fixed(self.sample_mean_dice_sum, means)],
        }
        keys: dict[str, Any] = {}
        for name, value in values.items():
            averaged = np.array(value, np.float64)
            pictures = self.sample_present if name in of_classes else [means]
            interval = interval_of(averaged, left_out.get(of_classes.get(name, name)), pictures)
            keys |= interval.keys_of(name, scores.known(scores.mean_of_present(averaged)))
        return keys


_CLASS_SUMS = ("sample_present", "sample_iou_sum", "sample_dice_sum")
