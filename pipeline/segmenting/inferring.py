"""Running the engine on views of any pictures: one bad view costs its picture alone."""

import re
from collections.abc import Sequence

import numpy as np

from pipeline.core.errors import EngineError, ErrorType, PictureError
from pipeline.core.model_input import ModelInput
from pipeline.engines.base import Engine, Logits, input_batch
from pipeline.segmenting.stage_clock import Seconds, timed

_OUT_OF_MEMORY = re.compile(r"out of memory|memory exhausted|alloc|\bOOM\b", re.IGNORECASE)


class Inference:
    """Runs the engine in batches; shared by all threads of a process.

    Args:
        engine: the loaded model.
        max_items: how many views the engine takes at a time at most; None for all that come together. It is lowered
            where the engine lacks memory for them.
    """

    def __init__(self, engine: Engine, max_items: int | None) -> None:
        self._engine = engine
        self.max_items = max_items

    def logits(self, inputs: Sequence[ModelInput], seconds: Seconds) -> list[Logits | PictureError]:
        """Runs one batch; a batch that the engine refuses is halved until the culprit is alone.

        Args:
            inputs: (height, width, channels) each; at least one.
            seconds: the time goes to its `infer`.

        Returns:
            (h, w, num_classes) float32 for each, or why there is none.

        Raises:
            EngineError: the engine can't run at all.
        """
        try:
            with timed("infer", seconds):
                answers = self._engine.logits(input_batch(inputs))
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
        return [_checked(answer) for answer in answers]


def _checked(logits: Logits) -> Logits | PictureError:
    if np.isfinite(logits).all():
        return logits
    return PictureError("segment", ErrorType.NOT_FINITE, "the engine's answer to this picture is not finite")


def _lacks_memory(error: Exception) -> bool:
    """Whether an engine's error is one of too little memory, in the words of LiteRT, TensorFlow and CUDA."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    return named or bool(_OUT_OF_MEMORY.search(str(error)))
