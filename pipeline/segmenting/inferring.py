"""Runs the engine on views of any pictures; a view that the engine fails on fails only its picture."""

import re
from collections.abc import Sequence

import numpy as np

from pipeline.core.errors import EngineError, ErrorType, PictureError
from pipeline.core.model_input import ModelInput
from pipeline.engines.base import Engine, Logits, input_batch
from pipeline.segmenting.stage_clock import Seconds, timed

_OUT_OF_MEMORY = re.compile(r"out of memory|memory exhausted|alloc|\bOOM\b", re.IGNORECASE)


class Inference:
    """Runs the engine in batches; thread-safe.

    Args:
        engine: the loaded model.
        max_items: maximum number of views per batch; None for no limit. It is reduced if the engine runs out of memory.
    """

    def __init__(self, engine: Engine, max_items: int | None) -> None:
        self._engine = engine
        self.max_items = max_items

    def logits(self, inputs: Sequence[ModelInput], seconds: Seconds) -> list[Logits | PictureError]:
        """Runs one batch; a batch that fails is halved until the failing input is found.

        Args:
            inputs: (height, width, channels) each; at least one.
            seconds: receives the time of the stage `infer`.

        Returns:
            (h, w, num_classes) float32 for each input, or the error.

        Raises:
            EngineError: the engine fails independently of the pictures.
        """
        try:
            with timed("infer", seconds):
                results = self._engine.logits(input_batch(inputs))
        except EngineError:
            raise
        except Exception as error:
            lacks_memory = _lacks_memory(error)
            if len(inputs) == 1:
                message = f"the engine fails on this picture: {type(error).__name__}: {error}"
                return [
                    PictureError(
                        "segment", ErrorType.OUT_OF_MEMORY if lacks_memory else ErrorType.ENGINE_FAILED, message
                    )
                ]
            middle = len(inputs) // 2
            if lacks_memory:
                self.max_items = min(self.max_items or middle, middle)
            return self.logits(inputs[:middle], seconds) + self.logits(inputs[middle:], seconds)
        return [_checked(result) for result in results]


def _checked(logits: Logits) -> Logits | PictureError:
    if np.isfinite(logits).all():
        return logits
    return PictureError("segment", ErrorType.NOT_FINITE, "the model's output for this picture is not finite")


def _lacks_memory(error: Exception) -> bool:
    """Whether an exception of LiteRT, TensorFlow or CUDA means that memory is exhausted."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return named or bool(_OUT_OF_MEMORY.search(str(error)))
