"""The scores of a job without one block of pictures each: those of the job made of the other blocks."""

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from records_of import classes_of, random_records

from pipeline.core.blocks import block_of
from pipeline.core.measures.left_out import scores_left_out
from pipeline.core.measures.measure import Detail
from pipeline.core.measures.score_sums import ScoreSums
from pipeline.core.statistics import statistics
from pipeline.core.totals import Totals

BLOCKS = 4
METRICS = ("pixel_accuracy", "frequency_weighted_iou", "samplewise_mean_iou", "samplewise_mean_dice")


def _pixels(rows: list[dict[str, int]]) -> list[list[int]]:
    """The denominators of IoU and Dice of each class."""
    return [[row["union_px"] for row in rows], [row["truth_px"] + row["predicted_px"] for row in rows]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 16), st.integers(1, 4))
def test_scores_without_a_block_are_those_of_the_other_pictures(seed: int, count: int, num_classes: int) -> None:
    records = [r for r in random_records(seed, count, num_classes) if r.value("confusion") is not None]
    sums = Totals.of(records, num_classes, Detail(BLOCKS)).sums["confusion"]
    assert isinstance(sums, ScoreSums)
    assert sums.blocks is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a block may hold all pictures, and nothing is divided by 0 in public
        found = scores_left_out(sums.blocks, num_classes)
    classes = classes_of(num_classes)
    for block in range(BLOCKS):
        own = [record for record in records if block_of(record.image_id, BLOCKS) == block]
        rest = [record for record in records if block_of(record.image_id, BLOCKS) != block]
        expected = statistics(Totals.of(rest, num_classes), classes)
        own_rows = statistics(Totals.of(own, num_classes), classes)["classes"]
        for name, px in zip(("iou", "dice"), _pixels(own_rows) if own else [[0] * num_classes] * 2, strict=True):
            values = [np.nan if row[name] is None else row[name] for row in expected["classes"]]
            np.testing.assert_allclose(found[name].scores[block], values, rtol=1e-12)
            assert found[name].sizes[block].tolist() == px
        with_scores = sum(bool(record.value("confusion")) for record in own)
        truth_px = sum(row["truth_px"] for row in own_rows) if own else 0
        for name, size in zip(METRICS, (truth_px, truth_px, with_scores, with_scores), strict=True):
            value = expected["metrics"][name]
            # Scores of pictures are summed as integers, of 2^40 in the totals and of 2^30 in the blocks.
            np.testing.assert_allclose(found[name].scores[block], [np.nan if value is None else value], atol=1e-8)
            assert found[name].sizes[block].tolist() == [size]
