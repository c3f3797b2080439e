"""How far a process' memory rises, as measured by the kernel, so NumPy's, Pillow's and zlib's memory counts too."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def peak_bytes() -> int:
    """The peak memory of this process, since it began or since the peak was reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


@contextmanager
def growth() -> Iterator[list[int]]:
    """How far the process' memory rises above that on entry; skips if the kernel doesn't report it.

    Yields:
        A list that holds the bytes afterwards.
    """
    grown: list[int] = []
    try:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the kernel doesn't report the peak of a process' memory")
    before = peak_bytes()
    yield grown
    grown.append(peak_bytes() - before)
