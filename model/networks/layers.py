"""The building blocks of the U-Nets: a sequence of them is an architecture, whoever defines their layers.

`TrainableBlocks` has the layers for training, `model.networks.rewrite.InferenceBlocks` those of the export, which
computes the same faster.
"""

from typing import Any, Protocol

import keras

Tensor = Any


class Blocks(Protocol):
    """The building blocks of every architecture; each takes (N, h, w, c) and returns a tensor of the same kind."""

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
        """A "same" convolution, batch norm if `norm`, then `activation`: "relu", "relu6" or None."""

    def depthwise(self, x: Tensor, name: str, *, kernel: int, strides: int) -> Tensor:
        """A "same" convolution of each channel by itself, batch norm, ReLU6."""

    def up_join(self, x: Tensor, skip: Tensor, filters: int, name: str, *, norm: bool) -> Tensor:
        """`x` doubled by nearest neighbour, joined with `skip` (twice as large), 3×3 convolution, ReLU."""

    def drop(self, x: Tensor, rate: float, name: str) -> Tensor:
        """Drops whole feature maps in training."""


class TrainableBlocks:
    """The blocks as in the papers."""

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
        """See `Blocks.conv`."""
        x = keras.layers.Conv2D(
            filters, kernel, strides, "same", use_bias=not norm, kernel_initializer="he_normal", name=name
        )(x)
        return _finished(x, name, norm=norm, activation=activation)

    def depthwise(self, x: Tensor, name: str, *, kernel: int, strides: int) -> Tensor:
        """See `Blocks.depthwise`."""
        x = keras.layers.DepthwiseConv2D(
            kernel, strides, "same", use_bias=False, depthwise_initializer="he_normal", name=name
        )(x)
        return _finished(x, name, norm=True, activation="relu6")

    def up_join(self, x: Tensor, skip: Tensor, filters: int, name: str, *, norm: bool) -> Tensor:
        """See `Blocks.up_join`."""
        x = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_up")(x)
        x = keras.layers.Concatenate(name=f"{name}_join")([x, skip])
        return self.conv(x, filters, name, norm=norm)

    def drop(self, x: Tensor, rate: float, name: str) -> Tensor:
        """See `Blocks.drop`."""
        return keras.layers.SpatialDropout2D(rate, name=name)(x)


def _finished(x: Tensor, name: str, *, norm: bool, activation: str | None) -> Tensor:
    """The batch norm and the activation of a convolution."""
    if norm:
        x = keras.layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(x)
    if activation is None:
        return x
    return keras.layers.ReLU(max_value=6.0 if activation == "relu6" else None, name=f"{name}_relu")(x)
