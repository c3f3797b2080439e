"""What a training starts from and learns from besides its pictures: ImageNet's weights, or other models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras

from model.networks.encoder_weights import metadata_of, set_encoder_weights, weights_content
from model.networks.network import PRESETS, NetworkConfig
from model.networks.stored_network import StoredNetwork, stored_network
from model.networks.transfer import transfer
from model.options import DEFAULT_PRESET, RANDOM_ENCODER, TrainOptions
from pipeline.core.errors import OptionError


class Start(Protocol):
    """The weights before the first epoch."""

    @property
    def has_encoder(self) -> bool:
        """Whether the encoder has been trained before."""

    def apply(self, network: keras.Model, class_names: Sequence[str]) -> str | None:
        """Sets the weights of a new network.

        Args:
            network: of the job's structure.
            class_names: its classes by id.

        Returns:
            A line that says what it starts from; None if there is nothing to say.

        Raises:
            ModelError: the weights don't fit.
        """

    def metadata(self) -> dict[str, Any]:
        """The entries of `training` in `metadata.json` about it."""


@dataclass(frozen=True, slots=True)
class RandomStart:
    """Weights as the layers' initializers draw them."""

    has_encoder: bool = False

    def apply(self, network: keras.Model, class_names: Sequence[str]) -> str | None:
        """See `Start.apply`."""
        del network, class_names
        return None

    def metadata(self) -> dict[str, Any]:
        """See `Start.metadata`."""
        return {}


@dataclass(frozen=True, slots=True)
class ImageNetStart:
    """An encoder with ImageNet's weights.

    Attributes:
        encoder: its name.
        content: of the file of its weights.
    """

    encoder: str
    content: bytes
    has_encoder: bool = True

    def apply(self, network: keras.Model, class_names: Sequence[str]) -> str | None:
        """See `Start.apply`."""
        del class_names
        set_encoder_weights(network, self.encoder, self.content)
        return None

    def metadata(self) -> dict[str, Any]:
        """See `Start.metadata`."""
        return {"pretrained": metadata_of(self.encoder)}


@dataclass(frozen=True, slots=True)
class ModelStart:
    """The weights of a trained model.

    Attributes:
        source: the model.
    """

    source: StoredNetwork

    @property
    def has_encoder(self) -> bool:
        """See `Start.has_encoder`."""
        return self.source.config.encoder is not None

    def apply(self, network: keras.Model, class_names: Sequence[str]) -> str | None:
        """See `Start.apply`."""
        taken = transfer(self.source, network, class_names)
        text = f"starts from {self.source.spec.name}: {taken.layers} layers"
        if taken.spread:
            text += f", of which {', '.join(taken.spread)} spread over {network.input.shape[-1]} channels"
        kept = f"the classes {', '.join(taken.classes)}" if taken.classes else "no class"
        return f"{text}; the outputs of {kept} are taken"

    def metadata(self) -> dict[str, Any]:
        """See `Start.metadata`."""
        inherited = {"pretrained": self.source.spec.training.get("pretrained")}
        return {"from": _described(self.source), **{key: value for key, value in inherited.items() if value}}


def read_sources(options: TrainOptions) -> tuple[StoredNetwork | None, StoredNetwork | None]:
    """Loads the models that the options name.

    Returns:
        The model to start from, and the teacher.

    Raises:
        OptionError: one can't be used.
    """
    source = stored_network(options.from_model, "--from") if options.from_model else None
    teacher = stored_network(options.distil, "--distil") if options.distil else None
    return source, teacher


def resolve_structure(options: TrainOptions, source: StoredNetwork | None) -> TrainOptions:
    """Fills in the network's options that are not given: from the model to start from, else the default preset.

    Raises:
        OptionError: an option contradicts the model to start from.
    """
    if source is None:
        return replace(options, preset=options.preset or DEFAULT_PRESET)
    config = source.config
    for name in ("preset", "width", "depth", "encoder"):
        given, value = getattr(options, name), getattr(config, name)
        if given is not None and given != value:
            raise OptionError(f"--{name} {given}: the network of --from {options.from_model} has {name} {value}")
    size = options.image_size or (config.image_height, config.image_width)
    return replace(
        options,
        preset=config.preset,
        width=config.width,
        depth=config.depth,
        encoder=config.encoder,
        image_size=size,
    )


def choose_start(options: TrainOptions, config: NetworkConfig, source: StoredNetwork | None) -> Start:
    """Chooses what the options ask for; what is missing is reported before any work.

    Raises:
        OptionError: the encoder's weights are not installed, or an option has no effect.
    """
    start: Start
    if source is not None:
        start = ModelStart(source)
    elif config.encoder is None or options.encoder == RANDOM_ENCODER:
        start = RandomStart()
    else:
        start = ImageNetStart(config.encoder, weights_content(config.encoder))
    if options.encoder_rate_factor is not None and not start.has_encoder:
        raise OptionError("--encoder_rate_factor needs a network with a pretrained encoder")
    return start


def encoder_of(options: TrainOptions) -> str | None:
    """The encoder of the network that the options ask for; None if its preset has none to choose."""
    default = PRESETS[options.preset or DEFAULT_PRESET].encoder
    if options.encoder == RANDOM_ENCODER:
        return default
    return options.encoder or default


def check_teacher(teacher: StoredNetwork, option: str, class_names: Sequence[str], channels: int) -> None:
    """Refuses a teacher whose answers mean something else.

    Raises:
        OptionError: its classes or channels are others.
    """
    theirs = teacher.spec.class_names
    if list(theirs) != list(class_names):
        raise OptionError(f"--distil {option}: its classes are {','.join(theirs)}, not {','.join(class_names)}")
    if teacher.spec.channels != channels:
        raise OptionError(f"--distil {option}: it takes {teacher.spec.channels} channels, not {channels}")


def teacher_metadata(teacher: StoredNetwork | None) -> dict[str, Any]:
    """The entries of `training` in `metadata.json` about a teacher."""
    return {} if teacher is None else {"distilled_from": _described(teacher)}


def _described(stored: StoredNetwork) -> dict[str, Any]:
    training = stored.spec.training
    return {
        "name": stored.spec.name,
        "sha256": stored.digest,
        "dataset": training.get("dataset"),
        "licence": training.get("licence"),
    }
