"""From exact sums to the numbers of `summary.json`: areas, scores, and intervals of 95 %."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core import scores
from pipeline.core.spec import ClassSpec
from pipeline.core.totals import FRACTION_ONE, HISTOGRAM_BINS, Totals

_LEAST_PICTURES_FOR_INTERVAL = 2
_NORMAL_97_5 = 1.959963984540054
Number = float | None


def statistics(totals: Totals, classes: Sequence[ClassSpec]) -> dict[str, Any]:
    """The parts of `summary.json` that come from pictures: `classes`, `metrics`, `confusion_matrix`.

    Args:
        totals: the sums over all pictures, or over one group's.
        classes: the model's classes by id.

    Returns:
        JSON-ready values; null stands for a score or area of something that occurs nowhere.
    """
    return {
        "classes": _classes(totals, classes),
        "metrics": _metrics(totals),
        "confusion_matrix": {
            "rows": "truth",
            "columns": "prediction",
            "counts": totals.confusion.tolist() if totals.scored else None,
        },
    }


def _classes(totals: Totals, classes: Sequence[ClassSpec]) -> list[dict[str, Any]]:
    matrix = totals.confusion
    truth_px, predicted_px = matrix.sum(axis=1), matrix.sum(axis=0)
    intersection_px = np.diagonal(matrix)
    iou, dice = scores.iou_per_class(matrix), scores.dice_per_class(matrix)
    precision, recall = scores.precision_per_class(matrix), scores.recall_per_class(matrix)
    count = totals.num_classes
    both, true, predicted = (totals.replicates[:, part * count : (part + 1) * count] for part in range(3))
    iou_ci95 = _intervals(
        [_number(v) for v in iou], scores.iou_from_counts(both, true, predicted), totals.sample_present
    )
    dice_ci95 = _intervals(
        [_number(v) for v in dice], scores.dice_from_counts(both, true, predicted), totals.sample_present
    )
    histograms = _histograms(totals)
    rows: list[dict[str, Any]] = []
    for spec in classes:
        k = spec.class_id
        has_truth = totals.scored > 0
        rows.append(
            {
                "class_id": k,
                "name": spec.name,
                "color": spec.color,
                "area": _area(totals, k, histograms[k]),
                "iou": _number(iou[k]),
                "iou_ci95": iou_ci95[k],
                "dice": _number(dice[k]),
                "dice_ci95": dice_ci95[k],
                "precision": _number(precision[k]),
                "recall": _number(recall[k]),
                "truth_px": int(truth_px[k]) if has_truth else None,
                "predicted_px": int(predicted_px[k]) if has_truth else None,
                "intersection_px": int(intersection_px[k]) if has_truth else None,
                "union_px": int(truth_px[k] + predicted_px[k] - intersection_px[k]) if has_truth else None,
                "samplewise_iou": _mean(totals.sample_iou_sum[k], totals.sample_present[k]),
                "samplewise_dice": _mean(totals.sample_dice_sum[k], totals.sample_present[k]),
            }
        )
    return rows


def _histograms(totals: Totals) -> list[list[tuple[int, int]]]:
    """The bins that hold something, a class: (bin, pictures) in ascending order."""
    histograms: list[list[tuple[int, int]]] = [[] for _ in range(totals.num_classes)]
    for key in sorted(totals.histogram):
        class_id, bin_index = divmod(key, HISTOGRAM_BINS)
        histograms[class_id].append((bin_index, totals.histogram[key]))
    return histograms


def _area(totals: Totals, class_id: int, histogram: list[tuple[int, int]]) -> dict[str, Any]:
    """Areas of one class; fractions are shares of a picture's pixels, over all segmented pictures."""
    total_px = sum(totals.area_px)
    known = totals.pictures_with_m2 > 0
    pictures = totals.pictures
    return {
        "px": totals.area_px[class_id],
        "fraction": totals.area_px[class_id] / total_px if total_px else None,
        "m2": totals.area_m2_fixed[class_id] / FRACTION_ONE if known else None,
        "images_present": totals.present[class_id],
        "fraction_mean": _mean(totals.fraction_sum[class_id], pictures),
        "fraction_std": _deviation(totals, class_id),
        "fraction_min": totals.fraction_min[class_id] if pictures else None,
        "fraction_p05": _percentile(totals, class_id, histogram, 5),
        "fraction_p50": _percentile(totals, class_id, histogram, 50),
        "fraction_p95": _percentile(totals, class_id, histogram, 95),
        "fraction_max": totals.fraction_max[class_id] if pictures else None,
    }


def _metrics(totals: Totals) -> dict[str, Any]:
    matrix, count = totals.confusion, totals.num_classes
    replicates = totals.replicates
    both, true, predicted = (replicates[:, part * count : (part + 1) * count] for part in range(3))
    replicate_iou = scores.iou_from_counts(both, true, predicted)
    replicate_dice = scores.dice_from_counts(both, true, predicted)
    all_px = true.sum(axis=1)
    mean_iou_sum, mean_dice_sum, means = (replicates[:, 3 * count + part] for part in range(3))
    values = {
        "pixel_accuracy": scores.pixel_accuracy(matrix),
        "global_mean_iou": scores.mean_of_present(scores.iou_per_class(matrix)),
        "global_mean_dice": scores.mean_of_present(scores.dice_per_class(matrix)),
        "frequency_weighted_iou": scores.frequency_weighted_iou(matrix),
        "samplewise_mean_iou": _mean(totals.sample_mean_iou_sum, totals.sample_means),
        "samplewise_mean_dice": _mean(totals.sample_mean_dice_sum, totals.sample_means),
    }
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = {
            "pixel_accuracy": both.sum(axis=1) / all_px,
            "global_mean_iou": _row_means(replicate_iou),
            "global_mean_dice": _row_means(replicate_dice),
            "frequency_weighted_iou": (true * np.nan_to_num(replicate_iou)).sum(axis=1) / all_px,
            "samplewise_mean_iou": mean_iou_sum / (1 << 30) / means,
            "samplewise_mean_dice": mean_dice_sum / (1 << 30) / means,
        }
    metrics: dict[str, Any] = {}
    for name, value in values.items():
        metrics[name] = _number(value)
        metrics[f"{name}_ci95"] = _intervals([metrics[name]], drawn[name][:, None], [totals.sample_means])[0]
    return metrics


def _row_means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    present = ~np.isnan(values)
    means: npt.NDArray[np.float64] = np.where(present, values, 0.0).sum(axis=1) / present.sum(axis=1)
    return means


def _intervals(
    estimates: Sequence[Number], replicates: npt.NDArray[np.float64], pictures: Sequence[int]
) -> list[list[float] | None]:
    """Intervals of 95 % around each estimate, from the deviation of its column of replicates, kept within 0 to 1.

    The replicates' deviation is taken rather than their percentiles (Efron and Tibshirani, "An introduction to the
    bootstrap", 1993, section 13.3): replicates lack pictures, so with many classes all of them may lie below the
    estimate. None where fewer than two pictures say anything of it.
    """
    intervals: list[list[float] | None] = []
    for estimate, column, count in zip(estimates, replicates.T, pictures, strict=True):
        drawn = column[~np.isnan(column)]
        if estimate is None or count < _LEAST_PICTURES_FOR_INTERVAL or drawn.size < 2:
            intervals.append(None)
        else:
            reach = _NORMAL_97_5 * float(drawn.std(ddof=1))
            intervals.append([max(0.0, estimate - reach), min(1.0, estimate + reach)])
    return intervals


def _percentile(totals: Totals, class_id: int, histogram: list[tuple[int, int]], percent: int) -> Number:
    """The middle of the bin in which the percentile lies, kept between the smallest and the largest value seen."""
    rank = max(1, -(-totals.pictures * percent // 100))
    seen = 0
    for bin_index, pictures in histogram:
        seen += pictures
        if seen >= rank:
            middle = (bin_index + 0.5) / HISTOGRAM_BINS
            return min(max(middle, totals.fraction_min[class_id]), totals.fraction_max[class_id])
    return None


def _deviation(totals: Totals, class_id: int) -> Number:
    """Standard deviation over the pictures (divided by their number), from exact sums."""
    count = totals.pictures
    if not count:
        return None
    total, squares = totals.fraction_sum[class_id], totals.fraction_square_sum[class_id]
    return math.sqrt(max(0, count * squares * FRACTION_ONE - total * total)) / (count * FRACTION_ONE)


def _mean(fixed_sum: int, count: int) -> Number:
    return fixed_sum / (count * FRACTION_ONE) if count else None


def _number(value: float | None) -> Number:
    return None if value is None or math.isnan(value) else float(value)
