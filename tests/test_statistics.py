"""From totals to the numbers of `summary.json`: the golden case, numpy as reference, and intervals that cover."""

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_of import classes_of, random_records, record_of

from pipeline.core.fraction_histogram import BINS
from pipeline.core.scores import matrix_of
from pipeline.core.statistics import statistics
from pipeline.core.totals import Totals

A = record_of("a", [[90, 10, 0], [0, 0, 0], [0, 0, 0]])
B = record_of("b", [[50, 0, 0], [0, 50, 0], [0, 0, 0]])
C = record_of("c", [[100, 0, 0], [0, 0, 0], [0, 0, 0]])


def _statistics(records: list[Any], num_classes: int) -> dict[str, Any]:
    return statistics(Totals.of(records, num_classes), classes_of(num_classes))


def test_golden_case_of_the_design() -> None:
    two = _statistics([A, B], 3)
    assert two["metrics"]["global_mean_iou"] == (140 / 150 + 50 / 60) / 2
    assert round(two["metrics"]["global_mean_iou"], 4) == 0.8833
    assert two["metrics"]["samplewise_mean_iou"] == pytest.approx((0.45 + 1) / 2, abs=2**-39)
    three = _statistics([A, B, C], 3)
    assert round(three["metrics"]["global_mean_iou"], 4) == 0.8967
    assert round(three["metrics"]["samplewise_mean_iou"], 4) == 0.8167
    assert three["metrics"]["global_mean_iou"] == pytest.approx((240 / 250 + 50 / 60) / 2, abs=1e-15)
    assert three["metrics"]["samplewise_mean_iou"] == pytest.approx((0.45 + 1 + 1) / 3, abs=2**-39)
    assert three["confusion_matrix"] == {
        "rows": "truth",
        "columns": "prediction",
        "counts": [[240, 10, 0], [0, 50, 0], [0, 0, 0]],
    }
    # The mean of the classes' means is another number, and is not meant.
    means = [row["samplewise_iou"] for row in three["classes"]]
    assert means == [pytest.approx((0.9 + 1 + 1) / 3), pytest.approx(0.5), None]
    assert (means[0] + means[1]) / 2 == pytest.approx(0.7333, abs=5e-5)


def test_a_class_absent_everywhere_is_null() -> None:
    row = _statistics([A, B, C], 3)["classes"][2]
    scored = ("iou", "dice", "iou_ci95", "dice_ci95", "precision", "recall", "samplewise_iou", "samplewise_dice")
    assert {name: row[name] for name in scored} == dict.fromkeys(scored)
    assert (row["truth_px"], row["predicted_px"], row["intersection_px"], row["union_px"]) == (0, 0, 0, 0)
    assert row["area"]["px"] == row["area"]["images_present"] == 0
    assert row["area"]["fraction_max"] == 0.0


def test_counts_of_a_class() -> None:
    row = _statistics([A, B, C], 3)["classes"][1]
    assert (row["truth_px"], row["predicted_px"], row["intersection_px"], row["union_px"]) == (50, 60, 50, 60)
    assert row["iou"] == 50 / 60
    assert row["dice"] == 100 / 110
    assert row["precision"] == 50 / 60
    assert row["recall"] == 1.0
    assert (row["class_id"], row["name"], row["color"]) == (1, "b", "#123456")


def test_without_ground_truth_there_are_only_areas() -> None:
    result = _statistics([record_of("a", [[3, 1], [0, 0]], scored=False)], 2)
    assert set(result["metrics"].values()) == {None}
    assert result["confusion_matrix"]["counts"] is None
    assert result["classes"][0]["truth_px"] is None
    assert result["classes"][0]["area"]["fraction"] == 0.75


def test_no_pictures_at_all() -> None:
    result = _statistics([], 2)
    assert set(result["metrics"].values()) == {None}
    area = result["classes"][0]["area"]
    assert (area["px"], area["images_present"]) == (0, 0)
    assert {value for name, value in area.items() if name.startswith("fraction") or name == "m2"} == {None}


def test_ignored_pixels_count_in_area_and_not_in_the_matrix() -> None:
    result = _statistics([record_of("a", [[5, 0], [0, 5]], ignored=[30, 0])], 2)
    assert np.sum(result["confusion_matrix"]["counts"]) == 10
    assert [row["area"]["px"] for row in result["classes"]] == [35, 5]
    assert result["metrics"]["global_mean_iou"] == 1.0


def test_physical_areas() -> None:
    records = [
        record_of("a", [[4, 0], [0, 6]], pixel_area_m2=0.25),
        record_of("b", [[8, 0], [0, 0]], pixel_area_m2=2.0),
    ]
    assert [row["area"]["m2"] for row in _statistics(records, 2)["classes"]] == [17.0, 1.5]
    assert _statistics([A], 3)["classes"][0]["area"]["m2"] is None
    # One picture with a known pixel area is enough, in any position.
    known = record_of("k", [[4, 0], [0, 6]], pixel_area_m2=0.25)
    for mixed in ([known], [known, record_of("u", [[1, 0], [0, 0]])], [record_of("u", [[1, 0], [0, 0]]), known]):
        assert [row["area"]["m2"] for row in _statistics(mixed, 2)["classes"]] == [1.0, 1.5]
        merged = Totals.of(mixed[:1], 2).merge(Totals.of(mixed[1:], 2))
        assert statistics(merged, classes_of(2))["classes"][1]["area"]["m2"] == 1.5


def test_pictures_that_are_alike_have_no_deviation() -> None:
    row = _statistics([record_of(f"{n}", [[7, 0], [0, 0]]) for n in range(3)], 2)["classes"][0]
    assert row["area"]["fraction_std"] == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 4))
def test_scores_against_sums_and_means_by_numpy(seed: int, count: int, num_classes: int) -> None:
    records = random_records(seed, count, num_classes)
    cells = [record.value("confusion") for record in records]
    matrices = [matrix_of(value, num_classes) for value in cells if value is not None]
    if not matrices:
        return
    total = np.sum(matrices, axis=0)

    def overlaps(matrix: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        both, margins = np.diagonal(matrix), matrix.sum(axis=0) + matrix.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return both / (margins - both), 2 * both / margins

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        of_pictures = np.array([overlaps(matrix) for matrix in matrices])  # (pictures, IoU or Dice, classes)
        samplewise = np.nanmean(of_pictures, axis=0)
        samplewise_means = np.nanmean(np.nanmean(of_pictures, axis=2), axis=0)
        global_means = np.nanmean(overlaps(total), axis=1)
        iou = overlaps(total)[0]
        truth_px = total.sum(axis=1)
        expected = {
            "pixel_accuracy": np.trace(total) / total.sum() if total.any() else np.nan,
            "global_mean_iou": global_means[0],
            "global_mean_dice": global_means[1],
            "frequency_weighted_iou": np.nansum(truth_px * iou) / truth_px.sum() if total.any() else np.nan,
            "samplewise_mean_iou": samplewise_means[0],
            "samplewise_mean_dice": samplewise_means[1],
        }
    result = _statistics(records, num_classes)
    found = {name: result["metrics"][name] for name in expected}
    assert {name: np.nan if value is None else value for name, value in found.items()} == pytest.approx(
        expected, abs=1e-9, nan_ok=True
    )
    for class_id, row in enumerate(result["classes"]):
        values = [np.nan if row[name] is None else row[name] for name in ("samplewise_iou", "samplewise_dice")]
        assert values == pytest.approx(samplewise[:, class_id].tolist(), abs=1e-9, nan_ok=True)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 120))
def test_area_statistics_against_numpy(seed: int, count: int) -> None:
    records = random_records(seed, count, 3)
    fractions = np.array([record.value("area_px") for record in records]) / np.array(
        [[r.width * r.height] for r in records]
    )
    rows = _statistics(records, 3)["classes"]
    for class_id, row in enumerate(rows):
        area, column = row["area"], fractions[:, class_id]
        assert area["fraction_mean"] == pytest.approx(column.mean(), abs=1e-11)
        assert area["fraction_std"] == pytest.approx(column.std(), abs=2e-6)
        assert (area["fraction_min"], area["fraction_max"]) == (column.min(), column.max())
        assert area["images_present"] == np.count_nonzero(column)
        for percent in (5, 50, 95):
            exact = np.percentile(column, percent, method="inverted_cdf")
            assert abs(area[f"fraction_p{percent:02d}"] - exact) <= 1 / BINS
    assert sum(row["area"]["fraction"] for row in rows) == pytest.approx(1.0)


def test_a_percentile_never_leaves_the_range() -> None:
    area = _statistics([A], 3)["classes"][0]["area"]
    assert area["fraction_p05"] == area["fraction_p50"] == area["fraction_p95"] == 0.9
    assert _statistics([C], 3)["classes"][0]["area"]["fraction_p95"] == 1.0


def test_everything_is_json() -> None:
    result = _statistics(random_records(4, 30, 4), 4)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_one_picture_has_no_interval() -> None:
    result = _statistics([A], 3)
    assert result["metrics"]["pixel_accuracy_ci95"] is None
    assert result["metrics"]["pixel_accuracy_ci95_note"] == "too few pictures: 1, and an interval needs 10"
    assert result["classes"][0]["iou_ci95"] is None
    assert result["classes"][0]["dice_ci95_note"] == "too few pictures: 1, and an interval needs 10"
    # Twelve pictures scored, but class 1 in only one of them.
    both = _statistics([B, *(replace(C, image_id=f"{index}") for index in range(11))], 3)
    assert both["classes"][0]["iou_ci95"] is not None
    assert "iou_ci95_note" not in both["classes"][0]
    assert both["classes"][1]["iou_ci95"] is None


def test_every_interval_holds_its_estimate_in_a_large_sample() -> None:
    rng = np.random.default_rng(0)
    records = [
        record_of(f"{index}", rng.integers(1, 1000, (3, 3)) + 2000 * np.eye(3, dtype=int)) for index in range(300)
    ]
    result = _statistics(records, 3)
    named = [(result["metrics"], name) for name in result["metrics"] if not name.endswith("ci95")]
    named += [(row, name) for row in result["classes"] for name in ("iou", "dice")]
    for values, name in named:
        low, high = values[f"{name}_ci95"]
        assert low < values[name] < high, name
        assert high - low < 0.06
