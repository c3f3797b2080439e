"""The display of a running job: the bar, the lines, reporters in threads and other processes."""

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
from typing import Any

import pytest
from datagrams import Clock
from rich.console import Console

from pipeline.progress.counts import Count, ProgressReporter
from pipeline.progress.display import ProgressDisplay

ROOT = Path(__file__).resolve().parent.parent


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def quiet_display(**options: Any) -> tuple[ProgressDisplay, io.StringIO]:
    file = io.StringIO()
    return ProgressDisplay(Console(file=file, width=200), **options), file


def work(reporter: ProgressReporter, pictures: int) -> None:
    """What a worker process does."""
    for _ in range(pictures):
        reporter.add(Count.SEGMENTED)
    reporter.add(Count.FAILED)
    reporter.flush()


def test_copies_and_forks_count_for_themselves() -> None:
    display, _ = quiet_display(from_processes=True)
    with display:
        reporter = display.reporter()
        reporter.add(Count.LOCATED, 10)
        reporter.add(Count.SEGMENTED, 2)
        copy = pickle.loads(pickle.dumps(reporter))
        copy.add(Count.SEGMENTED, 3)
        child = os.fork() if hasattr(os, "fork") else None
        if child == 0:
            reporter.add(Count.SEGMENTED, 4)
            reporter.flush()
            os._exit(0)
        if child is not None:
            os.waitpid(child, 0)
    assert display.finished == (9 if child is not None else 5)


def test_threads_may_share_a_reporter() -> None:
    display, _ = quiet_display()
    with display:
        reporter = display.reporter()
        reporter.add(Count.LOCATED, 4000)
        threads = [threading.Thread(target=work, args=(reporter, 999)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (display.finished, display.failed) == (4000, 4)


def test_no_socket_is_opened_where_all_work_is_done_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.progress.display._listening_socket", lambda: pytest.fail("a socket"))
    display, _ = quiet_display()
    with display:
        display.reporter().add(Count.LOCATED, 7)
    assert display.located == 7


def test_reporters_in_other_processes_are_heard() -> None:
    display, file = quiet_display(from_processes=True)
    with display:
        reporter = display.reporter()
        reporter.add(Count.LOCATED, 12)
        processes = [multiprocessing.get_context("spawn").Process(target=work, args=(reporter, 5)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    assert (display.located, display.finished, display.failed) == (12, 12, 2)
    assert file.getvalue().startswith("maskbeam: 12 pictures in ")
    assert "2 failed" in file.getvalue()


def test_a_retried_bundle_never_shows_more_than_all() -> None:
    display, _ = quiet_display()
    with display:
        reporter = display.reporter()
        reporter.add(Count.LOCATED, 10)
        reporter.add(Count.SEGMENTED, 14)
        reporter.add(Count.FAILED, 3)
    assert (display.finished, display.failed) == (10, 3)


class Counted:
    """A display with a clock set by hand, whose own thread does nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ProgressDisplay, "_run", lambda _: None)
        self.clock = Clock()
        self.display, self.file = quiet_display(clock=self.clock, interval_s=30.0)

    def add(self, count: Count, pictures: int) -> None:
        self.display.reporter().add(count, pictures)
        self.display.update()


def test_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    with counted.display as display:
        assert display.line() == "maskbeam: listing…"
        counted.add(Count.LOCATED, 6_000)
        assert display.line() == "maskbeam: listing…, 6,000 pictures found"
        counted.clock.now += 5.0
        counted.add(Count.LOCATED, 4_000)
        assert display.line() == "maskbeam: listing…, 10,000 pictures found"
        # The model is loaded; its time is no part of the rate.
        counted.clock.now += 20.0
        display.update()
        assert display.line() == "maskbeam: 0 of 10,000 pictures (0 %)"
        counted.add(Count.FAILED, 3)
        for _ in range(41):
            counted.add(Count.SEGMENTED, 25)
            counted.clock.now += 1.0
        assert display.line() == "maskbeam: 1,028 of 10,000 pictures (10 %), 25.0 pictures/s, 5 min 59 s left, 3 failed"
        # When nothing comes any more, there is no rate to speak of.
        counted.clock.now += 31.0
        display.update()
        assert display.line() == "maskbeam: 1,028 of 10,000 pictures (10 %), 3 failed"
        counted.add(Count.SEGMENTED, 8_972)
        assert "left" not in display.line()


def test_a_line_at_most_every_so_often_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    with counted.display:
        counted.add(Count.LOCATED, 200)
        counted.clock.now += 2.0
        counted.add(Count.SEGMENTED, 50)
        assert counted.file.getvalue() == ""
        counted.clock.now += 27.0
        counted.display.update()
        assert counted.file.getvalue() == ""
        counted.clock.now += 2.0
        counted.display.update()
        counted.display.update()
        assert counted.file.getvalue() == "maskbeam: 50 of 200 pictures (25 %)\n"
        counted.clock.now += 31.0
        counted.add(Count.SEGMENTED, 150)
    lines = counted.file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[-1] == "maskbeam: 200 pictures in 1 min 02 s, 3.2 pictures/s"
    assert "\x1b" not in counted.file.getvalue()


def test_lines_come_by_themselves() -> None:
    display, file = quiet_display(interval_s=0.01)
    with display:
        display.reporter().add(Count.LOCATED, 3)
        wait_for(lambda: "3 pictures found" in file.getvalue())


def test_an_exception_of_the_job_is_raised_and_the_last_line_says_so() -> None:
    display, file = quiet_display()

    def stopped_job() -> None:
        with display:
            reporter = display.reporter()
            reporter.add(Count.LOCATED, 10)
            reporter.add(Count.SEGMENTED, 4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped_job()
    assert file.getvalue().startswith("maskbeam: stopped after 4 of 10 pictures in ")


def test_a_machine_without_loopback_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.progress.display._listening_socket", lambda: None)
    display, _ = quiet_display(from_processes=True)
    with display:
        display.reporter().add(Count.LOCATED)
    assert display.located == 1


SCRIPT = """
    import logging, sys, time
    from pipeline.progress.counts import Count
    from pipeline.progress.display import ProgressDisplay
    logging.basicConfig(level=logging.WARNING)
    with ProgressDisplay() as display:
        reporter = display.reporter()
        reporter.add(Count.LOCATED, 1000)
        time.sleep(1.5)
        for _ in range(40):
            reporter.add(Count.SEGMENTED, 5)
            reporter.add(Count.FAILED)
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
    shown, output, status = run_on_a_terminal("")
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


def test_what_an_earlier_run_did_counts_as_done_and_not_for_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    with counted.display as display:
        counted.add(Count.LOCATED, 100)
        counted.add(Count.RESUMED, 90)
        counted.clock.now += 5
        display.update()
        assert display.line() == "maskbeam: 90 of 100 pictures (90 %)"
        counted.add(Count.SEGMENTED, 1)
        counted.clock.now += 5
        counted.add(Count.SEGMENTED, 5)
        assert display.line() == "maskbeam: 96 of 100 pictures (96 %), 1.0 pictures/s, 4.0 s left"
