"""Loading the engine of a process."""

import os

from pipeline.engines.backends import backend_named
from pipeline.engines.base import Engine, self_test
from pipeline.engines.model_folder import ModelFolder
from pipeline.engines.quiet import LITERT_GREETING, quiet


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_engine(model: ModelFolder, threads: int) -> Engine:
    """Loads a model with its backend and runs the self-test.

    Args:
        model: a checked model folder.
        threads: how many batches may run at a time, at least 1.

    Returns:
        The engine.

    Raises:
        EngineError: the engine can't be loaded or fails its self-test.
        ModelError: the model's file changed since it was checked.
    """
    engine = backend_named(model.backend).load(model.spec, model.read(), threads)
    with quiet(LITERT_GREETING):
        self_test(engine, model.spec)
    return engine
