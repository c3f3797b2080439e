"""Scores against the design's golden case, scikit-learn, Keras, and a count in plain Python."""

import importlib.util
import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import scores
from pipeline.core.labels import ClassIds

Mask = npt.NDArray[np.uint8]


def _masks(seed: int, num_classes: int, size: int = 400, ignored: float = 0.0) -> tuple[Mask, Mask]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, num_classes, (size // 20, 20)).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, num_classes, truth.shape)).astype(
        np.uint8
    )
    truth[rng.random(truth.shape) < ignored] = num_classes
    return truth, prediction


@pytest.mark.parametrize("num_classes", [1, 2, 3, 16, 17, 256, 257, 3000])
def test_class_counts_are_numpys(num_classes: int) -> None:
    dtype = np.uint8 if num_classes <= 256 else np.uint16
    mask = np.random.default_rng(num_classes).integers(0, num_classes, (50, 70)).astype(dtype)
    for each in (mask, mask[::2, ::3], mask[:1, :1]):
        counts = scores.class_counts(each, num_classes)
        assert counts.dtype == np.int64
        np.testing.assert_array_equal(counts, np.bincount(each.ravel(), minlength=num_classes))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0]))
def test_confusion_matrix_counts_pairs(seed: int, num_classes: int, ignored: float) -> None:
    truth, prediction = _masks(seed, num_classes, ignored=ignored)
    expected = np.zeros((num_classes, num_classes), np.int64)
    for row, column in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if row < num_classes:
            expected[row, column] += 1
    matrix = scores.confusion_matrix(truth, prediction, num_classes)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("num_classes", [15, 16, 254, 255, 256, 257, 1000])
def test_confusion_matrix_of_many_classes(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    truth: ClassIds = rng.integers(0, num_classes + 1, (50, 100)).astype(np.uint16)
    prediction: ClassIds = rng.integers(0, num_classes, (50, 100)).astype(np.uint16)
    if num_classes < 256:
        truth = truth.astype(np.uint8)
    if num_classes <= 256:
        prediction = prediction.astype(np.uint8)
    truth[0, :4], prediction[0, :4] = [num_classes, num_classes, num_classes - 1, num_classes - 1], num_classes - 1
    expected = np.zeros((num_classes + 1, num_classes), np.int64)
    np.add.at(expected, (truth.ravel(), prediction.ravel()), 1)
    np.testing.assert_array_equal(scores.confusion_matrix(truth, prediction, num_classes), expected[:num_classes])


def test_confusion_matrix_of_more_classes_than_occur() -> None:
    truth = np.zeros((2, 3), np.uint16)
    for num_classes in (3, 300):
        matrix = scores.confusion_matrix(truth, truth, num_classes)
        assert matrix.shape == (num_classes, num_classes)
        assert matrix.dtype == np.int64
        assert (matrix[0, 0], matrix.sum()) == (6, 6)


def test_confusion_matrix_past_float32() -> None:
    # 2^24 + 3 pixels of one cell: a float32 count would stop at 2^24.
    truth = np.zeros((1, 2**24 + 3), np.uint8)
    truth[0, -1] = 1
    assert scores.confusion_matrix(truth, np.zeros_like(truth), 2).tolist() == [[2**24 + 2, 0], [1, 0]]


def test_confusion_matrix_of_strided_and_empty_masks() -> None:
    truth, prediction = _masks(1, 3)
    expected = scores.confusion_matrix(truth[::2, ::3].copy(), prediction[::2, ::3].copy(), 3)
    np.testing.assert_array_equal(scores.confusion_matrix(truth[::2, ::3], prediction[::2, ::3], 3), expected)
    assert not scores.confusion_matrix(np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8), 3).any()


def test_confusion_matrix_refuses_what_does_not_fit() -> None:
    three = np.full((2, 2), 3, np.uint8)
    zeros = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="shape"):
        scores.confusion_matrix(zeros, zeros[:1], 3)
    with pytest.raises(ValueError, match="outside 0 to 2"):
        scores.confusion_matrix(zeros, three, 3)
    with pytest.raises(ValueError, match="outside 0 to 1"):
        scores.confusion_matrix(three, zeros, 2)
    assert scores.confusion_matrix(three, zeros, 3).sum() == 0


@pytest.mark.parametrize("seed", range(5))
def test_agreement_with_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, prediction = _masks(seed, 5)
    matrix = scores.confusion_matrix(truth, prediction, 5)
    pair = truth.ravel(), prediction.ravel()
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(*pair, labels=range(5)))
    options = {"labels": range(5), "average": None}
    np.testing.assert_allclose(scores.iou_per_class(matrix), metrics.jaccard_score(*pair, **options), rtol=1e-14)
    np.testing.assert_allclose(scores.dice_per_class(matrix), metrics.f1_score(*pair, **options), rtol=1e-14)
    np.testing.assert_allclose(
        scores.precision_per_class(matrix), metrics.precision_score(*pair, **options), rtol=1e-14
    )
    np.testing.assert_allclose(scores.recall_per_class(matrix), metrics.recall_score(*pair, **options), rtol=1e-14)
    assert scores.pixel_accuracy(matrix) == pytest.approx(metrics.accuracy_score(*pair), rel=1e-14)
    weighted = metrics.jaccard_score(*pair, labels=range(5), average="weighted")
    assert scores.frequency_weighted_iou(matrix) == pytest.approx(weighted, rel=1e-14)


def test_agreement_with_keras() -> None:
    # Keras' MeanIoU leaves a class out of the mean where neither truth nor prediction holds it, and so do we.
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras
    for seed in range(3):
        truth, prediction = _masks(seed, 4, ignored=0.2)
        for num_classes in (4, 6):
            shown = np.where(truth == 4, 255, truth)
            metric = keras.metrics.MeanIoU(num_classes=num_classes, ignore_class=255)
            metric.update_state(shown.astype(np.int32), prediction.astype(np.int32))
            ours = np.where(truth == 4, num_classes, truth).astype(np.uint8)
            matrix = scores.confusion_matrix(ours, prediction, num_classes)
            expected = float(metric.result())
            assert scores.mean_of_present(scores.iou_per_class(matrix)) == pytest.approx(expected, abs=1e-6)


def test_golden_case_of_the_design() -> None:
    a = np.array([[90, 10, 0], [0, 0, 0], [0, 0, 0]], np.int64)
    b = np.array([[50, 0, 0], [0, 50, 0], [0, 0, 0]], np.int64)
    np.testing.assert_array_equal(scores.iou_per_class(a)[:2], [0.9, 0.0])
    assert scores.mean_of_present(scores.iou_per_class(a)) == 0.45
    total = a + b
    np.testing.assert_allclose(scores.iou_per_class(total), [140 / 150, 50 / 60, np.nan])
    assert scores.mean_of_present(scores.iou_per_class(total)) == pytest.approx(0.8833, abs=5e-5)


def test_what_occurs_nowhere_has_no_score() -> None:
    # Class 0 right, class 1 only predicted, class 2 only true, class 3 nowhere.
    matrix = np.zeros((4, 4), np.int64)
    matrix[0, 0], matrix[0, 1], matrix[2, 0] = 6, 2, 2
    np.testing.assert_array_equal(scores.iou_per_class(matrix), [0.6, 0.0, 0.0, np.nan])
    np.testing.assert_array_equal(scores.dice_per_class(matrix), [0.75, 0.0, 0.0, np.nan])
    np.testing.assert_array_equal(scores.precision_per_class(matrix), [0.75, 0.0, np.nan, np.nan])
    np.testing.assert_array_equal(scores.recall_per_class(matrix), [0.75, np.nan, 0.0, np.nan])
    assert scores.frequency_weighted_iou(matrix) == pytest.approx(0.6 * 0.8)
    assert scores.pixel_accuracy(matrix) == 0.6
    nothing = np.zeros((2, 2), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is divided by 0
        for score in (scores.pixel_accuracy, scores.frequency_weighted_iou):
            assert math.isnan(score(nothing))
        assert math.isnan(scores.mean_of_present(scores.iou_per_class(nothing)))


def test_scores_of_counts_past_thirty_two_bits() -> None:
    matrix = np.array([[2**40 + 1, 2**33], [0, 2**31 + 7]], np.int64)
    assert scores.iou_per_class(matrix)[1] == (2**31 + 7) / (2**31 + 7 + 2**33)
    assert scores.pixel_accuracy(matrix) == (2**40 + 2**31 + 8) / (2**40 + 2**33 + 2**31 + 8)
