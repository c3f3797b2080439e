"""An exact rewriting of a network for faster inference.

Two identities are used. A 3×3 "same" convolution of a map that was doubled by nearest neighbour is four 2×2
convolutions of the small map, one for each phase of the output, whose kernels are sums of the 3×3 kernel's rows and
columns. And a convolution of a concatenation is the sum of two convolutions. So

    conv(concat(up(x), skip)) = depth_to_space(four 2×2 conv(x)) + conv(skip).

Batch norm is folded into the convolution before it. Both hold up to the rounding of float32 sums.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model.networks.network import LOGITS_LAYER, NetworkConfig, build_logits

Tensor = Any
Kernel = npt.NDArray[np.float32]

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
# How the two taps of a phase are sums of the three: for even output pixels only tap 0 covers the left neighbour.
_TAPS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


class DepthToSpace(keras.layers.Layer):  # type: ignore[misc]
    """(N, h, w, 4 c) → (N, 2 h, 2 w, c): four phases interleaved."""

    def call(self, x: Tensor) -> Tensor:
        """See the class."""
        return keras.ops.depth_to_space(x, 2)


class InferenceBlocks:
    """The blocks of `model.networks.layers.Blocks` in the exported form; not trainable."""

    def conv(
        self,
        x: Tensor,
        filters: int,
        name: str,
        *,
        kernel: int = 3,
        strides: int = 1,
        norm: bool,
        activation: str | None = "relu",
    ) -> Tensor:
        """See `Blocks.conv`; batch norm is part of the kernel and bias."""
        del norm
        return keras.layers.Conv2D(filters, kernel, strides, "same", activation=activation, name=name)(x)

    def depthwise(self, x: Tensor, name: str, *, kernel: int, strides: int) -> Tensor:
        """See `Blocks.depthwise`; batch norm is part of the kernel and bias."""
        return keras.layers.DepthwiseConv2D(kernel, strides, "same", activation="relu6", name=name)(x)

    def up_join(self, x: Tensor, skip: Tensor, filters: int, name: str, *, norm: bool) -> Tensor:
        """See `Blocks.up_join`; the doubled map is never computed."""
        del norm
        phases = []
        for row, column in _PHASES:
            # Four convolutions, each padded on its own side, are faster than a wide one that is sliced.
            padded = keras.layers.ZeroPadding2D(
                ((1 - row, row), (1 - column, column)), name=f"{name}_pad{row}{column}"
            )(x)
            convolution = keras.layers.Conv2D(filters, 2, use_bias=False, name=f"{name}_phase{row}{column}")
            phases.append(convolution(padded))
        up = DepthToSpace(name=f"{name}_up")(keras.layers.Concatenate(name=f"{name}_phases")(phases))
        skipped = keras.layers.Conv2D(filters, 3, padding="same", name=f"{name}_skip")(skip)
        return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([up, skipped]))

    def drop(self, x: Tensor, rate: float, name: str) -> Tensor:
        """See `Blocks.drop`; inference drops nothing."""
        del rate, name
        return x


def phase_kernel(kernel: Kernel, row: int, column: int) -> Kernel:
    """The 2×2 kernel that is equivalent to a 3×3 kernel on one phase of a doubled map.

    Args:
        kernel: (3, 3, in, out) float32.
        row: 0 for the even output rows, 1 for the odd ones.
        column: the same for columns.

    Returns:
        (2, 2, in, out) float32.
    """
    return np.asarray(np.einsum("ay,bx,yxio->abio", _TAPS[row], _TAPS[column], kernel), np.float32)


def rewrite_for_inference(network: keras.Model, config: NetworkConfig) -> keras.Model:
    """Builds the rewritten form of a trained network.

    Args:
        network: what `build_network(config)` made, with any weights.
        config: its structure.

    Returns:
        (N, H, W, channels) uint8 → (N, H, W, num_classes) float32 logits, in float32 throughout.
    """
    fast = build_logits(config, InferenceBlocks())
    names = {layer.name for layer in fast.layers}
    for layer in network.layers:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            continue
        kernel, bias = _folded(network, layer)
        if layer.name in names:
            fast.get_layer(layer.name).set_weights([kernel, bias])
            continue
        deep = kernel.shape[2] - fast.get_layer(f"{layer.name}_skip").kernel.shape[2]
        for row, column in _PHASES:
            phase = fast.get_layer(f"{layer.name}_phase{row}{column}")
            phase.set_weights([phase_kernel(kernel[:, :, :deep], row, column)])
        fast.get_layer(f"{layer.name}_skip").set_weights([kernel[:, :, deep:], bias])
    return fast


def _folded(network: keras.Model, layer: keras.layers.Layer) -> tuple[Kernel, npt.NDArray[np.float32]]:
    """A convolution's kernel and bias with its batch norm, if it has one, multiplied in."""
    weights = [np.asarray(weight, np.float64) for weight in layer.get_weights()]
    kernel = weights[0]
    bias = weights[1] if len(weights) > 1 else np.zeros(layer.output.shape[-1])
    names = {other.name for other in network.layers}
    if layer.name != LOGITS_LAYER and f"{layer.name}_norm" in names:
        norm = network.get_layer(f"{layer.name}_norm")
        gamma, beta, mean, variance = (np.asarray(weight, np.float64) for weight in norm.get_weights())
        factor = gamma / np.sqrt(variance + norm.epsilon)
        # The output channels are the last axis, but of a depthwise kernel, (height, width, channels, 1), the third.
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        kernel, bias = kernel * (factor[:, None] if depthwise else factor), beta + (bias - mean) * factor
    return kernel.astype(np.float32), bias.astype(np.float32)
