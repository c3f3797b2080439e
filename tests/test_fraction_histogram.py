"""Quantiles of fractions: numpy's inverse distribution function, exact at 0 and 1, and the same however they merge."""

import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_of import classes_of, record_of

from pipeline.core.fraction_histogram import BINS, FractionHistogram
from pipeline.core.statistics import statistics
from pipeline.core.totals import Totals

PERCENTS = (1, 5, 50, 95, 100)
# Pictures as pixels of a class and of the whole: many with none or all, and many beside the edges of bins.
pictures = st.integers(1, 50_000).flatmap(
    lambda whole: st.tuples(st.sampled_from([0, whole]) | st.integers(0, whole), st.just(whole))
)


def _histogram(parts: list[list[tuple[int, int]]], max_bins: int | None = None) -> FractionHistogram:
    """The fractions of each class; a part a class."""
    histogram = FractionHistogram(len(parts), max_bins)
    for class_id, part in enumerate(parts):
        for px, whole in part:
            histogram.add(class_id, px, whole)
    return histogram


def _quantile(histogram: FractionHistogram, class_id: int, percent: int, values: np.ndarray) -> float:
    found = histogram.quantile(class_id, percent, float(values.min()), float(values.max()))
    assert found is not None
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(pictures, min_size=1, max_size=120), st.none() | st.integers(1, 30))
def test_quantiles_against_numpy(counts: list[tuple[int, int]], max_bins: int | None) -> None:
    values = np.array([px / whole for px, whole in counts])
    other = [(1, 3)] * 5  # another class must not matter
    histogram = _histogram([other, counts, other], max_bins)
    assert histogram.bins <= 3 * (BINS + 2 if max_bins is None else max(3, max_bins))
    for percent in PERCENTS:
        exact = np.quantile(values, percent / 100, method="inverted_cdf")
        found = _quantile(histogram, 1, percent, values)
        # Exactly 0 and exactly 1 where numpy says so, else within a bin's width.
        assert abs(found - exact) < (histogram.width if 0 < exact < 1 else np.nextafter(0, 1))
        assert values.min() <= found <= values.max()
        assert (found == 0, found == 1) == (exact == 0, exact == 1)
    assert _quantile(histogram, 0, 50, np.array([1 / 3])) == 1 / 3


def test_a_class_in_few_pictures_has_quantiles_of_zero() -> None:
    records = [record_of(f"{n}", [[99, 1], [0, 0]] if n < 2 else [[100, 0], [0, 0]]) for n in range(233)]
    areas = [row["area"] for row in statistics(Totals.of(records, 2), classes_of(2))["classes"]]
    assert [[area[f"fraction_p{p}"] for p in ("05", "50", "95")] for area in areas] == [[1.0] * 3, [0.0] * 3]
    assert (areas[1]["fraction_max"], areas[0]["fraction_min"]) == (0.01, 0.99)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), pictures), max_size=80),
    st.none() | st.integers(1, 12),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_any_split_and_order_merges_to_the_whole(
    counts: list[tuple[int, tuple[int, int]]], max_bins: int | None, parts: int, rng: random.Random
) -> None:
    whole = FractionHistogram(3, max_bins)
    split = [FractionHistogram(3, max_bins) for _ in range(parts)]
    for class_id, (px, picture_px) in counts:
        whole.add(class_id, px, picture_px)
    rng.shuffle(counts)
    for class_id, (px, picture_px) in counts:
        rng.choice(split).add(class_id, px, picture_px)
    while len(split) > 1:
        other = split.pop(rng.randrange(len(split)))
        kept = pickle.dumps(other)
        rng.choice(split).merge(pickle.loads(kept))
        assert other == pickle.loads(kept)
    assert split[0] == whole
    assert split[0].width == whole.width


def test_bins_double_only_where_they_must() -> None:
    histogram = FractionHistogram(1, 5)
    for px in (0, 10, 100, 1_000, 10_000):
        histogram.add(0, px, 10_000)
    assert (histogram.bins, histogram.width) == (5, 1 / BINS)
    histogram.add(0, 11, 10_000)  # shares a bin with 10 once bins are twice as wide
    assert (histogram.bins, histogram.width) == (5, 2 / BINS)
    histogram.add(0, 11, 10_000)
    assert histogram.width == 2 / BINS
    assert histogram.quantile(0, 50, 0.0, 1.0) == 11 / BINS
    for px in range(1, 10_000):
        histogram.add(0, px, 10_000)
    assert (histogram.bins, histogram.width) == (5, 4096 / BINS)
    # The last bin is cut off at 1, so its middle is not beyond it.
    assert histogram.quantile(0, 99, 0.0, 1.0) == (8192 + 10_000) / 2 / BINS


def test_the_smallest_fractions_are_not_zero_and_the_largest_not_one() -> None:
    histogram = _histogram([[(0, 50_000), (1, 50_000), (49_999, 50_000), (50_000, 50_000)]])
    found = [histogram.quantile(0, percent, 0.0, 1.0) for percent in (25, 50, 75, 100)]
    assert found == [0.0, 0.5 / BINS, (BINS - 0.5) / BINS, 1.0]


def test_equality_and_no_pictures() -> None:
    empty = FractionHistogram(2)
    assert empty.quantile(1, 50, 0.0, 1.0) is None
    assert empty == FractionHistogram(2)
    assert empty != FractionHistogram(3)
    assert empty != _histogram([[(1, 2)], []])
    assert _histogram([[(1, 2)], []]) != _histogram([[(1, 2)] * 2, []])
    assert empty != "histogram"
    with pytest.raises(TypeError):
        hash(empty)
