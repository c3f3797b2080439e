"""Totals: exact, and the same in any order and grouping."""

import hashlib
import math
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_of import classes_of, random_records, record_of

from pipeline.core.statistics import statistics
from pipeline.core.totals import FRACTION_ONE, REPLICATES, Totals, cells_of, fixed, matrix_of, replicate_weights


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 4), st.data())
def test_any_split_and_order_merges_to_the_whole(seed: int, count: int, num_classes: int, data: st.DataObject) -> None:
    records = random_records(seed, count, num_classes)
    whole = Totals.of(records, num_classes)
    shuffled = records.copy()
    random.Random(seed).shuffle(shuffled)
    parts = [Totals(num_classes) for _ in range(data.draw(st.integers(1, 5)))]
    for record in shuffled:
        data.draw(st.sampled_from(parts)).add(record)
    while len(parts) > 1:
        other = parts.pop(data.draw(st.integers(0, len(parts) - 1)))
        other = pickle.loads(pickle.dumps(other))
        parts[data.draw(st.integers(0, len(parts) - 1))].merge(other)
    assert parts[0] == whole
    classes = classes_of(num_classes)
    assert statistics(parts[0], classes) == statistics(whole, classes)


def test_equality_sees_every_sum() -> None:
    whole = Totals.of(random_records(1, 5, 3), 3)
    assert whole != Totals.of(random_records(1, 4, 3), 3)
    assert whole != "totals"
    for name in vars(whole):
        other = pickle.loads(pickle.dumps(whole))
        value = getattr(other, name)
        setattr(other, name, {7: 7} if isinstance(value, dict) else np.asarray(value) + 1)
        assert other != whole, name
    with pytest.raises(TypeError):
        hash(whole)


def test_merging_leaves_the_other_part_alone() -> None:
    first, second = Totals.of(random_records(1, 3, 2), 2), Totals.of(random_records(2, 3, 2), 2)
    kept = pickle.loads(pickle.dumps(second))
    first.merge(second).add(random_records(3, 1, 2)[0])
    assert second == kept


def test_counts_past_twenty_four_and_thirty_one_bits() -> None:
    large = [[2**31 + 1, 2**24 + 1], [3, 2**33 + 5]]
    totals = Totals.of([record_of(str(index), large) for index in range(5)], 2)
    assert totals.confusion.tolist() == [[5 * count for count in row] for row in large]
    assert totals.area_px == [5 * (2**31 + 4), 5 * (2**24 + 2**33 + 6)]
    weights = sum(replicate_weights(str(index)) for index in range(5))
    np.testing.assert_array_equal(totals.replicates[:, 1], weights * (2**33 + 5))


def test_a_hundred_million_pictures_fit() -> None:
    # The largest sums: pixels and mean scores in the most favoured replicate.
    totals = Totals.of([record_of("a", [[2**24, 0], [0, 2**24]])], 2)
    for _ in range(27):
        totals.merge(pickle.loads(pickle.dumps(totals)))
    weights = replicate_weights("a")
    assert totals.replicates[:, 0].tolist() == (weights.astype(object) * 2**51).tolist()
    assert totals.pictures == 2**27
    assert totals.replicates[:, 6].tolist() == (weights.astype(object) * 2**27 * 2**30).tolist()
    assert totals.area_px == [2**51, 2**51]


def test_squares_and_fractions_are_fixed_point() -> None:
    totals = Totals.of([record_of("a", [[1, 0], [0, 2]]), record_of("b", [[1, 0], [0, 0]])], 2)
    assert totals.fraction_sum == [round(2**40 / 3) + 2**40, round(2**41 / 3)]
    assert totals.fraction_square_sum == [round(2**40 / 9) + 2**40, round(2**42 / 9)]
    assert fixed(0.5) == FRACTION_ONE // 2


def test_pictures_without_truth_add_area_alone() -> None:
    totals = Totals.of([record_of("a", [[3, 1], [0, 0]], scored=False)], 2)
    assert (totals.pictures, totals.scored, totals.present) == (1, 0, [1, 1])
    assert not totals.confusion.any()
    assert not totals.replicates.any()


def test_a_picture_all_ignored_counts_no_mean() -> None:
    totals = Totals.of([record_of("a", [[0, 0], [0, 0]], ignored=[4, 0])], 2)
    assert (totals.scored, totals.sample_means, totals.sample_present) == (1, 0, [0, 0])


def test_cells_round_trip() -> None:
    matrix = np.array([[0, 5], [2**40, 0]], np.int64)
    record = record_of("a", matrix)
    assert record.confusion == cells_of(matrix) == (1, 5, 2, 2**40)
    np.testing.assert_array_equal(matrix_of(record), matrix)
    with pytest.raises(ValueError, match="a has no ground truth"):
        matrix_of(record_of("a", matrix, scored=False))


def test_replicate_weights_are_the_same_everywhere() -> None:
    # A change of these values changes every interval of every job: never by accident.
    weights = replicate_weights("cats/Abyssinian_1.jpg")
    assert weights.shape == (REPLICATES,)
    assert weights.dtype == np.int64
    assert weights[:16].tolist() == [0, 1, 3, 4, 1, 0, 0, 1, 2, 1, 0, 1, 4, 0, 2, 2]
    assert hashlib.sha256(weights.astype("<i8").tobytes()).hexdigest()[:16] == "60da80af8a89ff32"
    assert replicate_weights("b\udcff").sum() > 0


def test_replicate_weights_are_poisson_of_mean_one() -> None:
    drawn = np.concatenate([replicate_weights(f"{index}.jpg") for index in range(400)])
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert drawn.var() == pytest.approx(1.0, abs=0.02)
    for times in range(5):
        assert np.mean(drawn == times) == pytest.approx(math.exp(-1) / math.factorial(times), abs=0.004)
    # Two pictures and two replicates are independent.
    rows = drawn.reshape(400, REPLICATES)
    assert abs(np.corrcoef(rows[:, :8].T)[np.triu_indices(8, 1)]).max() < 0.25
    assert abs(np.corrcoef(rows[:8])[np.triu_indices(8, 1)]).max() < 0.25
