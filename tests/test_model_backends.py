"""Training with a Keras backend other than TensorFlow, in clean processes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.samples.sample import write_sample

ROOT = Path(__file__).parent.parent


def _train(backend: str, data: Path, output: Path, *more: str) -> "subprocess.Popen[str]":
    options = "--preset residual --width 4 --depth 2 --image_size 32 --epochs 3 --batch_size 4 --seed 1"
    command = [sys.executable, "-m", "model", "train", "--dataset", str(data), "--output", str(output)]
    return subprocess.Popen(
        [*command, *options.split(), *more],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_loss_falls_with_another_backend(backend: str, tmp_path: Path) -> None:
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    write_sample(tmp_path / "data", 24, 2)
    training = _train(backend, tmp_path / "data", tmp_path / "model")
    said = training.communicate()[1]
    assert training.returncode == 0, said
    assert f"{backend} backend" in said
    losses = [float(line.split()[3]) for line in said.splitlines() if line.startswith("epoch")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    metadata = json.loads((tmp_path / "model" / "metadata.json").read_text())
    assert set(metadata["files"]) == {"model.keras", "split.json"}
    assert metadata["scores"]["pictures"] > 0
    _assert_killed_and_resumed_is_the_same(backend, tmp_path)
    # The Keras file is any backend's: TensorFlow's converter makes the LiteRT file of it later.
    if importlib.util.find_spec("tensorflow") is not None:
        export = [sys.executable, "-m", "model", "export", "--model", str(tmp_path / "model")]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
        done = subprocess.run(export, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        metadata = json.loads((tmp_path / "model" / "metadata.json").read_text())
        assert metadata["agreement"]["model.tflite"]["equal_pixels"] > 0.999


def _assert_killed_and_resumed_is_the_same(backend: str, folder: Path) -> None:
    """Kills a training behind its first epoch; resumed, it logs what the uninterrupted one in `model` logged."""
    training = _train(backend, folder / "data", folder / "killed")
    assert training.stderr is not None
    assert any(line.startswith("epoch   1/3") for line in training.stderr)
    training.kill()
    training.communicate()
    training = _train(backend, folder / "data", folder / "killed", "--resume")
    said = training.communicate()[1]
    assert training.returncode == 0, said
    assert "resumed after epoch" in said
    logs = [(folder / name / "training" / "log.csv").read_text() for name in ("model", "killed")]
    assert logs[0] == logs[1]
