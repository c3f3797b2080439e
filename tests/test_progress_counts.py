"""Counts of pictures: added in this process, or sent as datagrams, some of which are lost or foreign."""

import json
import select
import socket

import pytest
from datagrams import Clock, datagram

from pipeline.progress import counts as counting
from pipeline.progress.counts import SILENT, Count, ProgressCounts, ProgressReporter, displayed


def totals(counts: ProgressCounts) -> list[int]:
    return [counts.total(count) for count in (Count.LOCATED, Count.RESUMED, Count.SEGMENTED, Count.FAILED)]


def test_counts_of_several_reporters_add_up_and_old_ones_change_nothing() -> None:
    counts = ProgressCounts("t")
    assert counts.receive(datagram(reporter="a", located=10, segmented=4))
    assert counts.receive(datagram(reporter="b", segmented=3, failed=1))
    assert counts.receive(datagram(reporter="a", located=10, segmented=2))
    counts.add(Count.SEGMENTED, 2)
    assert totals(counts) == [10, 0, 9, 1]


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b"[" * 2000,
        datagram(token="other", segmented=5),
        datagram(reporter="", segmented=5),
        datagram(segmented=-1),
        datagram(segmented=True),
        datagram(segmented="5"),
        datagram(segmented=1.5),
        datagram(reporter=5, segmented=9),  # type: ignore[arg-type]
        datagram(token=None, segmented=9),  # type: ignore[arg-type]
        datagram(token="\udcff", segmented=9),
        json.dumps({"token": "t", "reporter": "r", "segmented": 9}).encode(),
    ],
)
def test_foreign_and_malformed_datagrams_count_for_nothing(foreign: bytes) -> None:
    counts = ProgressCounts("t")
    assert not counts.receive(foreign)
    assert counts.total(Count.SEGMENTED) == 0


def test_a_reporter_in_the_process_of_the_display_sends_nothing() -> None:
    counts = ProgressCounts("t")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        reporter = ProgressReporter(listener.getsockname()[1], "t")
        with displayed("t", counts):
            reporter.add(Count.LOCATED, 3)
            reporter.add(Count.SEGMENTED)
            reporter.flush()
            assert totals(counts) == [3, 0, 1, 0]
            assert not select.select([listener], [], [], 0.05)[0]
        reporter.add(Count.FAILED)
        assert select.select([listener], [], [], 5)[0]
    assert totals(counts) == [3, 0, 1, 0]


def test_the_next_datagram_makes_up_for_a_lost_one() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        reporter = ProgressReporter(listener.getsockname()[1], "t")
        reporter.add(Count.LOCATED, 100)
        lost = listener.recv(4096)
        reporter.add(Count.SEGMENTED, 40)
        reporter.flush()
        counts = ProgressCounts("t")
        assert counts.receive(listener.recv(4096))
        assert json.loads(lost)["located"] == 100
        assert totals(counts) == [100, 0, 40, 0]


def test_few_datagrams_are_sent_and_none_without_news(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        clock = Clock()
        monkeypatch.setattr(counting.time, "monotonic", clock)
        reporter = ProgressReporter(listener.getsockname()[1], "t")
        for _ in range(1000):
            reporter.add(Count.SEGMENTED)
            clock.now += 0.001
        reporter.flush()
        reporter.flush()
        received = []
        while select.select([listener], [], [], 0.2)[0]:
            received.append(json.loads(listener.recv(4096)))
    assert len(received) == 6
    assert received[-1]["segmented"] == 1000


def test_a_reporter_never_raises_without_a_listener() -> None:
    SILENT.add(Count.LOCATED, 3)
    SILENT.flush()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    for _ in range(3):
        lonely = ProgressReporter(port, "t")
        lonely.add(Count.SEGMENTED)
        lonely.flush()
