"""The weights of a trained model as the start of a training with other classes, channels or picture size."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import numpy.typing as npt

from model.networks.network import LOGITS_LAYER
from model.networks.spread import spread_kernel
from model.networks.stored_network import StoredNetwork

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a network got from another.

    Attributes:
        layers: how many of its layers with weights.
        spread: the layers whose kernels were spread over other channels.
        classes: the classes whose logits were taken.
    """

    layers: int
    spread: tuple[str, ...]
    classes: tuple[str, ...]


def transfer(source: StoredNetwork, network: keras.Model, class_names: Sequence[str]) -> Taken:
    """Sets the weights of a network to those of a trained one of the same preset, width, depth and encoder.

    Every layer is taken with two exceptions. A convolution of the picture itself is spread over another number of
    channels by `spread_kernel`. Of the last convolution the filters of the classes with the same names are taken; those
    of other classes stay as they are.

    Args:
        source: the trained network.
        network: gets the weights.
        class_names: of `network`, by id.

    Returns:
        What was taken.
    """
    layers, spread, classes = 0, [], []
    for layer in network.layers:
        weights = source.network.get_layer(layer.name).get_weights()
        if not weights:
            continue
        if layer.name == LOGITS_LAYER:
            own = layer.get_weights()
            for class_id, name in enumerate(class_names):
                if name in source.spec.class_names:
                    other = source.spec.class_names.index(name)
                    for to, from_ in zip(own, weights, strict=True):
                        to[..., class_id] = from_[..., other]
                    classes.append(name)
            weights = own
        elif isinstance(layer, keras.layers.Conv2D) and weights[0].shape != layer.kernel.shape:
            weights[0] = spread_kernel(weights[0], layer.kernel.shape[2])
            spread.append(layer.name)
        layer.set_weights(weights)
        layers += layer.name != LOGITS_LAYER or bool(classes)
    return Taken(layers, tuple(spread), tuple(classes))
