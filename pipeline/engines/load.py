"""Choosing and loading the engine of a process."""

import importlib.util
import os

from pipeline.core.errors import EngineError, OptionError
from pipeline.core.spec import KERAS_MODEL_FILE
from pipeline.engines.base import Engine, self_test
from pipeline.engines.model_folder import ModelFolder
from pipeline.engines.quiet import without_greeting
from pipeline.storage import storage

BACKENDS = ("auto", "litert", "tensorflow")


_BATCH_SIZES = {"tensorflow": 32}
"""What suits an engine. LiteRT takes a picture at a time: more only push each other out of the caches. A batch too
large for a GPU's memory is halved until it fits."""


def batch_size_for(backend: str) -> int:
    """Pictures a batch that suit a backend, one of `BACKENDS`."""
    return _BATCH_SIZES.get(backend, 1)


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_backend(model: ModelFolder, backend: str, *, is_here: bool) -> None:
    """Proves that a backend has what it needs, before any work.

    Args:
        model: a checked model folder.
        backend: one of `BACKENDS`.
        is_here: whether the engine will run on this machine.

    Raises:
        OptionError: the model folder lacks the backend's file, or this machine the backend's package.
    """
    if backend != "tensorflow":
        return
    if not storage.exists(storage.join(model.uri, KERAS_MODEL_FILE)):
        raise OptionError(f"--backend tensorflow needs {KERAS_MODEL_FILE}, which model {model.location} lacks")
    if is_here and importlib.util.find_spec("tensorflow") is None:
        raise OptionError("--backend tensorflow needs TensorFlow: pip install 'maskbeam[train]'")


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
    """
    engine: Engine
    if backend == "tensorflow":
        try:
            from pipeline.engines.tensorflow import TensorFlowEngine
        except ImportError as error:
            raise EngineError(f"--backend tensorflow: TensorFlow can't be imported: {error}") from error
        engine = TensorFlowEngine(model, threads)
    else:
        from pipeline.engines.litert import GREETING, LiteRTEngine

        engine = LiteRTEngine(model.read(), threads)
        with without_greeting(GREETING):
            self_test(engine, model.spec)
        return engine
    self_test(engine, model.spec)
    return engine
