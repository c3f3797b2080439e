"""Silence for libraries that write to the standard streams from C++, past Python's own `sys.stderr`."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Sends everything that is written to both standard streams, from C++ too, to nowhere for a while.

    Exceptions pass, so no fault is hidden.
    """
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def start_keras() -> None:
    """Imports Keras and its backend without their chatter, before anything else does.

    Raises:
        ModuleNotFoundError: Keras or the backend isn't installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with quiet():
        import keras

        keras.backend.backend()
