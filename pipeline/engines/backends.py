"""The inference backends in one table: what each runs, needs and loads. A new one is a module and a line here."""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.core.errors import EngineError, OptionError
from pipeline.core.spec import FLOAT_MODEL_FILE, INT8_MODEL_FILE, KERAS_MODEL_FILE, ModelSpec
from pipeline.engines.base import Engine
from pipeline.engines.quiet import start_keras

FLOAT32, INT8 = PRECISIONS = ("float32", "int8")
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run a model.

    Args:
        name: as `--backend` takes it.
        files: the file of the model folder that it runs, by precision.
        package: the Python module that it imports.
        extra: the extra of this package that installs it, "" where the core does.
        batch_size: default number of pictures per batch; 1 for LiteRT, because larger batches
            evict each other from the caches.
        load: makes an engine from the spec, the file's content and the number of batches that run at a time.
    """

    name: str
    files: Mapping[str, str]
    package: str
    extra: str
    batch_size: int
    load: Callable[[ModelSpec, bytes, int], Engine]


def _litert(spec: ModelSpec, content: bytes, threads: int) -> Engine:
    from pipeline.engines.litert import LiteRTEngine

    return LiteRTEngine(content, threads)


def _tensorflow(spec: ModelSpec, content: bytes, threads: int) -> Engine:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        start_keras()
        from pipeline.engines.tensorflow import TensorFlowEngine
    except ImportError as error:
        raise EngineError(f"--backend tensorflow: TensorFlow can't be imported: {error}") from error
    return TensorFlowEngine(spec, content, threads)


BACKENDS = (
    Backend("litert", {FLOAT32: FLOAT_MODEL_FILE, INT8: INT8_MODEL_FILE}, "ai_edge_litert", "", 1, _litert),
    Backend("tensorflow", {FLOAT32: KERAS_MODEL_FILE}, "tensorflow", "train", 32, _tensorflow),
)
"""All backends; the first is what `auto` means."""

BACKEND_NAMES = (AUTO, *(backend.name for backend in BACKENDS))


def backend_named(name: str) -> Backend:
    """The backend of a name of `BACKEND_NAMES`."""
    return next(backend for backend in BACKENDS if name in (AUTO, backend.name))


def check_backend(name: str, precision: str, *, is_here: bool) -> None:
    """Checks that a backend supports a precision and, if it runs on this machine, is installed.

    Args:
        name: one of `BACKEND_NAMES`.
        precision: one of `PRECISIONS`.
        is_here: whether the engine will run on this machine.

    Raises:
        OptionError: it does not, or is not.
    """
    backend = backend_named(name)
    if precision not in backend.files:
        raise OptionError(f"--precision {precision}: --backend {name} runs {' and '.join(backend.files)} only")
    if is_here and importlib.util.find_spec(backend.package) is None:
        package = f"maskbeam[{backend.extra}]" if backend.extra else "maskbeam"
        raise OptionError(f"--backend {backend.name} needs the package {backend.package}: pip install '{package}'")
