"""Suppresses output of libraries to the standard streams that can't be turned off by an option."""

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

    Output of the process, from any thread, is held back until the end; then the lines that are not dropped are written.

    Args:
        start: how the lines to drop begin. Empty for all lines, and for those printed to `sys.stdout` too; after an
            exception they are written to standard error instead of dropped.
    """
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        kept = os.dup(_STANDARD_ERROR)
    except OSError:  # no temporary file, or standard error is closed
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
    """Drops what Python code prints to `sys.stderr`, such as tracebacks that Beam prints and also raises.

    Output from C++ and from code that already has the stream (a progress bar, logging) is still written.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def start_keras() -> None:
    """Imports Keras and its backend, before anything else imports them, without the output of their import.

    Raises:
        ModuleNotFoundError: Keras or the backend isn't installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    with quiet():
        import keras

        keras.backend.backend()
