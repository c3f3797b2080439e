"""A disk that fills: a clear error, no partial file with a final name, and the same command continues with space."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_archive import run_job


def mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_fills(tmp_path: Path, small_disk: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0)
    for number in range(60):
        # Noise that the model's small side keeps, so that masks are large.
        coarse = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((320, 320), Image.Resampling.NEAREST).save(images / f"{number:02d}.png")
    undisturbed = run_job(tmp_path / "out", "--input", images)
    kept = undisturbed.contents()
    assert sum(map(len, kept.values())) > 250_000

    output = small_disk / "out"
    full = run_job(output, "--input", images)
    assert full.status == 1
    last = full.err.splitlines()[-1]
    assert last.startswith("maskbeam: the output can't be written: ")
    assert "No space left on device" in last
    assert "Traceback" not in full.err
    assert not (output / "summary.json").exists()
    written = full_names(output)
    assert 0 < len(written) < 60
    for name, content in written.items():
        assert content == kept[name], "a final name on a broken file"
    assert list((output / "_progress/tmp").iterdir()) == []

    mount("-o", "remount,size=4m", str(small_disk))
    again = run_job(output, "--input", images)
    assert again.status == 0
    assert again.contents() == kept
    assert {**again.summary, "run": 0} == {**undisturbed.summary, "run": 0}


def full_names(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in (output / "masks").rglob("*.png")}
