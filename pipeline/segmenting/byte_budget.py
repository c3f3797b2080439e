"""A bound on the bytes of files in flight, whatever the number of threads that fetch them."""

import threading
from collections import deque

MOST_BYTES = 256 << 20
"""What a process holds of files that wait for a core or for the store. One file that is larger alone may pass."""


class ByteBudget:
    """Lets holders in while their sum stays below a bound, in the order in which they came.

    A holder that is larger than the bound waits until it is alone, and is not overtaken by smaller ones for ever.

    Args:
        most_bytes: the bound.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._holders = 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def hold(self, size_bytes: int) -> "Held":
        """Waits for room.

        Args:
            size_bytes: what is expected; `Held.resize` corrects it.

        Returns:
            What is held until its `release`, by whichever thread.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._has_room(size_bytes))
            self._waiting.popleft()
            self._change(1, size_bytes)
        return Held(self, size_bytes)

    def _has_room(self, size_bytes: int) -> bool:
        return not self._holders or self._held_bytes + size_bytes <= self._most_bytes

    def _change(self, holders: int, size_bytes: int) -> None:
        with self._changed:
            self._holders += holders
            self._held_bytes += size_bytes
            self._changed.notify_all()


class Held:
    """What one holder has of a budget."""

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def resize(self, size_bytes: int) -> None:
        """Corrects what is held, without waiting: what is there is there, and later holders wait for it.

        Args:
            size_bytes: what is held from now on.
        """
        self._budget._change(0, size_bytes - self._size_bytes)
        self._size_bytes = size_bytes

    def release(self) -> None:
        """Gives all back; to be called once."""
        self._budget._change(-1, -self._size_bytes)
