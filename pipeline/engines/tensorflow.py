"""TensorFlow: the engine on request, from the model folder's Keras file; the one that uses a GPU."""

import contextlib
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

from pipeline.core.errors import EngineError
from pipeline.core.spec import KERAS_MODEL_FILE, ModelSpec
from pipeline.engines.base import Batch, Logits


class TensorFlowEngine:
    """The Keras model up to its logits as one compiled graph function.

    Args:
        spec: what the model takes.
        content: the `.keras` file.
        threads: TensorFlow's own threads within an operation.

    Raises:
        EngineError: the Keras file can't be loaded.
    """

    def __init__(self, spec: ModelSpec, content: bytes, threads: int) -> None:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        with contextlib.suppress(RuntimeError):  # TensorFlow is already initialized in this process
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        network = _load_keras(content)
        signature = tf.TensorSpec((None, spec.height, spec.width, spec.channels), tf.as_dtype(spec.dtype))
        self._function = tf.function(lambda batch: network(batch, training=False), input_signature=[signature])

    def logits(self, batch: Batch) -> Logits:
        """As `Engine.logits`."""
        return np.asarray(self._function(tf.constant(batch)).numpy(), np.float32)


def _load_keras(content: bytes) -> keras.Model:
    """Loads a `.keras` file in safe mode, in which it can't run code, and removes a final softmax."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, KERAS_MODEL_FILE)
        with open(path, "wb") as file:
            file.write(content)
        try:
            network = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # a damaged archive or an unknown layer can raise any exception
            raise EngineError(f"{KERAS_MODEL_FILE} can't be loaded: {error}") from error
    names = [layer.name for layer in network.layers]
    if "logits" in names:
        return keras.Model(network.inputs, network.get_layer("logits").output)
    return network
