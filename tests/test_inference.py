"""Batches that fail: halved until the picture that fails is found, smaller for good only where memory was short."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from pipeline.core.errors import EngineError, PictureError
from pipeline.engines.base import Batch, Logits
from pipeline.segmenting.inferring import Inference

INPUTS = [np.full((2, 3, 1), number, np.uint8) for number in range(8)]


class _Engine:
    """Returns a batch as its logits, unless `fault` gives an error for it; keeps the sizes of all batches."""

    def __init__(self, fault: Callable[[Batch], Exception | None]) -> None:
        self._fault = fault
        self.sizes: list[int] = []

    def logits(self, batch: Batch) -> Logits:
        self.sizes.append(len(batch))
        error = self._fault(batch)
        if error is not None:
            raise error
        return batch.astype(np.float32)


def _numbers(results: list[Logits | PictureError]) -> list[float | str]:
    return [one.error_type if isinstance(one, PictureError) else float(one[0, 0, 0]) for one in results]


def test_a_picture_that_the_engine_fails_on_is_found_and_batches_stay_as_large() -> None:
    engine = _Engine(lambda batch: ValueError("bad") if (batch == 5).any() else None)
    inference = Inference(engine, 6)
    assert _numbers(inference.logits(INPUTS, Counter())) == [0, 1, 2, 3, 4, "EngineFailed", 6, 7]
    assert engine.sizes == [8, 4, 4, 2, 1, 1, 2]
    assert inference.max_items == 6


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("CUDA out of memory"), type("ResourceExhaustedError", (Exception,), {})("oom")],
)
def test_batches_are_smaller_after_memory_was_short(error: Exception) -> None:
    engine = _Engine(lambda batch: error if len(batch) > 3 else None)
    inference = Inference(engine, None)
    assert _numbers(inference.logits(INPUTS, Counter())) == list(range(8))
    assert engine.sizes == [8, 4, 2, 2, 4, 2, 2]
    assert inference.max_items == 2


def test_a_limit_that_another_thread_lowered_is_not_raised_again() -> None:
    faults = iter([MemoryError()])
    inference = Inference(_Engine(lambda batch: next(faults, None)), 2)
    assert _numbers(inference.logits(INPUTS, Counter())) == list(range(8))
    assert inference.max_items == 2


def test_a_picture_too_large_for_the_memory_is_called_so() -> None:
    inference = Inference(_Engine(lambda batch: MemoryError() if (batch == 1).any() else None), None)
    assert _numbers(inference.logits(INPUTS[:2], Counter())) == [0, "OutOfMemory"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_costs_its_picture(value: float) -> None:
    class Broken(_Engine):
        def logits(self, batch: Batch) -> Logits:
            logits = super().logits(batch)
            logits[1, 1, 2, 0] = value
            return logits

    assert _numbers(Inference(Broken(lambda batch: None), None).logits(INPUTS[:3], Counter())) == [0, "NotFinite", 2]


def test_an_engine_that_fails_on_everything_stops_the_job() -> None:
    engine = _Engine(lambda batch: EngineError("the model is gone"))
    with pytest.raises(EngineError, match="the model is gone"):
        Inference(engine, None).logits(INPUTS, Counter())
    assert engine.sizes == [8]
