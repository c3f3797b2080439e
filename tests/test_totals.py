"""Totals: exact, and the same in any order and grouping."""

import pickle
import random
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_of import classes_of, random_records, record_of

from pipeline.core.blocks import JOB_BLOCKS, BlockSums, block_of
from pipeline.core.fixed_point import FRACTION_ONE, fixed
from pipeline.core.measures.areas import AreaSums
from pipeline.core.measures.measure import WITHOUT_INTERVALS
from pipeline.core.measures.score_sums import ScoreSums
from pipeline.core.scores import cells_of, matrix_of
from pipeline.core.statistics import statistics
from pipeline.core.totals import Totals


def areas_of(totals: Totals) -> AreaSums:
    sums = totals.sums["area_px"]
    assert isinstance(sums, AreaSums)
    return sums


def scores_of(totals: Totals) -> ScoreSums:
    sums = totals.sums["confusion"]
    assert isinstance(sums, ScoreSums)
    return sums


def blocks_of(totals: Totals) -> BlockSums:
    blocks = scores_of(totals).blocks
    assert blocks is not None
    return blocks


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 4), st.data())
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
    for measure in (None, "area_px", "confusion"):
        part = whole if measure is None else whole.sums[measure]
        for field in fields(part):
            other = pickle.loads(pickle.dumps(whole))
            setattr(other if measure is None else other.sums[measure], field.name, "something else")
            assert other != whole, field.name
    other = pickle.loads(pickle.dumps(whole))
    blocks_of(other).sums[-1, -1] += 1
    assert other != whole
    for mutable in (whole, areas_of(whole), scores_of(whole), blocks_of(whole)):
        with pytest.raises(TypeError):
            hash(mutable)


def test_merging_leaves_the_other_part_alone() -> None:
    first, second = Totals.of(random_records(1, 3, 2), 2), Totals.of(random_records(2, 3, 2), 2)
    kept = pickle.loads(pickle.dumps(second))
    first.merge(second).add(random_records(3, 1, 2)[0])
    assert second == kept


def test_counts_past_twenty_four_and_thirty_one_bits() -> None:
    large = [[2**31 + 1, 2**24 + 1], [3, 2**33 + 5]]
    totals = Totals.of([record_of(str(index), large) for index in range(5)], 2)
    assert scores_of(totals).matrix.tolist() == [[5 * count for count in row] for row in large]
    assert areas_of(totals).area_px == [5 * (2**31 + 4), 5 * (2**24 + 2**33 + 6)]
    for index in range(5):
        assert blocks_of(totals).sums[block_of(str(index), JOB_BLOCKS), 1] % (2**33 + 5) == 0
    assert blocks_of(totals).sums[:, 1].sum() == 5 * (2**33 + 5)


def test_a_hundred_million_pictures_fit() -> None:
    # The largest sums: pixels and mean scores.
    totals = Totals.of([record_of("a", [[2**24, 0], [0, 2**24]])], 2)
    for _ in range(27):
        totals.merge(pickle.loads(pickle.dumps(totals)))
    block = block_of("a", JOB_BLOCKS)
    assert blocks_of(totals).sums[block].tolist() == [2**51] * 6 + [2**57, 2**57, 2**27]
    assert totals.pictures == 2**27
    assert areas_of(totals).area_px == [2**51, 2**51]


def test_squares_and_fractions_are_fixed_point() -> None:
    totals = Totals.of([record_of("a", [[1, 0], [0, 2]]), record_of("b", [[1, 0], [0, 0]])], 2)
    assert areas_of(totals).fraction_sum == [round(2**40 / 3) + 2**40, round(2**41 / 3)]
    assert areas_of(totals).fraction_square_sum == [round(2**40 / 9) + 2**40, round(2**42 / 9)]
    assert fixed(0.5) == FRACTION_ONE // 2


def test_pictures_without_truth_add_area_alone() -> None:
    totals = Totals.of([record_of("a", [[3, 1], [0, 0]], scored=False)], 2)
    assert (totals.pictures, totals.pictures_with("area_px"), totals.pictures_with("confusion")) == (1, 1, 0)
    assert areas_of(totals).present == [1, 1]
    assert not scores_of(totals).matrix.any()
    assert not blocks_of(totals).sums.any()


def test_what_is_not_used_of_files_is_counted_by_kind() -> None:
    records = [
        replace(record_of(f"{n}", [[1, 0], [0, 1]]), unused=unused)
        for n, unused in enumerate([("alpha", "depth"), (), ("alpha",), ("pages", "alpha")])
    ]
    whole = Totals.of(records, 2)
    assert whole.unused == {"alpha": 3, "depth": 1, "pages": 1}
    assert Totals.of(records[:2], 2).merge(Totals.of(records[2:], 2)) == whole


def test_pictures_of_the_models_split_are_counted_where_it_is_known_of_all() -> None:
    records = [
        replace(record_of(f"{n}", [[1, 0], [0, 1]]), split=part)
        for n, part in enumerate(["train", "", "train", "test"])
    ]
    whole = Totals.of(records, 2)
    assert [whole.pictures_in(part) for part in ("train", "test", "validation")] == [2, 1, 0]
    assert Totals.of(records[:2], 2).merge(Totals.of(records[2:], 2)) == whole
    assert whole.merge(Totals.of([replace(records[0], split=None)], 2)).pictures_in("train") is None


def test_a_picture_all_ignored_counts_no_mean() -> None:
    totals = Totals.of([record_of("a", [[0, 0], [0, 0]], ignored=[4, 0])], 2)
    sums = scores_of(totals)
    assert (sums.pictures, sums.sample_means, sums.sample_present) == (1, 0, [0, 0])


def test_cells_round_trip() -> None:
    matrix = np.array([[0, 5], [2**40, 0]], np.int64)
    assert record_of("a", matrix).value("confusion") == cells_of(matrix) == (1, 5, 2, 2**40)
    np.testing.assert_array_equal(matrix_of(cells_of(matrix), 2), matrix)
    assert record_of("a", matrix, scored=False).value("confusion") is None


def test_without_intervals_all_other_numbers_are_the_same() -> None:
    records = random_records(5, 60, 3)
    whole = statistics(Totals.of(records, 3), classes_of(3))
    parts = [Totals.of(records[::2], 3, WITHOUT_INTERVALS), Totals.of(records[1::2], 3, WITHOUT_INTERVALS)]
    without = statistics(parts[0].merge(pickle.loads(pickle.dumps(parts[1]))), classes_of(3))
    for row, expected in [
        (without["metrics"], whole["metrics"]),
        *zip(without["classes"], whole["classes"], strict=True),
    ]:
        for name, value in expected.items():
            assert row[name] == (None if name.endswith("_ci95") else value)
            if name.endswith("_ci95"):
                assert value is not None
                assert row[f"{name}_note"] == "not computed for so many groups"
