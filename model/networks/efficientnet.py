"""A U-Net whose way down is an EfficientNet-Lite, so that it can start from weights that were trained on ImageNet.

EfficientNet: Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019, table 1
and section 3.3. Lite: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite: no squeeze and
excitation, ReLU6, and a stem, a first and a last stage that aren't scaled. Inverted bottleneck: Sandler et al.,
"MobileNetV2", CVPR 2018, figure 3b. The U-Net's way up is this project's own.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from model.networks.layers import Blocks, Tensor

STEM_FILTERS = 32
_STEM, _BOTTLENECK = "stem", "bottleneck"
LEVELS = 5
"""How often an EfficientNet halves the picture."""

_WAY_UP = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Filters of the way up by level, from the full resolution, as multiples of those at the full resolution."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """The factors of an EfficientNet-Lite.

    Attributes:
        width: of the filters.
        depth: of the repeats.
    """

    width: float
    depth: float


SCALINGS = {"lite0": Scaling(1.0, 1.0), "lite1": Scaling(1.0, 1.1), "lite2": Scaling(1.1, 1.2)}


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One inverted bottleneck.

    Attributes:
        name: of its layers.
        kernel: side of the depthwise kernel.
        strides: 2 halves the picture.
        expansion: factor from its input's channels to its inner ones.
        filters: of its output.
    """

    name: str
    kernel: int
    strides: int
    expansion: int
    filters: int


# Repeats, kernel, stride of the first, expansion and filters of each stage: table 1 of the paper.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def bottlenecks(encoder: str) -> Iterator[Bottleneck]:
    """The inverted bottlenecks of an encoder from the stem on.

    Args:
        encoder: one of `SCALINGS`.
    """
    scaling = SCALINGS[encoder]
    number = 0
    for stage, (repeats, kernel, strides, expansion, filters) in enumerate(_STAGES):
        if stage not in (0, len(_STAGES) - 1):
            repeats = math.ceil(repeats * scaling.depth)
        for repeat in range(repeats):
            first = strides if repeat == 0 else 1
            yield Bottleneck(f"{_BOTTLENECK}{number}", kernel, first, expansion, _scaled(filters, scaling.width))
            number += 1


def _scaled(filters: int, factor: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths."""
    wanted = filters * factor
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


def is_encoder_layer(name: str) -> bool:
    """Whether a layer of `efficientnet_unet` belongs to the encoder."""
    return name.startswith((_STEM, _BOTTLENECK))


def encoder_maps(blocks: Blocks, image: Tensor, encoder: str, levels: int) -> list[Tensor]:
    """The last map of every resolution.

    Args:
        blocks: the layers of the blocks.
        image: (N, H, W, channels), scaled as `scaled_image` does.
        encoder: one of `SCALINGS`.
        levels: how often the picture is halved, at most `LEVELS`; what comes after isn't built.

    Returns:
        The maps at 1/2, 1/4, … of the picture's size.
    """
    x = blocks.conv(image, STEM_FILTERS, _STEM, strides=2, norm=True, activation="relu6")
    maps: list[Tensor] = []
    for one in bottlenecks(encoder):
        if one.strides == 2:
            maps.append(x)
            if len(maps) == levels:
                return maps
        x = _bottleneck(blocks, x, one)
    return [*maps, x]


def _bottleneck(blocks: Blocks, x: Tensor, one: Bottleneck) -> Tensor:
    channels, y = x.shape[-1], x
    if one.expansion != 1:
        filters = channels * one.expansion
        y = blocks.conv(y, filters, f"{one.name}_expand", kernel=1, norm=True, activation="relu6")
    y = blocks.depthwise(y, f"{one.name}_depthwise", kernel=one.kernel, strides=one.strides)
    y = blocks.conv(y, one.filters, f"{one.name}_project", kernel=1, norm=True, activation=None)
    if one.strides == 1 and channels == one.filters:
        y = keras.layers.Add(name=f"{one.name}_add")([x, y])
    return y


def scaled_image(image: Tensor) -> Tensor:
    """The pixels, 0..255, as the ImageNet weights expect them: (x - 127) / 128."""
    return keras.layers.Rescaling(1.0 / 128.0, offset=-127.0 / 128.0, name="scale")(image)


def efficientnet_unet(blocks: Blocks, image: Tensor, encoder: str, width: int, depth: int) -> Tensor:
    """A U-Net with an EfficientNet-Lite on its way down and one convolution a level on its way up.

    Args:
        blocks: the layers of the blocks.
        image: (N, H, W, channels) uint8.
        encoder: one of `SCALINGS`.
        width: filters at the full resolution.
        depth: how often the picture is halved, at most `LEVELS`.

    Returns:
        (N, H, W, width).
    """
    scaled = scaled_image(image)
    # The encoder starts by halving, so the full resolution gets a skip of its own.
    maps = [blocks.conv(scaled, width, "full", norm=True), *encoder_maps(blocks, scaled, encoder, depth)]
    x = maps.pop()
    for level in reversed(range(depth)):
        x = blocks.up_join(x, maps[level], round(width * _WAY_UP[level]), f"up{level}", norm=True)
    return x
