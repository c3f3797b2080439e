"""TensorFlow: the engine on request, from the model folder's Keras file; the one that uses a GPU."""

import contextlib
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

from pipeline.core.errors import EngineError
from pipeline.core.spec import KERAS_MODEL_FILE
from pipeline.engines.base import Batch, Logits
from pipeline.engines.model_folder import ModelFolder
from pipeline.storage import storage


class TensorFlowEngine:
    """The Keras model up to its logits as one compiled graph function.

    Args:
        model: a model folder that holds `model.keras`.
        threads: TensorFlow's own threads within an operation.

    Raises:
        EngineError: the Keras file is missing or can't be loaded.
    """

    def __init__(self, model: ModelFolder, threads: int) -> None:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        with contextlib.suppress(RuntimeError):  # TensorFlow already runs in this process and keeps its threads
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        network = _load_keras(model)
        spec = model.spec
        signature = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.as_dtype(spec.dtype))
        self._function = tf.function(lambda batch: network(batch, training=False), input_signature=[signature])

    def logits(self, batch: Batch) -> Logits:
        """As `Engine.logits`."""
        return np.asarray(self._function(tf.constant(batch)).numpy(), np.float32)


def _load_keras(model: ModelFolder) -> keras.Model:
    """Loads `model.keras` as data (no code in it runs) and cuts a closing softmax off."""
    try:
        content = storage.read_bytes(storage.join(model.uri, KERAS_MODEL_FILE))
    except OSError as error:
        raise EngineError(f"--backend tensorflow needs {KERAS_MODEL_FILE} in the model folder: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, KERAS_MODEL_FILE)
        with open(path, "wb") as file:
            file.write(content)
        try:
            network = keras.saving.load_model(path, compile=False, safe_mode=True)
        except (ValueError, TypeError, OSError) as error:
            raise EngineError(f"{KERAS_MODEL_FILE} can't be loaded: {error}") from error
    names = [layer.name for layer in network.layers]
    if "logits" in names:
        return keras.Model(network.inputs, network.get_layer("logits").output)
    return network
