"""`tfds:oxford_iiit_pet` in one command, proven on TFDS' own builder fed with local archives of the same layout."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.samples.sample import draw_sample

pytest.importorskip("keras", reason="the extra `train` is not installed")
pytest.importorskip("tensorflow_datasets", reason="the extra `train` is not installed")
pytest.importorskip("importlib_resources", reason="TFDS can't build a data set without it")

ROOT = Path(__file__).parent.parent

_RUN = """
import json, sys
import tensorflow_datasets as tfds

archives = json.loads(sys.argv[1])

def download_and_extract(self, urls):
    assert {name: url.rpartition("/")[2] for name, url in urls.items()} == {
        "images": "images.tar.gz", "annotations": "annotations.tar.gz"
    }
    return self.extract(archives)

tfds.download.DownloadManager.download_and_extract = download_and_extract
from model.cli import main
sys.exit(main(sys.argv[2:]))
"""


def _archives(folder: Path, train: int, test: int) -> dict[str, str]:
    """Archives laid out as Oxford-IIIT Pet's: trimaps of 1 pet, 2 background, 3 border."""
    for kind in ("images", "annotations/trimaps", "annotations/xmls"):
        (folder / kind).mkdir(parents=True)
    lines = []
    for index in range(train + test):
        picture = draw_sample(5, index)
        name = f"Abyssinian_{100 + index}"
        Image.fromarray(picture.image).save(folder / "images" / f"{name}.jpg")
        trimap = np.array([2, 1, 3], np.uint8)[picture.mask]
        Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{name}.png")
        lines.append(f"{name} 1 1 1\n")
    (folder / "annotations" / "trainval.txt").write_text("".join(lines[:train]))
    (folder / "annotations" / "test.txt").write_text("".join(lines[train:]))
    found = {}
    for kind in ("images", "annotations"):
        # As there: plain tar, whatever the ending says.
        with tarfile.open(folder / f"{kind}.tar", "w") as archive:
            archive.add(folder / kind, kind)
        found[kind] = str(folder / f"{kind}.tar")
    return found


def test_the_pets_in_one_command(tmp_path: Path) -> None:
    archives = _archives(tmp_path, train=12, test=4)
    arguments = ["train", "--dataset", "tfds:oxford_iiit_pet:4.0.0/train", "--output", str(tmp_path / "model")]
    arguments += ["--test_dataset", "tfds:oxford_iiit_pet:4.0.0/test", "--val_fraction", "0.25", "--epochs", "2"]
    arguments += ["--preset", "residual", "--image_size", "32", "--width", "4", "--depth", "2", "--batch_size", "4"]
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, json.dumps(archives), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metadata = json.loads((tmp_path / "model" / "metadata.json").read_text())
    assert [one["name"] for one in metadata["classes"]] == ["pet", "background", "border"]
    assert metadata["label_map"] == {"1": 0, "2": 1, "3": 2}
    assert metadata["scores"]["pictures"] == 4
    assert metadata["training"]["pictures"] + metadata["training"]["validation_pictures"] == 12
    assert metadata["training"]["licence"].startswith("CC BY-SA")
    assert "kept pictures" in done.stderr
