"""A limit on the total bytes that the threads of a process hold."""

import threading
from collections import deque

MAX_FILE_BYTES = 256 << 20
"""Limit for files that wait for a core or for the store. A single larger file is admitted."""


class ByteBudget:
    """Admits holders in order of arrival while their sum is below a limit.

    A holder that is larger than the limit waits until there is no other; later ones wait behind it.

    Args:
        max_bytes: the limit.
    """

    def __init__(self, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._holders = 0
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()

    def hold(self, size_bytes: int) -> "Held":
        """Waits for room.

        Args:
            size_bytes: expected size; `Held.resize` corrects it.

        Returns:
            The share, to be released by any thread.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._has_room(size_bytes))
            self._waiting.popleft()
            self._change(1, size_bytes)
        return Held(self, size_bytes)

    def try_hold(self, size_bytes: int) -> "Held | None":
        """As `hold`, but returns None instead of waiting."""
        with self._changed:
            if self._waiting or not self._has_room(size_bytes):
                return None
            self._change(1, size_bytes)
        return Held(self, size_bytes)

    def _has_room(self, size_bytes: int) -> bool:
        return not self._holders or self._held_bytes + size_bytes <= self._max_bytes

    def _change(self, holders: int, size_bytes: int) -> None:
        with self._changed:
            self._holders += holders
            self._held_bytes += size_bytes
            self._changed.notify_all()


class Held:
    """One holder's share of a budget."""

    def __init__(self, budget: ByteBudget, size_bytes: int) -> None:
        self._budget = budget
        self._size_bytes = size_bytes

    def resize(self, size_bytes: int) -> None:
        """Changes the size without waiting, even above the limit; later holders wait.

        Args:
            size_bytes: the new size.
        """
        self._budget._change(0, size_bytes - self._size_bytes)
        self._size_bytes = size_bytes

    def release(self) -> None:
        """Releases the share; to be called once."""
        self._budget._change(-1, -self._size_bytes)
