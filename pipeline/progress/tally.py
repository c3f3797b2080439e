"""How far the job is, told to the launcher on the same machine while the job runs.

Beam's metrics can't be read while its local runner runs, and DoFns run in threads or in other processes. So each one
tells its counts to a loopback port of the launcher. This is for display alone: a datagram may get lost, and a retried
bundle counts twice. Nothing of the results hangs on it.
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

LOOPBACK = "127.0.0.1"
_LEAST_INTERVAL_S = 0.2
_COUNTS = ("located", "resumed", "done", "failed")


class ProgressSender:
    """Counts pictures and sends the counts, at most five times a second.

    It crosses processes as port and token alone: each copy counts from zero under an id of its own, and the display
    adds them up. Counts are sent as sums since the copy's start, so a lost datagram is made good by the next. It never
    blocks and never raises, and threads may share one.

    Args:
        port: the launcher's UDP port on this machine; None where nobody listens, then nothing is sent.
        token: what tells the launcher that a datagram is meant for it.
    """

    def __init__(self, port: int | None, token: str) -> None:
        self._port = port
        self._token = token
        self._start_over()

    def __reduce__(self) -> tuple[type["ProgressSender"], tuple[int | None, str]]:
        """Pickles port and token, not the counts: whoever unpickles it counts for itself."""
        return (ProgressSender, (self._port, self._token))

    def located(self, n: int = 1) -> None:
        """Adds `n` pictures that are to be done."""
        self._add("located", n)

    def resumed(self, n: int = 1) -> None:
        """Adds `n` pictures that an earlier run did."""
        self._add("resumed", n)

    def done(self, n: int = 1) -> None:
        """Adds `n` pictures that are segmented."""
        self._add("done", n)

    def failed(self, n: int = 1) -> None:
        """Adds `n` pictures that failed."""
        self._add("failed", n)

    def flush(self) -> None:
        """Sends at once what has not been sent yet: for the end of a bundle."""
        if self._port is None:
            return
        self._check_process()
        with self._lock:
            if self._unsent:
                self._send()

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._process_id = os.getpid()
        self._sender = ""
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._unsent = False
        self._sent_at = -math.inf

    def _check_process(self) -> None:
        # A fork copies the counts, which the parent goes on to tell, and perhaps a lock that nobody will open.
        if self._process_id != os.getpid():
            self._start_over()

    def _add(self, what: str, n: int) -> None:
        if self._port is None:
            return
        self._check_process()
        with self._lock:
            self._counts[what] += n
            self._unsent = True
            if time.monotonic() - self._sent_at >= _LEAST_INTERVAL_S:
                self._send()

    def _send(self) -> None:
        assert self._port is not None
        self._sender = self._sender or uuid.uuid4().hex
        datagram = json.dumps({"token": self._token, "sender": self._sender, **self._counts}).encode()
        self._sent_at = time.monotonic()
        # A socket a datagram: a few a second cost nothing, and there is none to close, to share or to inherit.
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(datagram, (LOOPBACK, self._port))
            self._unsent = False


class Tally:
    """What the senders told, added up.

    Args:
        token: what a datagram must hold to be counted.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._senders: dict[str, dict[str, int]] = {}

    def receive(self, datagram: bytes) -> bool:
        """Takes a datagram; one that is foreign, malformed or overtaken by a later one changes nothing.

        Args:
            datagram: the bytes as received.

        Returns:
            Whether it came from a sender of this token.
        """
        try:
            message = json.loads(datagram)
            token, sender = message["token"], message["sender"]
            counts = {what: message[what] for what in _COUNTS}
        except (ValueError, TypeError, KeyError, RecursionError):
            return False
        if not isinstance(token, str) or not isinstance(sender, str):
            return False
        if not all(type(count) is int and count >= 0 for count in counts.values()):
            return False
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._token):
            return False
        known = self._senders.get(sender, dict.fromkeys(_COUNTS, 0))
        self._senders[sender] = {what: max(known[what], count) for what, count in counts.items()}
        return True

    def sum_of(self, what: str) -> int:
        """The sum over the senders of `located`, `resumed`, `done` or `failed`."""
        # A copy, for another thread may be receiving.
        return sum(counts[what] for counts in list(self._senders.values()))
