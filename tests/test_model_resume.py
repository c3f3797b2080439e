"""A resumed training ends with the result of an uninterrupted one."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.options import TrainOptions  # noqa: E402
from model.samples.sample import write_sample  # noqa: E402
from model.train import train  # noqa: E402
from pipeline.core.errors import ModelError, OptionError  # noqa: E402
from pipeline.engines.model_folder import open_model  # noqa: E402

ROOT = Path(__file__).parent.parent


class _Stop(Exception):
    """What interrupts a training here."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 30, 4)
    return folder


def _options(sample: Path, output: Path) -> TrainOptions:
    # The residual preset has all the state there is: batch norm's averages, dropout's seeds, the schedule's step.
    return TrainOptions(
        str(sample),
        str(output),
        preset="residual",
        width=4,
        depth=2,
        image_size=(32, 32),
        epochs=6,
        batch_size=8,
        seed=5,
        val_fraction=0.2,
        test_fraction=0.1,
    )


def _weights(folder: Path) -> list[np.ndarray]:
    return list(keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True).get_weights())


def _assert_same_end(left: Path, right: Path) -> None:
    assert (left / "training/log.csv").read_text() == (right / "training/log.csv").read_text()
    for one, other in zip(_weights(left), _weights(right), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (left / "model.tflite").read_bytes() == (right / "model.tflite").read_bytes()


def test_interrupted_in_the_third_epoch_and_resumed(sample: Path, tmp_path: Path) -> None:
    train(_options(sample, tmp_path / "whole"), lambda line: None)

    def stop_behind_two(line: str) -> None:
        if line.startswith("epoch   2/6"):
            raise _Stop

    options = _options(sample, tmp_path / "halves")
    with pytest.raises(_Stop):
        train(options, stop_behind_two)
    with pytest.raises(ModelError, match="its training has not finished"):
        open_model(options.output)
    said: list[str] = []
    train(replace(options, resume=True), said.append)
    assert "resumed after epoch 2" in said
    _assert_same_end(tmp_path / "whole", tmp_path / "halves")
    # Behind its end a training has nothing left but to export again.
    said.clear()
    train(replace(options, resume=True), said.append)
    assert not any(line.startswith("epoch") for line in said)
    _assert_same_end(tmp_path / "whole", tmp_path / "halves")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 torn"])
def test_a_torn_checkpoint_is_one_line(sample: Path, tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "training" / "checkpoint.npz"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(content)
    with pytest.raises(OptionError, match=r"checkpoint\.npz can't be read"):
        train(replace(_options(sample, tmp_path), resume=True), lambda line: None)


def test_patience_ends_early_and_keeps_the_best_epoch(sample: Path, tmp_path: Path) -> None:
    # At this rate the score can't go on rising.
    options = replace(
        _options(sample, tmp_path / "early"), epochs=40, patience=2, learning_rate=0.2, schedule="constant"
    )
    said: list[str] = []
    spec = train(options, said.append)
    epochs = [line for line in said if line.startswith("epoch")]
    assert len(epochs) < 40
    scores = [float(line.split("global_mean_iou ")[1].split()[0]) for line in epochs]
    assert f"best epoch {int(np.argmax(scores)) + 1}," in " ".join(said)
    assert len(epochs) == int(np.argmax(scores)) + 1 + 2
    assert (spec.training["epochs"], spec.training["best_epoch"]) == (len(epochs), int(np.argmax(scores)) + 1)


@pytest.mark.full
def test_killed_by_sigkill_and_resumed(sample: Path, tmp_path: Path) -> None:
    def command(output: Path) -> list[str]:
        plain = "--preset residual --width 8 --depth 2 --image_size 64 --epochs 6 --batch_size 4 --seed 5"
        return [
            sys.executable,
            "-m",
            "model",
            "train",
            "--dataset",
            str(sample),
            "--output",
            str(output),
            *plain.split(),
        ]

    subprocess.run(command(tmp_path / "whole"), cwd=ROOT, check=True, capture_output=True)
    running = subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("epoch   2/6"):
            break
    time.sleep(0.2)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "killed" / "metadata.json").exists()
    subprocess.run([*command(tmp_path / "killed"), "--resume"], cwd=ROOT, check=True, capture_output=True)
    _assert_same_end(tmp_path / "whole", tmp_path / "killed")
