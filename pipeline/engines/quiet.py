"""Silence for what libraries write to the standard streams and offer no switch for."""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator

LITERT_GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate"
"""The start of the line that LiteRT writes to standard error at the first run of a process."""

_STANDARD_ERROR = 2


@contextlib.contextmanager
def quiet(start: bytes = b"") -> Iterator[None]:
    """Drops lines that a library writes to standard error, from C++ too.

    What the process writes meanwhile, from any thread, is held; at the end the lines that are not dropped are written.

    Args:
        start: how the lines to drop begin. Empty for all lines, and for what is printed to `sys.stdout` too; these are
            written to standard error after all if an exception passes.
    """
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        kept = os.dup(_STANDARD_ERROR)
    except OSError:  # nowhere to hold it, or standard error is closed
        yield
        return
    is_all = not start
    with held:
        sys.stderr.flush()
        os.dup2(held.fileno(), _STANDARD_ERROR)
        printed = io.TextIOWrapper(os.fdopen(os.dup(held.fileno()), "wb"), write_through=True)
        try:
            with contextlib.redirect_stdout(printed) if is_all else contextlib.nullcontext():
                yield
        except BaseException:
            is_all = False
            raise
        finally:
            printed.close()
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
            held.seek(0)
            for line in held.read().splitlines(keepends=True):
                if not (is_all or (start and line.startswith(start))):
                    os.write(_STANDARD_ERROR, line)


@contextlib.contextmanager
def without_python_stderr() -> Iterator[None]:
    """Drops what Python code prints to `sys.stderr`, such as the traces that Beam prints beside raising them.

    What C++ writes, and what already holds the stream (a progress bar, logging), is still written.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def start_keras() -> None:
    """Imports Keras and its backend without what they write at their import, before anything else imports them.

    Raises:
        ModuleNotFoundError: Keras or the backend isn't installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with quiet():
        import keras

        keras.backend.backend()
