"""What a training starts from: random weights, or an encoder that was trained on ImageNet."""

from dataclasses import dataclass
from typing import Any

import keras

from model.encoder_weights import metadata_of, set_encoder_weights, weights_content
from model.network import PRESETS, NetworkConfig
from model.options import RANDOM_ENCODER, TrainOptions


@dataclass(frozen=True, slots=True)
class Start:
    """The weights before the first epoch.

    Attributes:
        encoder: whose ImageNet weights are taken; None for random weights.
        content: of the file of these weights.
    """

    encoder: str | None = None
    content: bytes = b""

    def apply(self, network: keras.Model) -> None:
        """Sets the weights of a new network.

        Raises:
            ModelError: they don't fit.
        """
        if self.encoder is not None:
            set_encoder_weights(network, self.encoder, self.content)

    def metadata(self) -> dict[str, Any]:
        """The entries of `training` in `metadata.json` about it."""
        return {} if self.encoder is None else {"pretrained": metadata_of(self.encoder)}


def choose_start(options: TrainOptions, config: NetworkConfig) -> Start:
    """Reads what the options ask for, so that what is missing is reported before any work.

    Raises:
        OptionError: the encoder's weights are not installed.
    """
    if config.encoder is None or options.encoder == RANDOM_ENCODER:
        return Start()
    return Start(config.encoder, weights_content(config.encoder))


def encoder_of(options: TrainOptions) -> str | None:
    """The encoder of the network that the options ask for; None if its preset has none to choose."""
    default = PRESETS[options.preset].encoder
    if options.encoder == RANDOM_ENCODER:
        return default
    return options.encoder or default
