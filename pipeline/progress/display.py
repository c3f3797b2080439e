"""The live display of a running job: a bar on a terminal, else a line every half minute."""

import contextlib
import logging
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipeline.core.wording import duration_text, pictures_text, rate_text
from pipeline.progress.tally import LOOPBACK, ProgressSender, Tally

LINE_INTERVAL_S = 30.0
_RATE_WINDOW_S = 30.0
_LEAST_SPAN_S = 1.0
_STILL_LISTING_S = 1.0
_WAIT_S = 0.25
_ROOM_FOR_ECHO = 4
_RECEIVE_BUFFER_BYTES = 1 << 20
_LONGEST_DATAGRAM_BYTES = 2048


class Progress:
    """How far the job is and how fast it goes.

    Args:
        token: what a datagram must hold to be counted.
        clock: seconds on a clock that never goes back.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tally = Tally(token)
        self._started = clock()
        self._grew = self._started
        self._history: deque[tuple[float, int]] = deque()

    def receive(self, datagram: bytes) -> None:
        """Takes a datagram of a `ProgressSender`; any other changes nothing.

        Args:
            datagram: the bytes as received.
        """
        located = self.located
        if not self._tally.receive(datagram):
            return
        now = self._clock()
        if self.located > located:
            self._grew = now
        # The first picture starts the measurement: loading the model is no part of the rate.
        worked = self.finished - self.resumed
        if worked and (not self._history or now - self._history[-1][0] >= _WAIT_S):
            self._history.append((now, worked))
        while len(self._history) > 2 and now - self._history[1][0] > _RATE_WINDOW_S:
            self._history.popleft()

    @property
    def located(self) -> int:
        """Pictures found so far."""
        return self._tally.sum_of("located")

    @property
    def finished(self) -> int:
        """Pictures segmented or failed, at most as many as found (a retried bundle counts twice)."""
        worked = self._tally.sum_of("done") + self._tally.sum_of("failed")
        return min(self._tally.sum_of("resumed") + worked, self.located)

    @property
    def resumed(self) -> int:
        """Pictures that an earlier run segmented."""
        return min(self._tally.sum_of("resumed"), self.finished)

    @property
    def failed(self) -> int:
        """Pictures that failed, at most as many as finished."""
        return min(self._tally.sum_of("failed"), self.finished)

    @property
    def listing(self) -> bool:
        """Whether pictures are still being found, so that the total says nothing yet."""
        return not self.located or self._clock() - self._grew < _STILL_LISTING_S

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Pictures a second over the last half minute; 0.0 where nothing can be said."""
        if len(self._history) < 2:
            return 0.0
        (since, before), (_, now) = self._history[0], self._history[-1]
        span_s = self._clock() - since
        return (now - before) / span_s if span_s >= _LEAST_SPAN_S else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the present rate; None where it can't be told."""
        rate = self.rate
        if self.listing or not rate or self.finished >= self.located:
            return None
        return (self.located - self.finished) / rate

    def line(self) -> str:
        """Where the job stands, as one line."""
        if not self.located:
            return "maskbeam: listing…"
        if self.listing:
            parts = [f"listing… {pictures_text(self.located)} so far"]
            if self.finished:
                parts.append(f"{self.finished:,} done")
        else:
            percent = 100 * self.finished // self.located
            parts = [f"{self.finished:,} of {pictures_text(self.located)} ({percent} %)"]
        if self.rate:
            parts.append(f"{rate_text(self.rate)} pictures/s")
        if self.left_s is not None:
            parts.append(f"{duration_text(self.left_s)} left")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return f"maskbeam: {', '.join(parts)}"

    def last_line(self, *, stopped: bool) -> str:
        """What was done in all, as one line.

        Args:
            stopped: whether the job ended before its end.
        """
        amount = pictures_text(self.finished)
        if self.finished < self.located:
            amount = f"{self.finished:,} of {pictures_text(self.located)}"
        parts = [f"{'stopped after ' if stopped else ''}{amount} in {duration_text(self.elapsed_s)}"]
        if self.finished:
            parts.append(f"{rate_text(self.finished / max(self.elapsed_s, 1e-3))} pictures/s")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return f"maskbeam: {', '.join(parts)}"


class ProgressDisplay:
    """Shows how far the job is while the `with` block runs, and says at its end what was done.

    Counts come as datagrams from the `ProgressSender`s that `sender()` gives; they may run in threads or in other
    processes of this machine. With a terminal there is a live bar, else a line now and then.

    Args:
        console: where to show it; None for standard error.
        interval_s: the least time between two lines where there is no terminal.
        clock: seconds on a clock that never goes back.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        interval_s: float = LINE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The stream as it is now: while the job runs, `sys.stderr` may lead elsewhere.
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._interval_s = interval_s
        self._clock = clock
        self._token = secrets.token_hex(16)
        self._socket: socket.socket | None = None
        self._progress = Progress(self._token, clock)
        self._line_at = clock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._live: Live | None = None
        self._moved_handlers: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []

    @property
    def progress(self) -> Progress:
        """The counts as they stand."""
        return self._progress

    def sender(self) -> ProgressSender:
        """A sender that reports to this display while the `with` block runs; it may be pickled and copied."""
        return ProgressSender(self._socket.getsockname()[1] if self._socket else None, self._token)

    def __enter__(self) -> Self:
        """Starts to listen and to show."""
        self._progress = Progress(self._token, self._clock)
        self._line_at = self._clock()
        self._ending.clear()
        self._socket = _listening_socket()
        if self._socket is not None:
            self._thread = threading.Thread(
                target=self._receive, args=(self._socket,), name="maskbeam-progress", daemon=True
            )
            self._thread.start()
            if self._console.file.isatty() and self._console.is_interactive:
                self._start_live()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the terminal as it was and prints the last line."""
        self._ending.set()
        if self._socket is None or self._thread is None:
            return
        # An empty datagram counts for nothing, but wakes the thread.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()
        self._stop_live()
        self._write(self._progress.last_line(stopped=kind is not None))

    def tick(self) -> None:
        """Writes a line where it is time for one and there is no bar."""
        if self._live is None and self._clock() - self._line_at >= self._interval_s:
            self._line_at = self._clock()
            self._write(self._progress.line())

    def _receive(self, listener: socket.socket) -> None:
        listener.settimeout(_WAIT_S)
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                self._progress.receive(listener.recv(_LONGEST_DATAGRAM_BYTES))
            self.tick()
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._progress.receive(listener.recv(_LONGEST_DATAGRAM_BYTES))

    def _write(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)

    def _start_live(self) -> None:
        before = sys.stderr
        self._live = Live(
            get_renderable=self._bar,
            console=self._console,
            refresh_per_second=5,
            transient=True,
            # What goes into a file or pipe must not land on the terminal.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._live.start()
        # Never hidden, so that even a killed job leaves a terminal with a cursor.
        self._console.show_cursor(True)
        # Logging kept the stream that the bar has now taken over.
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                self._moved_handlers.append((handler, before))
                handler.setStream(sys.stderr)

    def _stop_live(self) -> None:
        for handler, stream in self._moved_handlers:
            handler.setStream(stream)
        self._moved_handlers.clear()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _bar(self) -> RenderableType:
        progress = self._progress
        # Not to the margin: a `^C` that the terminal adds must not break the line, or the bar can't be wiped away.
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.width = max(self._console.width - _ROOM_FOR_ECHO, 1)
        if progress.listing:
            found = f"{pictures_text(progress.located)} found" if progress.located else ""
            done = f"{progress.finished:,} done" if progress.finished else ""
            grid.add_column(ratio=1)
            grid.add_row(Text("  ".join(filter(None, ["listing…", found, done])), style="cyan", no_wrap=True))
            return grid
        cells: list[RenderableType] = [
            ProgressBar(total=progress.located, completed=progress.finished, complete_style="cyan"),
            Text(f"{progress.finished:,} of {progress.located:,}"),
            Text(f"{100 * progress.finished // progress.located} %"),
        ]
        if progress.rate:
            cells.append(Text(f"{rate_text(progress.rate)}/s", style="cyan"))
        if progress.left_s is not None:
            cells.append(Text(f"{duration_text(progress.left_s)} left"))
        if progress.failed:
            cells.append(Text(f"{progress.failed:,} failed", style="red"))
        grid.add_column(ratio=1)
        for _ in cells[1:]:
            grid.add_column(no_wrap=True, justify="right")
        grid.add_row(*cells)
        return grid


def _listening_socket() -> socket.socket | None:
    """A UDP socket on a free loopback port; None where there is no loopback, for a display must not stop a job."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        listener.bind((LOOPBACK, 0))
    except OSError:
        listener.close()
        return None
    return listener
