"""How far a process' memory rises, asked of the kernel: NumPy's, Pillow's and zlib's memory counts too."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def peak_bytes() -> int:
    """The most that this process has held at one time, since it began or since the kernel was told to forget."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) << 10


@contextmanager
def growth() -> Iterator[list[int]]:
    """How far the process' memory rises above what it holds on entry; skips where the kernel doesn't say.

    Yields:
        A list that holds the bytes afterwards.
    """
    grown: list[int] = []
    try:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("the kernel doesn't tell the peak of a process' memory")
    before = peak_bytes()
    yield grown
    grown.append(peak_bytes() - before)
