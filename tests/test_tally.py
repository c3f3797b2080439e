"""Counts that travel as datagrams: what is sent, what is lost, what is foreign."""

import json
import select
import socket

import pytest
from datagrams import Clock, datagram

from pipeline.progress import tally
from pipeline.progress.tally import ProgressSender, Tally


def test_counts_of_several_senders_add_up_and_old_ones_change_nothing() -> None:
    counts = Tally("t")
    assert counts.receive(datagram(sender="a", located=10, done=4))
    assert counts.receive(datagram(sender="b", done=3, failed=1))
    assert counts.receive(datagram(sender="a", located=10, done=2))
    assert [counts.sum_of(what) for what in ("located", "done", "failed")] == [10, 7, 1]


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        b"[" * 2000,
        datagram(token="other", done=5),
        datagram(done=-1),
        datagram(done=True),
        datagram(done="5"),
        datagram(done=1.5),
        json.dumps({"token": "t", "sender": 5, "located": 0, "done": 9, "failed": 0}).encode(),
        json.dumps({"token": None, "sender": "s", "located": 0, "done": 9, "failed": 0}).encode(),
        json.dumps({"token": "\udcff", "sender": "s", "located": 0, "done": 9, "failed": 0}).encode(),
        json.dumps({"token": "t", "sender": "s", "done": 9}).encode(),
    ],
)
def test_foreign_and_malformed_datagrams_count_for_nothing(foreign: bytes) -> None:
    counts = Tally("t")
    assert not counts.receive(foreign)
    assert counts.sum_of("done") == 0


def test_a_lost_datagram_is_made_good_by_the_next() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        sender = ProgressSender(listener.getsockname()[1], "t")
        sender.located(100)
        lost = listener.recv(4096)
        sender.done(40)
        sender.flush()
        counts = Tally("t")
        assert counts.receive(listener.recv(4096))
        assert json.loads(lost)["located"] == 100
        assert (counts.sum_of("located"), counts.sum_of("done")) == (100, 40)


def test_few_datagrams_are_sent_and_none_without_news(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        clock = Clock()
        monkeypatch.setattr(tally.time, "monotonic", clock)
        sender = ProgressSender(listener.getsockname()[1], "t")
        for _ in range(1000):
            sender.done()
            clock.now += 0.001
        sender.flush()
        sender.flush()
        received = []
        while select.select([listener], [], [], 0.2)[0]:
            received.append(json.loads(listener.recv(4096)))
    assert len(received) == 6
    assert received[-1]["done"] == 1000


def test_a_sender_never_raises_and_is_still_where_nobody_listens() -> None:
    silent = ProgressSender(None, "")
    silent.located(3)
    silent.done()
    silent.failed()
    silent.flush()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        port = gone.getsockname()[1]
    for _ in range(3):
        lonely = ProgressSender(port, "t")
        lonely.done()
        lonely.flush()
