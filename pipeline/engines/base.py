"""The interface of inference engines: batches of pictures in, logits out, from any number of threads."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import EngineError
from pipeline.core.model_input import ModelInput, model_input
from pipeline.core.spec import ModelSpec

Batch = ModelInput
Logits = npt.NDArray[np.float32]


class Engine(Protocol):
    """Runs one loaded model; shared by all threads of a process."""

    def logits(self, batch: Batch) -> Logits:
        """Runs the network.

        Args:
            batch: (N, height, width, channels) of the model's input dtype and range.

        Returns:
            (N, h, w, num_classes) float32.

        Raises:
            Exception: any exception of the engine; the caller finds the picture that causes it.
        """
        ...


def input_batch(inputs: Sequence[ModelInput]) -> Batch:
    """Stacks arrays from `pipeline.core.model_input.model_input`.

    Args:
        inputs: (height, width, channels) each, of one dtype.

    Returns:
        (N, height, width, channels).
    """
    arrays: Sequence[npt.NDArray[Any]] = inputs
    return np.stack(arrays)


def self_test(engine: Engine, spec: ModelSpec) -> None:
    """Runs one black and one white picture through a new engine.

    Args:
        engine: the engine to test.
        spec: the model's.

    Raises:
        EngineError: it fails, or its output has another shape or isn't finite.
    """
    shape = (spec.height, spec.width, spec.channels)
    for level in (0, 255):
        try:
            logits = engine.logits(input_batch([model_input(np.full(shape, level, np.uint8), spec.input)]))
        except Exception as error:
            raise EngineError(f"the engine fails on a plain picture: {error}") from error
        if logits.ndim != 4 or logits.shape[0] != 1 or logits.shape[3] != spec.num_classes:
            raise EngineError(
                f"the engine's output has shape {tuple(logits.shape)}, but the metadata has {spec.num_classes} classes"
            )
        if not np.isfinite(logits).all():
            raise EngineError("the engine's output for a plain picture is not finite")
