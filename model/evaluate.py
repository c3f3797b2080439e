"""Scores of a model on pictures with ground truth, by the same code and at the same size as in the job."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.data.dataset import load_pair
from model.data.encoded_pairs import EncodedPair
from pipeline.core import scores
from pipeline.core.errors import PictureError
from pipeline.core.spec import ModelSpec
from pipeline.core.truth import Labels
from pipeline.engines.base import Engine
from pipeline.engines.litert import LiteRTEngine
from pipeline.engines.quiet import LITERT_GREETING, quiet
from pipeline.segmenting.segmentation import Model


@dataclass(frozen=True, slots=True)
class PictureScore:
    """The scores of one picture.

    Attributes:
        pair_id: the picture.
        mean_iou: the mean over the classes in its truth or prediction; NaN if all of it is ignored.
        matrix: (C, C) int64 [truth, prediction].
    """

    pair_id: str
    mean_iou: float
    matrix: npt.NDArray[np.int64]


def load_engine(tflite: bytes, height: int, width: int, channels: int) -> Engine:
    """Loads a LiteRT file of uint8 input for one batch at a time, without LiteRT's greeting.

    Args:
        tflite: the file's content.
        height: the model's input height, px.
        width: the model's input width, px.
        channels: the model's input channels.

    Raises:
        EngineError: it is not a LiteRT file.
    """
    engine = LiteRTEngine(tflite, threads=1)
    with quiet(LITERT_GREETING):
        engine.logits(np.zeros((1, height, width, channels), np.uint8))
    return engine


def score_pictures(
    pairs: Iterator[EncodedPair], labels: Labels, engine: Engine, spec: ModelSpec, left_out: dict[str, str]
) -> Iterator[PictureScore]:
    """Scores pictures one after the other.

    Args:
        pairs: the pictures with their masks.
        labels: how raw mask values become class ids.
        engine: the loaded model.
        spec: the model's.
        left_out: receives, by id, the error of each picture that can't be read or whose mask can't be used.

    Yields:
        The scores of each other picture.
    """
    model = Model(spec, engine)
    for pair in pairs:
        try:
            loaded = load_pair(pair, labels, spec.channels)
        except PictureError as error:
            left_out[pair.pair_id] = error.message
            continue
        matrix = scores.confusion_matrix(loaded.mask, model.segment(loaded.image).mask, spec.num_classes)
        yield PictureScore(pair.pair_id, scores.mean_of_present(scores.iou_per_class(matrix)), matrix)


def summarise(pictures: list[PictureScore], spec: ModelSpec, left_out: int) -> dict[str, Any]:
    """The scores of a set of pictures, as in `summary.json`; None where there is nothing to score.

    Args:
        pictures: at least one.
        spec: names the classes.
        left_out: how many pictures could not be scored.

    Returns:
        `pictures` (those scored), `left_out`, `pixel_accuracy`, `global_mean_iou`, `global_mean_dice`,
        `frequency_weighted_iou`, `samplewise_mean_iou` and `classes`: IoU and Dice by class name.
    """
    matrix = np.stack([picture.matrix for picture in pictures]).sum(axis=0)
    iou, dice = scores.iou_per_class(matrix), scores.dice_per_class(matrix)
    samplewise = [picture.mean_iou for picture in pictures if not np.isnan(picture.mean_iou)]
    return {
        "pictures": len(pictures),
        "left_out": left_out,
        "pixel_accuracy": _rounded(scores.pixel_accuracy(matrix)),
        "global_mean_iou": _rounded(scores.mean_of_present(iou)),
        "global_mean_dice": _rounded(scores.mean_of_present(dice)),
        "frequency_weighted_iou": _rounded(scores.frequency_weighted_iou(matrix)),
        "samplewise_mean_iou": _rounded(float(np.mean(samplewise)) if samplewise else float("nan")),
        "classes": {
            name: {"iou": _rounded(float(iou[class_id])), "dice": _rounded(float(dice[class_id]))}
            for class_id, name in enumerate(spec.class_names)
        },
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 6)
