"""Measures the time of stages for `run.stages`: seconds by name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

Seconds = dict[str, float]


@contextmanager
def timed(stage: str, seconds: Seconds) -> Iterator[None]:
    """Adds the wall time of a `with` block to a stage, in seconds.

    Args:
        stage: its name.
        seconds: by stage; a `defaultdict(float)`.
    """
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] += time.perf_counter() - begin
