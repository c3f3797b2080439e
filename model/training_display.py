"""The live display of a training on a terminal: curves of loss and score, the best epoch, and the time left."""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from model.fit import Progress
from pipeline.core.wording import duration_text, printable

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_CHART_ROWS = 6
_MAX_CHART_COLUMNS = 60
_GAP = 4
_REFRESH_INTERVAL_S = 0.2


def chart_rows(values: Sequence[float], total: int, columns: int, rows: int, low: float, high: float) -> list[str]:
    """A column chart of block characters.

    Args:
        values: one an epoch so far; NaN leaves its column empty.
        total: epochs of the whole training, which take the whole width; at least as many as values.
        columns: the width.
        rows: the height.
        low: the value at the bottom.
        high: the value at the top, above `low`.

    Returns:
        The lines from top to bottom, each `columns` wide. Several epochs in one column are averaged.
    """
    levels = np.zeros(columns, np.int64)
    epochs = np.arange(total)
    for column in range(columns):
        first, last = column * total // columns, max((column + 1) * total // columns, column * total // columns + 1)
        shown = [values[epoch] for epoch in epochs[first:last] if epoch < len(values) and np.isfinite(values[epoch])]
        if shown:
            share = (float(np.mean(shown)) - low) / (high - low)
            # At least the lowest block, so that a value at the bottom differs from none.
            levels[column] = max(1, round(8 * rows * min(max(share, 0.0), 1.0)))
    lines = []
    for row in reversed(range(rows)):
        lines.append("".join(_EIGHTHS[min(max(level - 8 * row, 0), 8)] for level in levels.tolist()))
    return lines


class TrainingDisplay:
    """Shows a training while the `with` block runs; the curves remain when it ends.

    Args:
        epochs: of the whole training.
        console: a terminal; None for standard error.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, epochs: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._epochs = epochs
        self._clock = clock
        self._progress = Progress()
        self._state = ""
        self._refreshed = -_REFRESH_INTERVAL_S
        self._live = Live(
            console=self._console, get_renderable=self.rendered, auto_refresh=False, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        """Nothing is shown before the first step."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restores the terminal."""
        self.stop()

    def stop(self) -> None:
        """Ends the live display and leaves the curves."""
        if self._live.is_started:
            self._live.stop()

    def say(self, line: str) -> None:
        """Prints a line above the curves, control characters escaped."""
        self._console.print(Text(printable(line)), soft_wrap=True)

    def step_done(self, epoch: int, step: int, left_s: float | None) -> None:
        """As `model.epoch_report.TrainingObserver`."""
        self._state = f"epoch {epoch} of {self._epochs}, step {step}"
        if self._clock() - self._refreshed >= _REFRESH_INTERVAL_S:
            self._update(left_s)

    def epoch_done(self, progress: Progress, left_s: float | None) -> None:
        """As `model.epoch_report.TrainingObserver`."""
        self._progress = progress
        self._state = f"epoch {progress.epoch} of {self._epochs} done"
        self._update(left_s)

    def _update(self, left_s: float | None) -> None:
        if left_s is not None:
            self._state += f", about {duration_text(left_s)} left"
        if not self._live.is_started:
            self._live.start()
            # Never hidden, so that a killed training leaves the terminal with a cursor.
            self._console.show_cursor(True)
        self._live.refresh()
        self._refreshed = self._clock()

    def rendered(self) -> RenderableType:
        """The curves, the best epoch and the state, for the console's width."""
        log = self._progress.log
        state = Text(self._state, style="cyan", no_wrap=True, overflow="ellipsis")
        # A bar ends its own line only in a table.
        bar = Table.grid(expand=True)
        bar.add_row(ProgressBar(total=self._epochs, completed=self._progress.epoch, complete_style="cyan"))
        if not log:
            return Group(bar, state)
        columns = max(1, min(_MAX_CHART_COLUMNS, (self._console.width - 2 * _GAP) // 2))
        losses, scores = [row["loss"] for row in log], [row["val_global_mean_iou"] for row in log]
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_row(
            self._chart(f"loss {losses[-1]:.4f}", losses, columns, max(losses)),
            self._chart(f"validation global_mean_iou {scores[-1]:.4f}", scores, columns, 1.0),
        )
        best = Text(f"best epoch {self._progress.best_epoch}, {self._progress.best_score:.4f}", no_wrap=True)
        return Group(grid, best, bar, state)

    def _chart(self, title: str, values: Sequence[float], columns: int, high: float) -> RenderableType:
        rows = chart_rows(values, self._epochs, columns, _CHART_ROWS, 0.0, high if high > 0 else 1.0)
        # The top is named, the bottom is 0.
        return Text("\n".join([f"{title} (top {high:.2f})"[:columns], *rows]), no_wrap=True)
