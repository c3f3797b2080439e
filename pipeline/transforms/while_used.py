"""Resources of a process that exist while a DoFn uses them."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Resource = TypeVar("Resource")


class WhileUsed(Generic[Resource]):
    """Starts a resource for its first user and ends it after its last; threads may share it.

    `beam.utils.shared.Shared` keeps its object alive after the job, and Beam tears down one DoFn while others work.

    Args:
        start: makes the resource.
        end: ends it.
    """

    def __init__(self, start: Callable[[], Resource], end: Callable[[Resource], None]) -> None:
        self._start = start
        self._end = end
        self._lock = threading.Lock()
        self._users = 0
        self._resource: Resource | None = None

    def enter(self) -> Resource:
        """Adds a user.

        Returns:
            The resource, to be used until `leave`.
        """
        with self._lock:
            if self._resource is None:
                self._resource = self._start()
            self._users += 1
            return self._resource

    def leave(self) -> None:
        """Removes a user; to be called once for each `enter`."""
        with self._lock:
            self._users -= 1
            if not self._users and self._resource is not None:
                resource, self._resource = self._resource, None
                self._end(resource)
