"""The display of a running job: the bar, the lines, senders in threads and other processes."""

import io
import logging
import multiprocessing
import os
import pickle
import pty
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from datagrams import Clock, datagram
from rich.console import Console

from pipeline.progress.display import Progress, ProgressDisplay
from pipeline.progress.tally import ProgressSender

ROOT = Path(__file__).resolve().parent.parent


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def quiet_display(**options: object) -> tuple[ProgressDisplay, io.StringIO]:
    file = io.StringIO()
    return ProgressDisplay(Console(file=file, width=200), **options), file  # type: ignore[arg-type]


def work(sender: ProgressSender, pictures: int) -> None:
    """What a worker process does."""
    for _ in range(pictures):
        sender.done()
    sender.failed()
    sender.flush()


def test_copies_and_forks_count_for_themselves() -> None:
    display, _ = quiet_display()
    with display:
        sender = display.sender()
        sender.located(10)
        sender.done(2)
        copy = pickle.loads(pickle.dumps(sender))
        copy.done(3)
        copy.flush()
        sender.flush()
        child = os.fork() if hasattr(os, "fork") else None
        if child == 0:
            sender.done(4)
            sender.flush()
            os._exit(0)
        if child is not None:
            os.waitpid(child, 0)
    assert display.progress.finished == (9 if child is not None else 5)


def test_threads_may_share_a_sender() -> None:
    display, _ = quiet_display()
    with display:
        sender = display.sender()
        sender.located(4000)
        threads = [threading.Thread(target=work, args=(sender, 999)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (display.progress.finished, display.progress.failed) == (4000, 4)


def test_senders_in_other_processes_are_heard() -> None:
    display, file = quiet_display()
    with display:
        sender = display.sender()
        sender.located(12)
        processes = [multiprocessing.get_context("spawn").Process(target=work, args=(sender, 5)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    assert (display.progress.located, display.progress.finished, display.progress.failed) == (12, 12, 2)
    assert file.getvalue().startswith("maskbeam: 12 pictures in ")
    assert "2 failed" in file.getvalue()


def test_a_retried_bundle_never_shows_more_than_all() -> None:
    progress = Progress("t", Clock())
    progress.receive(datagram(located=10, done=14, failed=3))
    assert (progress.finished, progress.failed) == (10, 3)


def test_rate_and_time_left() -> None:
    clock = Clock()
    progress = Progress("t", clock)
    assert progress.line() == "maskbeam: listing…"
    progress.receive(datagram(located=6_000))
    assert progress.line() == "maskbeam: listing… 6,000 pictures so far"
    clock.now += 5.0
    progress.receive(datagram(located=10_000))
    assert progress.listing
    # The model is loaded; its time is no part of the rate.
    clock.now += 20.0
    assert not progress.listing
    assert progress.left_s is None
    for second in range(41):
        progress.receive(datagram(located=10_000, done=25 * second + 31, failed=3))
        clock.now += 1.0
    assert progress.line() == "maskbeam: 1,034 of 10,000 pictures (10 %), 24.2 pictures/s, 6 min 10 s left, 3 failed"
    # When nothing comes any more the rate falls, and the time left grows.
    clock.now += 30.0
    assert progress.rate < 15
    progress.receive(datagram(located=10_000, done=10_000, failed=3))
    assert progress.left_s is None


def test_a_line_at_most_every_so_often_without_a_terminal() -> None:
    clock = Clock()
    display, file = quiet_display(clock=clock, interval_s=30.0)
    with display:
        sender = display.sender()
        sender.located(200)
        sender.done(50)
        sender.flush()
        wait_for(lambda: display.progress.finished == 50)
        display.tick()
        assert file.getvalue() == ""
        clock.now += 29.0
        display.tick()
        assert file.getvalue() == ""
        clock.now += 2.0
        # The display's own thread writes it.
        wait_for(lambda: file.getvalue().count("\n") == 1)
        display.tick()
        assert file.getvalue().startswith("maskbeam: 50 of 200 pictures (25 %)")
        clock.now += 31.0
        wait_for(lambda: file.getvalue().count("\n") == 2)
        sender.done(150)
        sender.flush()
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[-1] == "maskbeam: 200 pictures in 1 min 02 s, 3.2 pictures/s"
    assert "\x1b" not in file.getvalue()


def test_what_stops_the_job_goes_on_and_the_last_line_says_so() -> None:
    display, file = quiet_display()

    def stopped_job() -> None:
        with display:
            sender = display.sender()
            sender.located(10)
            sender.done(4)
            sender.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_job()
    assert file.getvalue().startswith("maskbeam: stopped after 4 of 10 pictures in ")


def test_a_machine_without_loopback_runs_without_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.progress.display._listening_socket", lambda: None)
    display, file = quiet_display()
    with display:
        display.sender().done()
    assert file.getvalue() == ""


SCRIPT = """
    import logging, sys, time
    from pipeline.progress.display import ProgressDisplay
    logging.basicConfig(level=logging.WARNING)
    with ProgressDisplay() as display:
        sender = display.sender()
        sender.located(1000)
        sender.flush()
        time.sleep(1.5)
        for _ in range(40):
            sender.done(5)
            sender.failed()
            time.sleep(0.02)
        logging.warning("a line in between")
        print("result", flush=True)
        {end}
"""


def run_on_a_terminal(end: str, *, interrupt: bool = False) -> tuple[str, str, int]:
    """Runs a job with a terminal on standard error; gives what it showed, its standard output and its exit status."""
    shown, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT.format(end=end))],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment,
        text=True,
    )
    os.close(terminal)
    chunks: list[bytes] = []
    interrupted = False
    while True:
        try:
            chunk = os.read(shown, 65536)
        except OSError:
            break
        if not chunk:
            break
        chunks.append(chunk)
        if interrupt and not interrupted and b"a line in between" in b"".join(chunks):
            interrupted = True
            process.send_signal(signal.SIGINT)
    os.close(shown)
    output = process.communicate(timeout=60)[0]
    return b"".join(chunks).decode(), output, process.returncode


def test_a_terminal_shows_a_bar() -> None:
    shown, output, status = run_on_a_terminal("sender.flush()")
    assert status == 0
    assert "listing…" in shown
    assert "━" in shown
    assert "of 1,000" in shown
    assert "failed" in shown
    assert "a line in between" in shown
    # Standard output is no terminal here: what goes there stays there.
    assert output == "result\n"
    assert shown.rstrip().splitlines()[-1].endswith("40 failed")
    assert "maskbeam: 240 of 1,000 pictures in " in shown


def test_an_interrupted_job_leaves_the_terminal_as_it_was() -> None:
    shown, _, status = run_on_a_terminal("time.sleep(60)", interrupt=True)
    assert status == -signal.SIGINT
    assert "maskbeam: stopped after " in shown
    hidden, visible = shown.rfind("\x1b[?25l"), shown.rfind("\x1b[?25h")
    assert visible > hidden


def test_logging_writes_above_the_bar_and_gets_its_stream_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    handler = logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    try:
        with ProgressDisplay(Console(file=terminal, force_terminal=True, width=80)):
            assert handler.stream is not terminal
        assert handler.stream is terminal
    finally:
        logging.getLogger().removeHandler(handler)


def test_what_an_earlier_run_did_counts_as_done_and_not_for_the_rate() -> None:
    clock = Clock()
    progress = Progress("t", clock)
    progress.receive(datagram(located=100, resumed=90))
    assert (progress.finished, progress.resumed, progress.rate) == (90, 90, 0.0)
    clock.now += 5
    progress.receive(datagram(located=100, resumed=90, done=1))
    clock.now += 5
    progress.receive(datagram(located=100, resumed=90, done=6))
    assert progress.finished == 96
    assert progress.rate == pytest.approx(1.0)
    assert progress.left_s == pytest.approx(4.0)
