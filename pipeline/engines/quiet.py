"""Silence for an engine's greeting, which comes from C++ and past Python's own `sys.stderr`."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

LITERT_GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate"
"""The start of the line that LiteRT writes to standard error at the first run of a process; it has no switch for it."""

_STANDARD_ERROR = 2


@contextlib.contextmanager
def without_greeting(start: bytes) -> Iterator[None]:
    """Leaves lines that begin so out of what the process writes to standard error for a while.

    Everything else, from whichever thread, is written at the end of that while; exceptions pass.

    Args:
        start: how the lines begin that nobody needs.
    """
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115  (closed below)
        kept = os.dup(_STANDARD_ERROR)
    except OSError:  # nowhere to hold it, or standard error is closed
        yield
        return
    with held:
        os.dup2(held.fileno(), _STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(kept, _STANDARD_ERROR)
            os.close(kept)
            held.seek(0)
            for line in held.read().splitlines(keepends=True):
                if not line.startswith(start):
                    os.write(_STANDARD_ERROR, line)
