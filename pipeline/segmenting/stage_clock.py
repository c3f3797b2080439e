"""The clock of the stages: seconds by name, for the reader of `run.stages`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

Seconds = dict[str, float]


@contextmanager
def timed(stage: str, seconds: Seconds) -> Iterator[None]:
    """Adds the wall time of a block, s, to a stage.

    Args:
        stage: its name.
        seconds: by stage; a `defaultdict(float)`.
    """
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] += time.perf_counter() - begin
