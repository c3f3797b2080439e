"""Datagrams of a `ProgressReporter`, those that the display received, and a clock set by hand."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from pipeline.progress.counts import Count, ProgressCounts


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def datagram(token: str = "t", reporter: str = "r", **counts: object) -> bytes:
    return json.dumps({"token": token, "reporter": reporter, **dict.fromkeys(Count, 0), **counts}).encode()


@contextmanager
def received_reports() -> Iterator[dict[str, list[tuple[float, int]]]]:
    """Records what displays receive: by reporter, seconds on a clock and how many pictures it had segmented by then."""
    reports: dict[str, list[tuple[float, int]]] = {}
    receive = ProgressCounts.receive

    def noted(counts: ProgressCounts, datagram: bytes) -> bool:
        if not receive(counts, datagram):
            return False
        message = json.loads(datagram)
        if message[Count.SEGMENTED]:
            reports.setdefault(message["reporter"], []).append((time.monotonic(), message[Count.SEGMENTED]))
        return True

    with mock.patch.object(ProgressCounts, "receive", noted):
        yield reports
