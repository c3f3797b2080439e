"""What an engine is: batches of pictures in, logits out, from any number of threads."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import EngineError
from pipeline.core.spec import ModelSpec

Batch = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
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
            Exception: whatever the engine raises; the caller blames the picture that does it alone.
        """
        ...


def input_batch(pictures: list[npt.NDArray[np.uint8]], spec: ModelSpec) -> Batch:
    """Stacks resized pictures and brings them to the model's dtype and range.

    Args:
        pictures: (height, width, channels) uint8 each.
        spec: the model's.

    Returns:
        (N, height, width, channels).
    """
    batch = np.stack(pictures)
    if spec.dtype == "uint8":
        return batch
    low, high = spec.value_range
    return (batch * np.float32((high - low) / 255.0) + np.float32(low)).astype(np.float32)


def self_test(engine: Engine, spec: ModelSpec) -> None:
    """Runs one black and one white picture through a fresh engine.

    Args:
        engine: the engine to prove.
        spec: what the model promises.

    Raises:
        EngineError: it fails, or its answer has another shape or isn't finite.
    """
    shape = (spec.height, spec.width, spec.channels)
    for level in (0, 255):
        try:
            logits = engine.logits(input_batch([np.full(shape, level, np.uint8)], spec))
        except Exception as error:
            raise EngineError(f"the engine fails on a plain picture: {error}") from error
        if logits.ndim != 4 or logits.shape[0] != 1 or logits.shape[3] != spec.num_classes:
            raise EngineError(
                f"the engine answers in shape {tuple(logits.shape)}; the metadata promises {spec.num_classes} classes"
            )
        if not np.isfinite(logits).all():
            raise EngineError("the engine's answer to a plain picture is not finite")
