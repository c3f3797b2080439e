"""From a trained network to the files of a model folder, each held against Keras on real pictures."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model.evaluate import load_engine
from model.network import NetworkConfig, build_network, logits_of
from model.quiet import quiet
from model.rewrite import rewrite_for_inference
from pipeline.core.errors import OptionError
from pipeline.core.labels import ClassIds
from pipeline.core.scores import confusion_matrix, iou_per_class, mean_of_present
from pipeline.core.spec import FLOAT_MODEL_FILE, INT8_MODEL_FILE, KERAS_MODEL_FILE
from pipeline.stages import storage
from pipeline.stages.engines.base import Batch, Logits

UInt8Array = npt.NDArray[np.uint8]
Probe = tuple[UInt8Array, ClassIds | None]

SAVED_MODEL_FOLDER = "saved_model"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written beside the metadata.

    Attributes:
        files: name to SHA-256 and size in bytes.
        agreement: name to the likeness of its masks to Keras' masks.
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
    """Writes `model.keras`, `model.tflite`, `model_int8.tflite` and, if asked, `saved_model/`.

    Args:
        network: trained, softmax at the end.
        config: its structure.
        folder: where to.
        calibration: training pictures at the model's size that the int8 ranges are measured on.
        probes: pictures at the model's size, with class ids where they are known, on which the exports are compared.
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
    if calibration:
        contents[INT8_MODEL_FILE] = _convert(fast, calibration)
    for name, content in contents.items():
        storage.write_bytes(os.fspath(folder / name), content)
    if saved_model:
        _write_saved_model(plain, folder / SAVED_MODEL_FOLDER)
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in contents.items()
    }
    agreement = {
        name: compare(plain, content, probes, config.num_classes)
        for name, content in contents.items()
        if name.endswith(".tflite")
    }
    return Exported(files, agreement)


class KerasEngine:
    """A Keras network that ends in logits as an engine, for a backend that has no LiteRT export."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network

    def logits(self, batch: Batch) -> Logits:
        """As `pipeline.stages.engines.base.Engine.logits`."""
        return np.asarray(keras.ops.convert_to_numpy(self._network(batch, training=False)), np.float32)


def compare(
    network: keras.Model,
    tflite: bytes,
    probes: Sequence[Probe],
    num_classes: int,
) -> dict[str, Any]:
    """Holds a LiteRT file's masks against Keras' at the model's size.

    Returns:
        `pictures`; `equal_pixels`, the share of pixels of the same class; `global_mean_iou_difference`, LiteRT's less
        Keras', None without truth.
    """
    engine = load_engine(tflite, *network.input_shape[1:])
    logits = logits_of(network)
    equal_px = total_px = 0
    matrices = np.zeros((2, num_classes, num_classes), np.int64)
    for image, truth in probes:
        theirs = np.argmax(keras.ops.convert_to_numpy(logits(image[None], training=False))[0], axis=-1)
        ours = np.argmax(engine.logits(image[None])[0], axis=-1)
        equal_px += int((theirs == ours).sum())
        total_px += ours.size
        if truth is not None:
            for matrix, mask in zip(matrices, (theirs, ours), strict=True):
                matrix += confusion_matrix(truth, mask.astype(truth.dtype), num_classes)
    difference = None
    if matrices.any():
        before, after = (mean_of_present(iou_per_class(matrix)) for matrix in matrices)
        difference = round(after - before, 6)
    share = equal_px / total_px if total_px else float("nan")
    return {"pictures": len(probes), "equal_pixels": round(share, 6), "global_mean_iou_difference": difference}


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Builds networks whose work is all in float32, whatever training was done in."""
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
    """Converts to LiteRT, with int8 weights and activations where calibration pictures are given."""
    import tensorflow as tf

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        if calibration is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in calibration)
        return bytes(converter.convert())


def _write_saved_model(network: keras.Model, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with quiet():
        logits_of(network).export(os.fspath(folder), verbose=False)
