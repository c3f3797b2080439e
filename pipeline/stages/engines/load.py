"""Choosing and loading the engine of a process."""

import os

from pipeline.core.errors import OptionError
from pipeline.stages.engines.base import Engine, self_test
from pipeline.stages.modelfolder import ModelFolder

BACKENDS = ("auto", "litert", "tensorflow")


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_engine(model: ModelFolder, backend: str, threads: int) -> Engine:
    """Loads a model and proves that it runs.

    Args:
        model: a checked model folder.
        backend: one of `BACKENDS`; `auto` is LiteRT.
        threads: how many batches may run at a time, at least 1.

    Returns:
        The engine.

    Raises:
        EngineError: the engine can't be loaded or fails its self-test.
        OptionError: the backend's package isn't installed.
    """
    engine: Engine
    if backend == "tensorflow":
        try:
            from pipeline.stages.engines.tensorflow import TensorFlowEngine
        except ImportError as error:
            raise OptionError("--backend tensorflow needs TensorFlow: pip install 'maskbeam[train]'") from error
        engine = TensorFlowEngine(model, threads)
    else:
        from pipeline.stages.engines.litert import LiteRTEngine

        engine = LiteRTEngine(model.read(), threads)
    self_test(engine, model.spec)
    return engine
