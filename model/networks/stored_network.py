"""Networks as model folders store them."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import keras

from model.networks.network import PRESETS, NetworkConfig, build_network, check_config
from pipeline.core.errors import ModelError, OptionError
from pipeline.core.spec import KERAS_MODEL_FILE, METADATA_FILE, ModelSpec
from pipeline.core.split_digests import SplitDigests
from pipeline.engines.model_folder import open_model
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as


@dataclass(frozen=True, slots=True)
class StoredNetwork:
    """A network that a training wrote.

    Attributes:
        spec: the model's metadata.
        config: the network's structure.
        network: softmax at the end.
        digest: SHA-256 of its file, hexadecimal.
        split: which pictures it was trained on; None for a model that does not say.
    """

    spec: ModelSpec
    config: NetworkConfig
    network: keras.Model
    digest: str
    split: SplitDigests | None


def stored_network(name_or_folder: str, option: str) -> StoredNetwork:
    """Loads the trained network of a model.

    Args:
        name_or_folder: a carried model's name, or a folder or bucket prefix.
        option: the option that names it, for messages.

    Raises:
        OptionError: no model with a Keras file of one of our networks is found there.
    """
    try:
        model = open_model(name_or_folder)
        config = config_of(model.spec)
        with os_errors_as(ModelError, f"{KERAS_MODEL_FILE} can't be read"):
            content = filesystem.read_bytes(filesystem.join(model.uri, KERAS_MODEL_FILE))
        digest = hashlib.sha256(content).hexdigest()
        if model.spec.files.get(KERAS_MODEL_FILE, {}).get("sha256", digest) != digest:
            raise ModelError(f"{KERAS_MODEL_FILE} has another digest than in {METADATA_FILE}")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / KERAS_MODEL_FILE
            path.write_bytes(content)
            network = load_network(path, config)
        return StoredNetwork(model.spec, config, network, digest, model.split())
    except ModelError as error:
        message = str(error).removeprefix(f"--model {name_or_folder}: ")
        raise OptionError(f"{option} {name_or_folder}: {message}") from error


def config_of(spec: ModelSpec) -> NetworkConfig:
    """The structure of a network that `train` made.

    Raises:
        ModelError: the metadata doesn't have it.
    """
    training = spec.training
    try:
        preset, width, depth = str(training["preset"]), int(training["width"]), int(training["depth"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{METADATA_FILE} of {spec.name}: training has no preset, width and depth") from error
    if preset not in PRESETS:
        raise ModelError(f"{METADATA_FILE} of {spec.name}: the preset {preset!r} is not one of {', '.join(PRESETS)}")
    encoder = training.get("encoder")
    config = NetworkConfig(preset, width, depth, spec.height, spec.width, spec.channels, spec.num_classes, encoder)
    try:
        check_config(config)
    except OptionError as error:
        raise ModelError(f"{METADATA_FILE} of {spec.name}: {error}") from error
    return config


def load_network(path: str | os.PathLike[str], config: NetworkConfig) -> keras.Model:
    """Loads the Keras file of a network that `train` made.

    Args:
        path: of the file.
        config: its structure.

    Raises:
        ModelError: the file holds another network, or none.
    """
    try:
        saved = keras.saving.load_model(path, compile=False, safe_mode=True)
        network = build_network(config)
        network.set_weights(saved.get_weights())
    except (OSError, ValueError, TypeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} is not a Keras file of a {config.preset} network: {first}") from error
    return network
