"""A limit on the bytes that the threads of a process hold together."""

import threading
from collections import deque

MAX_FILE_BYTES = 256 << 20
"""What a process holds of files that wait for a core or for the store. A single larger file is let through."""


class ByteBudget:
    """Admits holders while their sum stays below a limit, in the order in which they came.

    A holder that is larger than the limit waits until it is alone; smaller ones that came later wait behind it.

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
            size_bytes: what is expected; `Held.resize` corrects it.

        Returns:
            A share that is held until its `release`, by whichever thread.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._has_room(size_bytes))
            self._waiting.popleft()
            self._change(1, size_bytes)
        return Held(self, size_bytes)

    def try_hold(self, size_bytes: int) -> "Held | None":
        """As `hold`, but None where it would have to wait."""
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
        """Corrects what is held, without waiting: what is held is held, and later holders wait for it.

        Args:
            size_bytes: what is held from now on.
        """
        self._budget._change(0, size_bytes - self._size_bytes)
        self._size_bytes = size_bytes

    def release(self) -> None:
        """Gives the share back; to be called once."""
        self._budget._change(-1, -self._size_bytes)
