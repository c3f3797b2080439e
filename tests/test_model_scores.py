"""The scores at the end of a training and the comparison of exports, with engines whose answer is given."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.data.encoded_pairs import EncodedPair
from model.evaluate import PictureScore, score_pictures, summarise
from pipeline.core.labels import LabelMap
from pipeline.core.spec import ModelSpec
from pipeline.core.truth import Labels
from pipeline.engines.base import Batch, Logits


class FixedEngine:
    """Answers every picture with the class ids of one mask."""

    def __init__(self, mask: np.ndarray, num_classes: int) -> None:
        self._logits = np.eye(num_classes, dtype=np.float32)[mask]

    def logits(self, batch: Batch) -> Logits:
        return np.broadcast_to(self._logits, (len(batch), *self._logits.shape))


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_a_picture_s_matrix_counts_truth_by_prediction(tiny_model_spec: ModelSpec) -> None:
    spec = tiny_model_spec
    side, count = spec.height, spec.num_classes
    truth = np.zeros((side, side), np.uint8)
    truth[:4] = 1
    predicted = np.zeros((side, side), np.int64)
    predicted[:3] = 1
    predicted[-1] = 2
    pair = EncodedPair("a.png", lambda: (_png(np.zeros((side, side, 3), np.uint8)), _png(truth)))
    broken = EncodedPair("b.png", lambda: (b"no picture", _png(truth)))
    left_out: dict[str, str] = {}
    labels = Labels(LabelMap.identity(count), count, None)
    found = list(score_pictures(iter([broken, pair]), labels, FixedEngine(predicted, count), spec, left_out))
    assert [one.pair_id for one in found] == ["a.png"]
    assert list(left_out) == ["b.png"]
    assert found[0].matrix.tolist() == [[(side - 5) * side, 0, side], [side, 3 * side, 0], [0, 0, 0]]
    ious = (side - 5) / (side - 3), 3 / 4, 0
    assert found[0].mean_iou == pytest.approx(sum(ious) / 3)


def test_the_summary_has_means_over_pictures_and_of_the_summed_matrix(tiny_model_spec: ModelSpec) -> None:
    matrices = ([[6, 2, 0], [0, 2, 0], [0, 0, 0]], [[4, 0, 0], [0, 0, 6], [0, 0, 0]], [[0, 0, 0], [0, 9, 1], [0, 0, 0]])
    means = (0.2, 0.3, 1.0)
    pictures = [
        PictureScore(str(n), mean, np.array(m)) for n, (mean, m) in enumerate(zip(means, matrices, strict=True))
    ]
    pictures.append(PictureScore("ignored", float("nan"), np.zeros((3, 3), np.int64)))
    spec = replace(tiny_model_spec)
    summary = summarise(pictures, spec, 1)
    # Summed: rows (10, 2, 0), (0, 11, 7), (0, 0, 0).
    iou, dice = (10 / 12, 11 / 20, 0.0), (20 / 22, 22 / 31, 0.0)
    assert summary["samplewise_mean_iou"] == pytest.approx(0.5)
    assert summary["pixel_accuracy"] == pytest.approx(21 / 30)
    assert summary["global_mean_iou"] == pytest.approx(sum(iou) / 3, abs=1e-6)
    assert summary["global_mean_dice"] == pytest.approx(sum(dice) / 3, abs=1e-6)
    assert summary["frequency_weighted_iou"] == pytest.approx((12 * iou[0] + 18 * iou[1]) / 30, abs=1e-6)
    named = summary["classes"].values()
    assert [one["iou"] for one in named] == pytest.approx(iou, abs=1e-6)
    assert [one["dice"] for one in named] == pytest.approx(dice, abs=1e-6)
    assert (summary["pictures"], summary["left_out"]) == (4, 1)


def test_an_export_is_compared_pixel_by_pixel_and_by_its_score() -> None:
    pytest.importorskip("keras", reason="the extra `train` is not installed")
    from model.agreement import compare

    truth = np.zeros((4, 4), np.uint8)
    truth[:2] = 1
    export = truth.astype(np.int64)
    export[0, :3] = 0
    probes = [(np.zeros((4, 4, 3), np.uint8), mask) for mask in (truth, truth, None)]
    found = compare(FixedEngine(truth.astype(np.int64), 2), FixedEngine(export, 2), probes, 2)
    # Three of sixteen pixels differ; the export's IoU are 8 / 11 and 5 / 8, Keras' are 1.
    expected = {"pictures": 3, "equal_pixels": 13 / 16, "global_mean_iou_difference": (8 / 11 + 5 / 8) / 2 - 1}
    assert found == pytest.approx(expected, abs=1e-6)
    unknown = compare(FixedEngine(export, 2), FixedEngine(export, 2), probes[2:], 2)
    assert unknown == {"pictures": 1, "equal_pixels": 1.0, "global_mean_iou_difference": None}
