"""Measures the elements that cross a job's shuffles in FnApiRunner: the encoded bytes, with keys and windows."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from apache_beam.runners.portability.fn_api_runner import execution


@dataclass
class Shuffle:
    """One grouping's input.

    Args:
        elements: how many key-value pairs went in.
        total_bytes: their encoded size.
        largest_bytes: the largest one's.
    """

    elements: int = 0
    total_bytes: int = 0
    largest_bytes: int = 0


@contextlib.contextmanager
def measured_shuffles() -> Iterator[dict[str, Shuffle]]:
    """Measures all shuffles of the jobs that run in this process during the block.

    Yields:
        Shuffles by the step's name, such as `Locate/JoinByKey`.
    """
    found: dict[str, Shuffle] = {}

    class Measuring(execution.GroupingBuffer):  # type: ignore[misc]
        def __init__(self, pre_grouped_coder, *rest):  # type: ignore[no-untyped-def]
            super().__init__(pre_grouped_coder, *rest)
            # Only the runner, one frame above, has the step's name.
            step = sys._getframe(1).f_locals["transform_proto"]
            self._shuffle = found.setdefault(step.unique_name, Shuffle())

        def append(self, elements_data: bytes) -> None:
            super().append(elements_data)
            coder = self._pre_grouped_coder.get_impl()
            stream = execution.create_InputStream(elements_data)
            while before := stream.size():
                coder.decode_from_stream(stream, True)
                self._shuffle.elements += 1
                self._shuffle.largest_bytes = max(self._shuffle.largest_bytes, before - stream.size())
            self._shuffle.total_bytes += len(elements_data)

    original = execution.GroupingBuffer
    execution.GroupingBuffer = Measuring
    try:
        yield found
    finally:
        execution.GroupingBuffer = original
