"""A new output is one class and one entry of the registry: writing, resuming and deleting follow."""

import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from small_archive import Archive, Finished, run_job

from pipeline.core.recipe import Recipe, digest_of
from pipeline.core.records import Located
from pipeline.core.strips import Strip
from pipeline.output import registry
from pipeline.output.outputs import Output


class BrightnessOutput(Output):
    """The mean brightness of the pixels of each class, as JSON."""

    name: ClassVar[str] = "brightness"
    folder: ClassVar[str] = "brightness"
    suffix: ClassVar[str] = ".json"
    option: ClassVar[str] = "overlays"
    needs_pixels: ClassVar[bool] = True

    version = 1

    def __init__(self, recipe: Recipe) -> None:
        self._num_classes = recipe.spec.num_classes

    def digest(self) -> str:
        return digest_of(self.version)

    def wants(self, picture: Located) -> bool:
        return not picture.image_id.endswith(".gif")

    def begin(self, height: int, width: int) -> "BrightnessWriter":
        return BrightnessWriter(self._num_classes)


class BrightnessWriter:
    def __init__(self, num_classes: int) -> None:
        self._sums = np.zeros((num_classes, 2))

    def add(self, strip: Strip) -> None:
        assert strip.pixels is not None
        for class_id, sums in enumerate(self._sums):
            chosen = strip.pixels[strip.mask == class_id]
            sums += chosen.sum(), chosen.size

    def finish(self) -> bytes:
        return json.dumps([total / count if count else None for total, count in self._sums.tolist()]).encode()


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "OUTPUTS", (BrightnessOutput, *registry.OUTPUTS))


@pytest.fixture
def images(archive: Archive, tmp_path: Path) -> Path:
    shutil.copytree(archive.images, tmp_path / "images")
    return tmp_path / "images"


def written(finished: Finished) -> dict[str, bytes]:
    folder = finished.output / "brightness"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def has_inferred(finished: Finished) -> bool:
    return "infer" in finished.summary["run"]["stages"]


def test_it_is_written_resumed_and_deleted(archive: Archive, images: Path, tmp_path: Path) -> None:
    names = {f"{name}.json" for name in archive.image_ids if not name.endswith(".gif")}
    fresh = run_job(tmp_path / "fresh", "--input", images, "--overlays", 1)
    assert written(fresh).keys() == names
    mask = fresh.masks["grey.png"]
    pixels = archive.pixels("grey.png")
    mean = pixels[mask == mask[0, 0]].mean()
    assert json.loads(written(fresh)["grey.png.json"])[mask[0, 0]] == pytest.approx(mean)

    # Added to an output without it: made from the pictures and their masks.
    plain = run_job(tmp_path / "out", "--input", images)
    assert written(plain) == {}
    added = run_job(tmp_path / "out", "--input", images, "--overlays", 1)
    assert (written(added), has_inferred(added)) == (written(fresh), False)
    assert added.summary["run"]["updated"] == len(names)
    # A file that was deleted or changed is made again.
    (tmp_path / "out/brightness/grey.png.json").unlink()
    (tmp_path / "out/brightness/sideways.jpg.json").write_bytes(b"[]")
    again = run_job(tmp_path / "out", "--input", images, "--overlays", 1)
    assert written(again) == written(fresh)
    # It goes with its picture, with a failure, and when it is no longer requested.
    (images / "grey.png").unlink()
    (images / "sideways.jpg").write_bytes(b"no picture any more")
    less = run_job(tmp_path / "out", "--input", images, "--overlays", 1, "--max_failure_ratio", 1)
    assert written(less).keys() == names - {"grey.png.json", "sideways.jpg.json"}
    without = run_job(tmp_path / "out", "--input", images, "--max_failure_ratio", 1)
    assert (written(without), has_inferred(without)) == ({}, False)
    assert not (tmp_path / "out/brightness").exists()


def test_a_changed_digest_rewrites_it(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_job(tmp_path / "out", "--input", images, "--overlays", 1)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/**/*.png")}
    monkeypatch.setattr(BrightnessOutput, "version", 2)
    again = run_job(tmp_path / "out", "--input", images, "--overlays", 1)
    assert again.summary["run"]["updated"] == len(written(again))
    assert not has_inferred(again)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/**/*.png")} == times


def test_files_of_other_programs_in_its_folder_are_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out/brightness").mkdir(parents=True)
    (tmp_path / "out/brightness/mine.json").write_text("precious")
    refused = run_job(tmp_path / "out", "--input", images)
    assert refused.status == 2
    assert "a folder brightness that maskbeam did not write" in refused.err
