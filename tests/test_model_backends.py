"""Training with a Keras backend other than TensorFlow, in a clean process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.sample import write_sample

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_loss_falls_with_another_backend(backend: str, tmp_path: Path) -> None:
    for package in ("keras", backend):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    write_sample(tmp_path / "data", 24, 2)
    options = "--width 4 --depth 2 --image_size 32 --epochs 3 --batch_size 4 --seed 1"
    command = [sys.executable, "-m", "model", "train", "--dataset", str(tmp_path / "data"), *options.split()]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "model")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{backend} backend" in done.stderr
    losses = [float(line.split()[3]) for line in done.stderr.splitlines() if line.startswith("epoch")]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    metadata = json.loads((tmp_path / "model" / "metadata.json").read_text())
    assert set(metadata["files"]) == {"model.keras"}
    assert metadata["scores"]["pictures"] > 0
    # The Keras file is any backend's: TensorFlow's converter makes the LiteRT file of it later.
    if importlib.util.find_spec("tensorflow") is not None:
        export = [sys.executable, "-m", "model", "export", "--model", str(tmp_path / "model")]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
        done = subprocess.run(export, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        metadata = json.loads((tmp_path / "model" / "metadata.json").read_text())
        assert metadata["agreement"]["model.tflite"]["equal_pixels"] > 0.999
