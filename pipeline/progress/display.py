"""The live display of a running job: a bar on a terminal, else a line every half minute."""

import contextlib
import logging
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from pipeline.core.wording import duration_text, pictures_text, rate_text
from pipeline.progress.counts import LOOPBACK, Count, ProgressCounts, ProgressReporter, displayed

LINE_INTERVAL_S = 30.0
_STILL_LISTING_S = 1.0
_UPDATE_INTERVAL_S = 0.25
_ROOM_FOR_ECHO = 4
_RECEIVE_BUFFER_BYTES = 1 << 20
_MAX_DATAGRAM_BYTES = 2048


class ProgressDisplay:
    """Shows the progress of the job while the `with` block runs, and a last line with its totals.

    Counts come from the `ProgressReporter`s that `reporter()` returns. On a terminal there is a live bar, else a line
    at intervals.

    Args:
        console: where to show it; None for standard error.
        interval_s: the minimum time between two lines where there is no terminal.
        clock: seconds on a monotonic clock.
        from_processes: whether to receive counts from other processes, which send datagrams to a loopback port.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        interval_s: float = LINE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        from_processes: bool = False,
    ) -> None:
        # The stream as it is now: while the job runs, `sys.stderr` may be redirected.
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._interval_s = interval_s
        self._clock = clock
        self._from_processes = from_processes
        self._token = secrets.token_hex(16)
        self._counts = ProgressCounts(self._token)
        self._bar = Progress(
            BarColumn(bar_width=None, complete_style="cyan", finished_style="cyan"),
            TextColumn("{task.fields[text]}", markup=False),
            TextColumn("{task.fields[failed]}", style="red", markup=False),
            console=self._console,
            get_time=clock,
            refresh_per_second=5,
            transient=True,
            # Output that is redirected to a file or pipe must not be written to the terminal.
            redirect_stdout=sys.stdout.isatty(),
            expand=True,
        )
        self._bar.add_task("", total=None, text="listing…", failed="")
        (self._task,) = self._bar.tasks
        self._started = self._line_at = self._grew = clock()
        self._located = 0
        self._is_live = False
        self._ending = threading.Event()
        self._cleanup = contextlib.ExitStack()
        self._listener: socket.socket | None = None
        self._moved_handlers: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    def reporter(self) -> ProgressReporter:
        """A reporter to this display while the `with` block runs; it may be pickled and copied."""
        return ProgressReporter(self._listener.getsockname()[1] if self._listener else None, self._token)

    def __enter__(self) -> Self:
        """Starts to receive and display counts."""
        self._listener = _listening_socket() if self._from_processes else None
        self._cleanup.enter_context(displayed(self._token, self._counts))
        if self._console.file.isatty() and self._console.is_interactive:
            self._start_live()
        self._thread = threading.Thread(target=self._run, name="maskbeam-progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restores the terminal and prints the last line."""
        self._ending.set()
        self._thread.join()
        self._cleanup.close()
        self._receive(0.0)
        if self._listener is not None:
            self._listener.close()
        self._stop_live()
        self._write(self.last_line(stopped=kind is not None))

    @property
    def located(self) -> int:
        """Pictures found so far."""
        return self._counts.total(Count.LOCATED)

    @property
    def resumed(self) -> int:
        """Pictures that an earlier run segmented."""
        return min(self._counts.total(Count.RESUMED), self.located)

    @property
    def failed(self) -> int:
        """Pictures that failed, at most as many as were worked on."""
        return min(self._counts.total(Count.FAILED), self._worked)

    @property
    def finished(self) -> int:
        """Pictures segmented or failed, at most as many as found (a retried bundle counts twice)."""
        return self.resumed + self._worked

    @property
    def _worked(self) -> int:
        worked = self._counts.total(Count.SEGMENTED) + self._counts.total(Count.FAILED)
        return min(worked, self.located - self.resumed)

    def update(self) -> None:
        """Updates the display; without a bar, writes a line if one is due."""
        now, located = self._clock(), self.located
        if located > self._located:
            self._located, self._grew = located, now
        # While pictures are still being found the total is not known.
        if located and now - self._grew >= _STILL_LISTING_S:
            self._bar.update(self._task.id, total=located - self.resumed, completed=self._worked)
        self._bar.update(
            self._task.id, text="  ".join(self._parts()), failed=f"{self.failed:,} failed" if self.failed else ""
        )
        if not self._is_live and now - self._line_at >= self._interval_s:
            self._line_at = now
            self._write(self.line())

    def line(self) -> str:
        """The job's state as one line."""
        failed = [f"{self.failed:,} failed"] if self.failed else []
        return f"maskbeam: {', '.join([*self._parts(), *failed])}"

    def last_line(self, *, stopped: bool) -> str:
        """The job's totals as one line.

        Args:
            stopped: whether the job was interrupted or failed.
        """
        elapsed_s = self._clock() - self._started
        amount = pictures_text(self.finished)
        if self.finished < self.located:
            amount = f"{self.finished:,} of {pictures_text(self.located)}"
        parts = [f"{'stopped after ' if stopped else ''}{amount} in {duration_text(elapsed_s)}"]
        if self.finished:
            parts.append(f"{rate_text(self.finished / max(elapsed_s, 1e-3))} pictures/s")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return f"maskbeam: {', '.join(parts)}"

    def _parts(self) -> list[str]:
        task, located = self._task, self.located
        if task.total is None or not located:
            found = [f"{pictures_text(located)} found"] if located else []
            return ["listing…", *found]
        parts = [f"{self.finished:,} of {pictures_text(located)} ({100 * self.finished // located} %)"]
        if task.speed:
            parts.append(f"{rate_text(task.speed)} pictures/s")
        if task.time_remaining:
            parts.append(f"{duration_text(task.time_remaining)} left")
        return parts

    def _run(self) -> None:
        while not self._ending.is_set():
            self._receive(_UPDATE_INTERVAL_S)
            self.update()

    def _receive(self, wait_s: float) -> None:
        """Receives datagrams for a while; without a socket, waits."""
        if self._listener is None:
            self._ending.wait(wait_s)
            return
        end = time.monotonic() + wait_s
        with contextlib.suppress(BlockingIOError, TimeoutError):
            while not self._ending.is_set() or not wait_s:
                self._listener.settimeout(max(0.0, end - time.monotonic()))
                self._counts.receive(self._listener.recv(_MAX_DATAGRAM_BYTES))

    def _write(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _start_live(self) -> None:
        before = sys.stderr
        # Not to the margin: the `^C` that the terminal echoes must not wrap the line, or the bar can't be erased.
        self._console.width = max(self._console.width - _ROOM_FOR_ECHO, 1)
        self._bar.start()
        self._is_live = True
        # Never hidden, so that a killed job leaves the terminal with a cursor.
        self._console.show_cursor(True)
        # Log handlers still have the stream that the bar has replaced.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                self._moved_handlers.append((handler, before))
                handler.setStream(sys.stderr)

    def _stop_live(self) -> None:
        for handler, stream in self._moved_handlers:
            handler.setStream(stream)
        self._moved_handlers.clear()
        if self._is_live:
            self._bar.stop()
            self._is_live = False


def _listening_socket() -> socket.socket | None:
    """A UDP socket on a free loopback port; None without a loopback, because a display must not stop a job."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        listener.bind((LOOPBACK, 0))
    except OSError:
        listener.close()
        return None
    return listener
