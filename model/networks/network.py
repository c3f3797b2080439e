"""The U-Nets that maskbeam trains, built with Keras alone, so that any Keras backend can train them.

U-Net: Ronneberger, Fischer and Brox, "U-Net: Convolutional networks for biomedical image segmentation", MICCAI 2015.
Residual blocks: He et al., "Deep residual learning for image recognition", CVPR 2016, figure 5 left. Squeeze and
excitation: Hu, Shen and Sun, CVPR 2018, figure 3.

An architecture here is a sequence of `model.networks.layers.Blocks`. That of the pretrained encoders is
`model.networks.efficientnet`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras

from model.networks.efficientnet import LEVELS, SCALINGS, efficientnet_unet
from model.networks.layers import Blocks, Tensor, TrainableBlocks
from pipeline.core.errors import OptionError

LOGITS_LAYER = "logits"


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Everything that determines a network's structure.

    Attributes:
        preset: one of `PRESETS`.
        width: filters of the first level.
        depth: number of times that the picture is halved.
        image_height: input height, px.
        image_width: input width, px.
        channels: at least 1.
        num_classes: at least 2.
        encoder: which EfficientNet-Lite is the way down, of the preset `efficientnet_lite`; None in the others.
    """

    preset: str
    width: int
    depth: int
    image_height: int
    image_width: int
    channels: int
    num_classes: int
    encoder: str | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """One architecture and its default sizes.

    Attributes:
        build: from a picture (N, H, W, channels) uint8 to the last map before the logits.
        width: filters of the first level.
        depth: number of times that the picture is halved.
        image_size: input height and width, px.
        encoder: the default encoder; None if the architecture has none to choose.
        max_depth: the most halvings.
    """

    build: Callable[[NetworkConfig, Blocks, Tensor], Tensor]
    width: int
    depth: int
    image_size: int
    encoder: str | None = None
    max_depth: int = 8


def _chapter(config: NetworkConfig, blocks: Blocks, image: Tensor) -> Tensor:
    """One convolution per level, filters doubling downwards, skips taken before pooling."""
    x = keras.layers.Rescaling(1.0 / 255.0, name="scale")(image)
    skips = []
    for level in range(config.depth):
        x = blocks.conv(x, config.width << level, f"down{level}", norm=False)
        skips.append(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{level}")(x)
    x = blocks.conv(x, config.width << config.depth, "bottom", norm=False)
    for level in reversed(range(config.depth)):
        x = blocks.up_join(x, skips[level], config.width << level, f"up{level}", norm=False)
    return x


def _residual_block(blocks: Blocks, x: Tensor, filters: int, name: str) -> Tensor:
    y = blocks.conv(x, filters, f"{name}a", norm=True)
    y = blocks.conv(y, filters, f"{name}b", norm=True, activation=None)
    x = keras.layers.Add(name=f"{name}_add")([x, y])
    return keras.layers.ReLU(name=f"{name}_out")(x)


def _excite(blocks: Blocks, x: Tensor, filters: int, name: str) -> Tensor:
    weight = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    weight = blocks.conv(weight, max(4, filters // 4), f"{name}_squeeze", kernel=1, norm=False)
    weight = blocks.conv(weight, filters, f"{name}_excite", kernel=1, norm=False, activation=None)
    weight = keras.layers.Activation("sigmoid", name=f"{name}_weight")(weight)
    return keras.layers.Multiply(name=f"{name}_scale")([x, weight])


def _residual(config: NetworkConfig, blocks: Blocks, image: Tensor) -> Tensor:
    """Deeper and narrower: strided convolutions and residual blocks down, one convolution per level up.

    Only the small maps are wide, so the receptive field is the whole picture for a fraction of the chapter's work.
    """
    filters = [min(config.width << level, 8 * config.width) for level in range(config.depth + 1)]
    x = keras.layers.Rescaling(1.0 / 127.5, offset=-1.0, name="scale")(image)
    x = blocks.conv(x, filters[0], "stem", norm=True)
    skips = []
    for level in range(1, config.depth + 1):
        skips.append(x)
        x = blocks.conv(x, filters[level], f"down{level}", strides=2, norm=True)
        x = _residual_block(blocks, x, filters[level], f"block{level}")
    x = _excite(blocks, x, filters[-1], "context")
    x = blocks.drop(x, 0.2, "drop")
    for level in reversed(range(config.depth)):
        x = blocks.up_join(x, skips[level], max(config.width, filters[level] // 2), f"up{level}", norm=True)
    return x


def _efficientnet_lite(config: NetworkConfig, blocks: Blocks, image: Tensor) -> Tensor:
    """An encoder that can start from ImageNet weights; see `model.networks.efficientnet`."""
    assert config.encoder is not None
    return efficientnet_unet(blocks, image, config.encoder, config.width, config.depth)


PRESETS: dict[str, Preset] = {
    "efficientnet_lite": Preset(
        _efficientnet_lite, width=16, depth=LEVELS, image_size=128, encoder="lite0", max_depth=LEVELS
    ),
    "residual": Preset(_residual, width=16, depth=4, image_size=128),
    "chapter": Preset(_chapter, width=64, depth=2, image_size=128),
}
"""By name; the first is the default."""


def check_config(config: NetworkConfig) -> None:
    """Refuses a network that can't be built.

    Raises:
        OptionError: naming the option to change.
    """
    if config.preset not in PRESETS:
        raise OptionError(f"--preset {config.preset} is not one of {', '.join(PRESETS)}")
    if not 1 <= config.width <= 1024:
        raise OptionError(f"--width must be 1 to 1024, not {config.width}")
    preset = PRESETS[config.preset]
    if not 1 <= config.depth <= preset.max_depth:
        raise OptionError(f"--depth must be 1 to {preset.max_depth} with --preset {config.preset}, not {config.depth}")
    if preset.encoder is None and config.encoder is not None:
        raise OptionError(f"--encoder {config.encoder}: --preset {config.preset} has no encoder to choose")
    if preset.encoder is not None and config.encoder not in SCALINGS:
        raise OptionError(f"--encoder {config.encoder} is not one of {', '.join((*SCALINGS, 'none'))}")
    if config.num_classes < 2:
        raise OptionError(f"a segmentation needs at least 2 classes, not {config.num_classes}")
    step = 1 << config.depth
    for side in (config.image_height, config.image_width):
        if side < step or side % step:
            raise OptionError(f"--image_size {side} can't be halved {config.depth} times: use a multiple of {step}")


def build_logits(config: NetworkConfig, blocks: Blocks) -> keras.Model:
    """Builds a network that ends in logits.

    Args:
        config: the structure.
        blocks: the layers of the blocks.

    Returns:
        (N, image_height, image_width, channels) uint8, 0..255 → (N, image_height, image_width, num_classes) float32.

    Raises:
        OptionError: the structure can't be built.
    """
    check_config(config)
    shape = (config.image_height, config.image_width, config.channels)
    image = keras.Input(shape, dtype="uint8", name="image")
    x = PRESETS[config.preset].build(config, blocks, image)
    logits = keras.layers.Conv2D(config.num_classes, 1, dtype="float32", name=LOGITS_LAYER)(x)
    return keras.Model(image, logits, name=f"unet_{config.preset}")


def build_network(config: NetworkConfig) -> keras.Model:
    """Builds the network to be trained, softmax at the end, after its layer `logits`.

    Returns:
        (N, H, W, channels) uint8 → (N, H, W, num_classes) float32 probabilities that sum to 1.

    Raises:
        OptionError: the structure can't be built.
    """
    logits = build_logits(config, TrainableBlocks())
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits.output)
    return keras.Model(logits.input, probabilities, name=logits.name)


def logits_of(network: keras.Model) -> keras.Model:
    """The same network, sharing its weights, cut before the softmax."""
    return keras.Model(network.input, network.get_layer(LOGITS_LAYER).output, name=network.name)
