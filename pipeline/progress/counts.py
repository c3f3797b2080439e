"""How many pictures are found, segmented and failed so far, for the launcher's display while the job runs.

Beam's metrics can't be read while its local runner runs. Where DoFns run in threads of the launcher they add to its
counts directly; where they run in other processes of the same machine they send their counts to a loopback port. This
is for display alone: a datagram may get lost, and a retried bundle counts twice. No result depends on it.
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
    """Found, to be done by this run or done by an earlier one."""
    RESUMED = "resumed"
    """Done by an earlier run."""
    SEGMENTED = "segmented"
    """Done by this run."""
    FAILED = "failed"
    """Could not be done."""


class ProgressCounts:
    """The counts of all reporters, by reporter; threads may share it.

    Args:
        token: what a datagram must hold to be counted.
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
        """Adds pictures that were counted in this process; False in a forked child, whose copy nobody displays."""
        if self._process_id != os.getpid():
            return False
        with self._lock:
            self._counts.setdefault("", dict.fromkeys(Count, 0))[count] += pictures
        return True

    def receive(self, datagram: bytes) -> bool:
        """Takes a datagram; one that is foreign, malformed or older than the last of its reporter changes nothing.

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
    """Counts pictures for the launcher's display; threads may share one. It never blocks and never raises.

    It crosses processes as port and token alone. In the process that displays, it adds to the displayed counts. In any
    other, each copy counts from zero under an id of its own and sends its sums at most five times a second, so that a
    lost datagram is made good by the next.

    Args:
        port: the launcher's UDP port on this machine; None where it receives no datagrams.
        token: what identifies the launcher's display.
    """

    def __init__(self, port: int | None, token: str) -> None:
        self._port = port
        self._token = token
        self._start_over()

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
        """Sends at once what has not been sent yet: for the end of a bundle."""
        self._check_process()
        with self._lock:
            if self._unsent:
                self._send()

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._reporter = ""
        self._counts = dict.fromkeys(Count, 0)
        self._unsent = False
        self._sent_at = -math.inf

    def _check_process(self) -> None:
        # A fork copies counts that the parent goes on to send, and perhaps a lock that is never released.
        if self._process_id != os.getpid():
            self._start_over()

    def _send(self) -> None:
        self._reporter = self._reporter or uuid.uuid4().hex
        datagram = json.dumps({"token": self._token, "reporter": self._reporter, **self._counts}).encode()
        self._sent_at = time.monotonic()
        # A socket a datagram: a few a second cost nothing, and there is none to close, to share or to inherit.
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(datagram, (LOOPBACK, self._port))
            self._unsent = False


SILENT = ProgressReporter(None, "")
"""A reporter where nothing is displayed."""
