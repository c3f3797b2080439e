"""What is kept of each group: by the number of groups, and never much."""

import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from records_of import random_records, record_of

from pipeline.core.groups import FEW_GROUPS, MANY_GROUPS, group_detail, groups_note
from pipeline.core.measures.measure import Detail
from pipeline.core.totals import Totals


def test_the_detail_of_groups_follows_from_their_number() -> None:
    # Written down in the documentation.
    assert (Detail(histogram_bins=1_000), Detail(blocks=0, histogram_bins=42)) == (FEW_GROUPS, MANY_GROUPS)
    few, many = 1_000 // 3, 10_000
    for groups, num_classes, expected in (
        (1, 3, FEW_GROUPS),
        (few, 3, FEW_GROUPS),
        (few + 1, 3, MANY_GROUPS),
        (many, 3, MANY_GROUPS),
        (many + 1, 3, None),
        (100, 10, FEW_GROUPS),
        (77, 13, MANY_GROUPS),  # 1,001 groups × classes
        (1, 1_000, FEW_GROUPS),
        (2, 1_000, MANY_GROUPS),
        (10, 1_000, MANY_GROUPS),
        (11, 1_000, None),
    ):
        assert group_detail(groups, num_classes) == expected, (groups, num_classes)
        assert (groups_note(groups, num_classes) is None) == (expected is not None)
    assert groups_note(0, 3) is None
    assert groups_note(12_345, 3) == (
        "12,345 groups are too many to sum; at most 10,000 are; the column group of the tables names each"
    )
    assert "at most 10 are" in str(groups_note(11, 1_000))


@pytest.mark.parametrize("kept", [1, 20, 400])
def test_a_group_of_three_classes_takes_less_than_5_kb(kept: int) -> None:
    """As Python allocates it and as it crosses a shuffle, of small groups and of groups that use every bin."""
    groups, records = max(50, 4_000 // kept), random_records(3, kept, 3)
    # As many different fractions as a group may hold.
    records += [
        record_of(f"{n}", np.diag([2**30 * n, 2**30 * (41 - n), 2**31]) + 1, pixel_area_m2=0.1) for n in range(1, 41)
    ][: kept - 1]
    records[0] = replace(records[0], unused=("alpha", "pages"), split="train")
    Totals.of(records, 3, MANY_GROUPS)  # what is allocated once
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        totals = [Totals.of(records, 3, MANY_GROUPS) for _ in range(groups)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / groups < 5_000
    assert len(pickle.dumps(totals[0])) < 5_000
