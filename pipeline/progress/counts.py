"""Numbers of pictures found, segmented and failed so far, for the launcher's display while the job runs.

Beam's metrics can't be read while its local runner runs. DoFns in threads of the launcher add to its counts directly;
DoFns in other processes of the same machine send their counts to a loopback port. This is for display only: a datagram
may get lost, and a retried bundle counts twice. No result depends on it.
"""

import contextlib
import hmac
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from enum import StrEnum

LOOPBACK = "127.0.0.1"
_MIN_INTERVAL_S = 0.2


class Count(StrEnum):
    """What is counted of the pictures."""

    LOCATED = "located"
    """Found, whether this run segments them or an earlier one did."""
    RESUMED = "resumed"
    """Done by an earlier run."""
    SEGMENTED = "segmented"
    """Done by this run."""
    FAILED = "failed"
    """Could not be segmented."""


class ProgressCounts:
    """The counts of all reporters, by reporter; thread-safe.

    Args:
        token: the token that a datagram must have to be counted.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._counts: dict[str, dict[Count, int]] = {}

    def total(self, count: Count) -> int:
        """The sum of one count over all reporters."""
        with self._lock:
            return sum(counts[count] for counts in self._counts.values())

    def add(self, count: Count, pictures: int) -> bool:
        """Adds pictures that were counted in this process; False in a forked child, whose copy is not displayed."""
        if self._process_id != os.getpid():
            return False
        with self._lock:
            self._counts.setdefault("", dict.fromkeys(Count, 0))[count] += pictures
        return True

    def receive(self, datagram: bytes) -> bool:
        """Processes a datagram; one without the token, malformed or out of order changes nothing.

        Args:
            datagram: the bytes as received.

        Returns:
            Whether it came from a reporter with this token.
        """
        try:
            message = json.loads(datagram)
            token, reporter = message["token"], message["reporter"]
            counts = {count: message[count] for count in Count}
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if not isinstance(token, str) or not isinstance(reporter, str) or not reporter:
            return False
        if not all(type(value) is int and value >= 0 for value in counts.values()):
            return False
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return False
        with self._lock:
            known = self._counts.get(reporter, dict.fromkeys(Count, 0))
            self._counts[reporter] = {count: max(known[count], value) for count, value in counts.items()}
        return True


# The counts that are displayed by this process, by token.
_DISPLAYED: dict[str, ProgressCounts] = {}


@contextlib.contextmanager
def displayed(token: str, counts: ProgressCounts) -> Iterator[None]:
    """Lets reporters of this process with a token add to counts directly while the block runs."""
    _DISPLAYED[token] = counts
    try:
        yield
    finally:
        del _DISPLAYED[token]


class ProgressReporter:
    """Counts pictures for the launcher's display; thread-safe. It never blocks and never raises.

    Only its port and token are pickled. In the process of the display, it adds to the displayed counts. In any other,
    each copy counts from zero under its own id and sends its sums at most five times a second, so that the next
    datagram makes up for a lost one.

    Args:
        port: the launcher's UDP port on this machine; None where it receives no datagrams.
        token: what identifies the launcher's display.
    """

    def __init__(self, port: int | None, token: str) -> None:
        self._port = port
        self._token = token
        self._reset()

    def __reduce__(self) -> tuple[type["ProgressReporter"], tuple[int | None, str]]:
        """Pickles port and token, not the counts."""
        return (ProgressReporter, (self._port, self._token))

    def add(self, count: Count, pictures: int = 1) -> None:
        """Counts pictures.

        Args:
            count: as what.
            pictures: how many.
        """
        counts = _DISPLAYED.get(self._token)
        if (counts is not None and counts.add(count, pictures)) or self._port is None:
            return
        self._check_process()
        with self._lock:
            self._counts[count] += pictures
            self._unsent = True
            if time.monotonic() - self._sent_at >= _MIN_INTERVAL_S:
                self._send()

    def flush(self) -> None:
        """Sends counts that have not been sent yet; for the end of a bundle."""
        self._check_process()
        with self._lock:
            if self._unsent:
                self._send()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._reporter = ""
        self._counts = dict.fromkeys(Count, 0)
        self._unsent = False
        self._sent_at = -math.inf

    def _check_process(self) -> None:
        # A fork copies counts that the parent still sends, and perhaps a lock that is never released.
        if self._process_id != os.getpid():
            self._reset()

    def _send(self) -> None:
        self._reporter = self._reporter or uuid.uuid4().hex
        datagram = json.dumps({"token": self._token, "reporter": self._reporter, **self._counts}).encode()
        self._sent_at = time.monotonic()
        # One socket per datagram: a few a second cost nothing, and no socket has to be closed, shared or inherited.
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(datagram, (LOOPBACK, self._port))
            self._unsent = False


SILENT = ProgressReporter(None, "")
"""A reporter whose counts are not displayed."""
