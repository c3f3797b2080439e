"""Distillation: a network learns from a trained one's logits besides the masks, built with Keras alone.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from model.networks.network import NetworkConfig, logits_of

Tensor = Any

TEMPERATURE = 2.0
"""By which both networks' logits are divided before they are compared."""

TEACHER_SHARE = 0.5
"""Share of the teacher in the loss; the masks have the rest."""


class Teacher:
    """A trained network, asked for its logits on the batches of another."""

    def __init__(self, network: keras.Model, config: NetworkConfig) -> None:
        """Takes the trained network, softmax at the end, and its structure."""
        self._logits = logits_of(network)
        self._logits.trainable = False
        self._size = (config.image_height, config.image_width)

    def logits(self, images: Tensor) -> Tensor:
        """Its logits on pictures of any size, which are resized to its own.

        Args:
            images: (N, H, W, channels) uint8.

        Returns:
            (N, H, W, num_classes) float32.
        """
        size = (int(images.shape[1]), int(images.shape[2]))
        if size == self._size:
            return self._logits(images, training=False)
        resized = ops.image.resize(ops.cast(images, "float32"), self._size, interpolation="bilinear", antialias=True)
        logits = self._logits(ops.cast(ops.round(resized), "uint8"), training=False)
        return ops.image.resize(logits, size, interpolation="bilinear")


class DistilledNetwork(keras.Model):
    """A network whose loss compares it with a teacher, too."""

    def __init__(self, network: keras.Model, teacher: Teacher) -> None:
        """Takes the network to train, which ends in logits and shares its weights with this one, and its teacher."""
        super().__init__(network.input, network.output, name=network.name)
        # As an attribute it would be tracked as a layer, and the teacher's weights saved as this network's.
        self._teacher_logits: Callable[[Tensor], Tensor] = lambda images: teacher.logits(images)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        """The loss on the masks and the divergence from the teacher, by their shares."""
        masks = super().compute_loss(x, y, y_pred, sample_weight, training)
        teacher = ops.stop_gradient(self._teacher_logits(x))
        return (1.0 - TEACHER_SHARE) * masks + TEACHER_SHARE * divergence(teacher, y_pred)


def divergence(teacher: Tensor, student: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The Kullback-Leibler divergence of a student's probabilities from a teacher's, times the temperature squared.

    The factor keeps the gradients' scale whatever the temperature.

    Args:
        teacher: (N, H, W, num_classes) logits.
        student: (N, H, W, num_classes) logits.
        temperature: by which the logits are divided.

    Returns:
        A float32 scalar, the mean over the pixels.
    """
    wanted = ops.log_softmax(ops.cast(teacher, "float32") / temperature, axis=-1)
    found = ops.log_softmax(ops.cast(student, "float32") / temperature, axis=-1)
    return ops.mean(ops.sum(ops.exp(wanted) * (wanted - found), axis=-1)) * temperature**2
