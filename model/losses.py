"""Losses over logits that leave ignored pixels out, built with Keras alone.

A pixel whose truth is `num_classes` is ignored: it does not contribute to any loss.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from model.options import LOSSES, check_class_weights

Tensor = Any

_FOCUS = 2.0


class SegmentationLoss(keras.losses.Loss):
    """Pixelwise cross-entropy, optionally focal, optionally plus the soft Dice loss.

    Cross-entropy is the mean over the scored pixels, each weighted by its true class's weight. Focal: Lin et al.,
    "Focal loss for dense object detection", ICCV 2017, equation 4, gamma 2. Dice: Milletari, Navab and Ahmadi, "V-Net",
    3DV 2016, section 3, without the squares, over the whole batch, averaged over the classes present.
    """

    def __init__(self, kind: str, num_classes: int, class_weights: Sequence[float] | None = None) -> None:
        """Chooses the loss.

        Args:
            kind: one of `LOSSES`.
            num_classes: the number of logits; also the id of ignored pixels.
            class_weights: a weight of at least 0 for each class; None for equal weights.

        Raises:
            OptionError: the weights don't fit the classes.
            ValueError: an unknown kind.
        """
        super().__init__(name=kind)
        if kind not in LOSSES:
            raise ValueError(f"{kind} is not one of {', '.join(LOSSES)}")
        weights = [1.0] * num_classes if class_weights is None else list(class_weights)
        check_class_weights(weights, num_classes)
        self.kind = kind
        self.num_classes = num_classes
        # The last entry is that of the ignored pixels.
        self.pixel_weights = [*weights, 0.0]

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            y_true: (N, H, W) integer class ids, `num_classes` where ignored.
            y_pred: (N, H, W, num_classes) logits.

        Returns:
            A float32 scalar.
        """
        truth = ops.cast(y_true, "int32")
        logits = ops.cast(y_pred, "float32")
        # Not `ops.one_hot`, which fails in Torch for the id of ignored pixels.
        one_hot = ops.cast(ops.expand_dims(truth, -1) == ops.arange(self.num_classes, dtype="int32"), "float32")
        log_probability = ops.log_softmax(logits, axis=-1)
        cross_entropy = -ops.sum(one_hot * log_probability, axis=-1)
        if self.kind == "focal":
            cross_entropy = cross_entropy * ops.power(1.0 - ops.exp(-cross_entropy), _FOCUS)
        weights = ops.take(ops.convert_to_tensor(self.pixel_weights, "float32"), truth)
        loss = ops.sum(weights * cross_entropy) / ops.maximum(ops.sum(weights), 1e-6)
        if self.kind == "ce_dice":
            loss = loss + _dice_loss(one_hot, ops.exp(log_probability))
        return loss


def _dice_loss(one_hot: Tensor, probability: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, the mean over the classes that the batch's truth holds."""
    axes = (0, 1, 2)
    scored = ops.sum(one_hot, axis=-1, keepdims=True)
    intersection = ops.sum(one_hot * probability, axis=axes)
    support = ops.sum(one_hot, axis=axes)
    total = support + ops.sum(probability * scored, axis=axes)
    dice = 2.0 * intersection / ops.maximum(total, 1e-6)
    present = ops.cast(support > 0, "float32")
    return ops.sum((1.0 - dice) * present) / ops.maximum(ops.sum(present), 1.0)
