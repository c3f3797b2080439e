"""What a training shows while it runs: curves and the time left on a terminal, plain lines elsewhere, figures."""

import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.epoch_report import is_figure_epoch  # noqa: E402
from model.fit import Progress  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.samples.sample import write_sample  # noqa: E402
from model.time_left import TimeLeft  # noqa: E402
from model.train import train  # noqa: E402
from model.training_display import TrainingDisplay, chart_rows  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = " ▁▂▃▄▅▆▇█"


def _heights(rows: list[str]) -> list[int]:
    """The height of every column of a chart, in eighths of a row."""
    return [sum(BLOCKS.index(row[column]) for row in rows) for column in range(len(rows[0]))]


@given(
    st.lists(st.floats(-0.5, 1.5) | st.just(float("nan")), max_size=30),
    st.integers(0, 20),
    st.integers(1, 40),
    st.integers(1, 8),
)
def test_a_chart_has_its_size_and_columns_stand_on_the_bottom(
    values: list[float], more: int, columns: int, rows: int
) -> None:
    total = max(1, len(values) + more)
    chart = chart_rows(values, total, columns, rows, 0.0, 1.0)
    assert [len(row) for row in chart] == [columns] * rows
    for column in range(columns):
        levels = [BLOCKS.index(row[column]) for row in chart]
        assert levels == sorted(levels)
        assert sum(0 < level < 8 for level in levels) <= 1


def test_a_chart_shows_the_values_and_leaves_the_epochs_to_come_empty() -> None:
    assert _heights(chart_rows([0.0, 0.5, 1.0], 4, 4, 2, 0.0, 1.0)) == [1, 8, 16, 0]
    assert _heights(chart_rows([0.5, 1.0], 4, 8, 2, 0.0, 1.0)) == [8, 8, 16, 16, 0, 0, 0, 0]
    assert _heights(chart_rows([0.0, 1.0, 1.0, float("nan")], 4, 2, 1, 0.0, 1.0)) == [4, 8]


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_comes_from_steps_then_from_epochs() -> None:
    clock = _Clock()
    left = TimeLeft(epochs=4, steps=10, validation_share=0.3, clock=clock)
    left.begin(0)
    for duration in (30.0, 9.0, 2.0):
        clock.now += duration
        left.step_done()
    assert left.left_s is None
    clock.now += 2.0
    left.step_done()
    # The first two steps are not typical; validation has a third of a step's cost.
    assert left.step_s == pytest.approx(2.0)
    assert left.left_s == pytest.approx(36 * 2.0 * 1.1)
    clock.now += 17.0
    left.epoch_done()
    assert left.left_s == pytest.approx(3 * 60.0)
    clock.now += 22.0
    left.epoch_done()
    assert left.left_s == pytest.approx(2 * 22.0)
    clock.now += 2.0
    assert left.left_s == pytest.approx(2 * 22.0 - 2.0)


def test_a_resumed_training_counts_only_the_epochs_to_come() -> None:
    clock = _Clock()
    left = TimeLeft(epochs=4, steps=5, validation_share=0.0, clock=clock)
    left.begin(3)
    for _ in range(4):
        clock.now += 1.0
        left.step_done()
    assert left.left_s == pytest.approx(1.0)


def _progress(epochs: int) -> Progress:
    log = [{"epoch": n, "loss": 2.0 / n, "val_global_mean_iou": 0.1 * n} for n in range(1, epochs + 1)]
    return Progress(epochs, epochs, 0.1 * epochs, log)


@pytest.mark.parametrize("width", [20, 80, 200])
def test_the_display_fits_the_terminal_and_says_best_epoch_and_time_left(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with TrainingDisplay(10, console) as display:
        display.step_done(1, 3, None)
        display.say("a line \x1b[2J")
        display.epoch_done(_progress(4), 95.0)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "a line \\x1b[2J" in text
    assert "best epoch 4" in text
    drawn = text[text.rindex("best epoch 4") - 20 * width :].splitlines()
    assert all(len(line) <= width for line in drawn if "a line" not in line)
    if width >= 80:
        assert "epoch 4 of 10 done, about 1 min 35 s left" in text
        assert "validation global_mean_iou 0.4000" in text


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, []), (2, [1]), (3, [1, 2]), (8, [1, 2, 4, 6]), (40, [1, 10, 20, 30])]
)
def test_figures_are_written_after_the_first_epoch_and_every_quarter(epochs: int, expected: list[int]) -> None:
    assert [epoch for epoch in range(1, epochs + 1) if is_figure_epoch(epoch, epochs)] == expected


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 30, 3)
    return folder


def test_examples_are_written_on_the_way_and_change(sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = tmp_path / "out" / "training"
    seen: dict[str, bytes] = {}

    def say(line: str) -> None:
        # The line of an epoch comes before its figures.
        if line.startswith(("epoch", "best epoch")) and (figures / "examples.png").exists():
            seen[line[:12]] = (figures / "examples.png").read_bytes()

    options = TrainOptions(
        str(sample), str(tmp_path / "out"), preset="residual", width=4, depth=2, image_size=(32, 32), epochs=4,
        batch_size=8,
        class_names=("background", "object", "border"),
    )  # fmt: skip
    train(options, say)
    assert "epoch   1/4 " not in seen
    assert "epoch   2/4 " in seen
    last = (figures / "examples.png").read_bytes()
    assert len({*seen.values(), last}) == 4
    assert all(np.asarray(Image.open(io.BytesIO(one))).std() > 0 for one in seen.values())


def _command(sample: Path, output: Path) -> list[str]:
    options = "--preset residual --width 4 --depth 2 --image_size 32 --epochs 2 --batch_size 4"
    return [sys.executable, "-m", "model", "train", "--dataset", str(sample), "--output", str(output), *options.split()]


def test_a_terminal_gets_curves_and_a_file_gets_lines(sample: Path, tmp_path: Path) -> None:
    done = subprocess.run(_command(sample, tmp_path / "file"), cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert not any(char in done.stderr for char in "\x1b█▁")
    assert sum(bool(re.match(r"epoch   \d/2  loss .*  best epoch \d  .* left$", line)) for line in lines) == 2
    assert sum(line.startswith("about ") and " for 2 epochs of 5 steps, " in line for line in lines) == 1

    reader, writer = pty.openpty()
    seen = bytearray()

    def read() -> None:
        try:
            while data := os.read(reader, 4096):
                seen.extend(data)
        except OSError:
            return  # the other end is closed

    thread = threading.Thread(target=read)
    thread.start()
    environment = dict(os.environ, TERM="xterm", COLUMNS="100")
    subprocess.run(
        _command(sample, tmp_path / "terminal"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=writer,
        env=environment,
        check=True,
    )
    os.close(writer)
    thread.join()
    os.close(reader)
    text = seen.decode()
    assert "█" in text
    assert "\x1b[?25h" in text.rpartition("\x1b[?25l")[2]  # the cursor is shown again
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "epoch 2 of 2 done" in plain
    assert "best epoch" in plain
    assert "kept pictures: " in plain
