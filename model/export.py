"""From a trained network to the files of a model folder, each compared with Keras on real pictures."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from model.agreement import KerasEngine, Probe, SavedModelEngine, UInt8Array, compare
from model.evaluate import load_engine
from model.networks.network import NetworkConfig, build_network, logits_of
from model.networks.rewrite import rewrite_for_inference
from pipeline.core.errors import OptionError
from pipeline.core.spec import FLOAT_MODEL_FILE, INT8_MODEL_FILE, KERAS_MODEL_FILE
from pipeline.engines.base import Engine
from pipeline.engines.quiet import quiet
from pipeline.storage import filesystem

SAVED_MODEL_FOLDER = "saved_model"

_LOAD = """
import sys
from ai_edge_litert.interpreter import Interpreter
Interpreter(model_path=sys.argv[1], num_threads=1).allocate_tensors()
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """The files written besides the metadata.

    Attributes:
        files: name to SHA-256 and size in bytes.
        agreement: name to how closely its masks agree with Keras' masks.
    """

    files: dict[str, dict[str, Any]]
    agreement: dict[str, dict[str, Any]]


def export_network(
    network: keras.Model,
    config: NetworkConfig,
    folder: Path,
    calibration: Sequence[UInt8Array],
    probes: Sequence[Probe],
    *,
    saved_model: bool = False,
) -> Exported:
    """Writes `model.keras`, `model.tflite`, `model_int8.tflite` and, on request, `saved_model/`.

    Args:
        network: trained, softmax at the end.
        config: its structure.
        folder: the model folder.
        calibration: training pictures at the model's size that the int8 ranges are measured on; without them, or if
            LiteRT can't run the result, there is no int8 file.
        probes: pictures at the model's size, with class ids if known, on which the exports are compared.
        saved_model: whether to write a SavedModel too.

    Returns:
        Digests, sizes and agreement.

    Raises:
        OptionError: the backend is not TensorFlow, whose converter is needed.
    """
    if keras.backend.backend() != "tensorflow":
        raise OptionError("the export to LiteRT needs TensorFlow: run `export` with KERAS_BACKEND=tensorflow")
    with _float32():
        plain = _copied(network, config)
        fast = rewrite_for_inference(plain, config)
    contents = {KERAS_MODEL_FILE: _keras_bytes(plain), FLOAT_MODEL_FILE: _convert(fast, None)}
    if calibration and _can_be_run(int8 := _convert(fast, calibration)):
        contents[INT8_MODEL_FILE] = int8
    for name, content in contents.items():
        filesystem.write_bytes(os.fspath(folder / name), content)
    files = {name: file_entry(content) for name, content in contents.items()}
    shape = (config.image_height, config.image_width, config.channels)
    engines: dict[str, Engine] = {
        name: load_engine(content, *shape) for name, content in contents.items() if name.endswith(".tflite")
    }
    if saved_model:
        _write_saved_model(plain, folder / SAVED_MODEL_FOLDER)
        engines[SAVED_MODEL_FOLDER] = SavedModelEngine(folder / SAVED_MODEL_FOLDER)
    reference = KerasEngine(logits_of(plain))
    agreement = {name: compare(reference, engine, probes, config.num_classes) for name, engine in engines.items()}
    return Exported(files, agreement)


def file_entry(content: bytes) -> dict[str, Any]:
    """The entry of a file in `metadata.json`: its SHA-256 and size in bytes."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Builds networks that compute in float32, whatever the training's precision."""
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(policy)


def _copied(network: keras.Model, config: NetworkConfig) -> keras.Model:
    copy = build_network(config)
    copy.set_weights(network.get_weights())
    return copy


def keras_file(network: keras.Model, config: NetworkConfig) -> bytes:
    """The `model.keras` of a trained network: float32, without the optimizer's state."""
    with _float32():
        return _keras_bytes(_copied(network, config))


def _keras_bytes(network: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / KERAS_MODEL_FILE
        network.save(path, include_optimizer=False)
        return path.read_bytes()


def _convert(network: keras.Model, calibration: Sequence[UInt8Array] | None) -> bytes:
    """Converts to LiteRT, with int8 weights and activations if calibration pictures are given."""
    import tensorflow as tf

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        return bytes(converter.convert())


def _can_be_run(tflite: bytes) -> bool:
    """Loads a file in a separate process, because LiteRT aborts the process at the int8 ranges of a dead layer."""
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(tflite)
        file.flush()
        done = subprocess.run([sys.executable, "-c", _LOAD, file.name], capture_output=True, check=False)
    return done.returncode == 0


def _write_saved_model(network: keras.Model, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with quiet():
        logits_of(network).export(os.fspath(folder), verbose=False)
