"""Compares the masks of an export with those of the Keras network that it was made from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds
from pipeline.core.scores import confusion_matrix, iou_per_class, mean_of_present
from pipeline.engines.base import Batch, Engine, Logits, input_batch

UInt8Array = npt.NDArray[np.uint8]
Probe = tuple[UInt8Array, ClassIds | None]
"""A picture at the model's size, (H, W, C), and its class ids, (H, W), if known."""


class KerasEngine:
    """A Keras network that ends in logits."""

    def __init__(self, network: keras.Model) -> None:
        """Takes (N, H, W, C) uint8 → (N, H, W, num_classes)."""
        self._network = network

    def logits(self, batch: Batch) -> Logits:
        """As `pipeline.engines.base.Engine.logits`."""
        return np.asarray(keras.ops.convert_to_numpy(self._network(batch, training=False)), np.float32)


class SavedModelEngine:
    """A SavedModel as TensorFlow loads it, without Keras."""

    def __init__(self, folder: Path) -> None:
        """Loads the folder."""
        import tensorflow as tf

        self._loaded = tf.saved_model.load(os.fspath(folder))

    def logits(self, batch: Batch) -> Logits:
        """As `pipeline.engines.base.Engine.logits`."""
        return np.asarray(self._loaded.serve(batch), np.float32)


def compare(reference: Engine, export: Engine, probes: Sequence[Probe], num_classes: int) -> dict[str, Any]:
    """Compares an export's masks with the network's at the model's size.

    Args:
        reference: the Keras network.
        export: the export of that network.
        probes: at least one.
        num_classes: how many classes.

    Returns:
        `pictures`; `equal_pixels`, the share of pixels of the same class; `global_mean_iou_difference`, the export's
        minus Keras', None without truth.
    """
    equal_px = total_px = 0
    matrices = np.zeros((2, num_classes, num_classes), np.int64)
    for image, truth in probes:
        before, after = (engine.logits(input_batch([image]))[0].argmax(axis=-1) for engine in (reference, export))
        equal_px += int((before == after).sum())
        total_px += before.size
        if truth is not None:
            for matrix, mask in zip(matrices, (before, after), strict=True):
                matrix += confusion_matrix(truth, mask.astype(truth.dtype), num_classes)
    difference = None
    if matrices.any():
        scores = [mean_of_present(iou_per_class(matrix)) for matrix in matrices]
        difference = round(scores[1] - scores[0], 6)
    return {
        "pictures": len(probes),
        "equal_pixels": round(equal_px / total_px, 6),
        "global_mean_iou_difference": difference,
    }
