"""The outputs of a picture, made from any number of strips."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from small_archive import Archive, run_job

from pipeline.core import strips
from pipeline.core.labels import LabelMap
from pipeline.core.overlay import overlay
from pipeline.core.recipe import Recipe
from pipeline.core.records import FileRef, Located
from pipeline.core.spec import ClassSpec, ModelSpec
from pipeline.core.strips import Strip
from pipeline.output.encode import encode_mask, encode_png, encode_probabilities, palette_of
from pipeline.output.outputs import Destination, PictureWriter
from pipeline.output.registry import OUTPUTS, requested_outputs
from pipeline.segmenting.computing import Computing

HEIGHT, WIDTH = 23, 31
CLASSES = (ClassSpec(0, "sky", "#102030"), ClassSpec(1, "ground", "#f0e0d0"), ClassSpec(2, "tree", "#00ff00"))
RECIPE = Recipe(ModelSpec("m", 8, 8, 3, CLASSES), "digest", LabelMap.identity(3), None, 10**6)
PICTURE = Located("north/a.jpg", FileRef("/in/north/a.jpg"), overlay=True)


def drawn(seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A mask, the picture's pixels, and planes of probabilities."""
    random = np.random.default_rng(seed)
    mask = random.integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)
    pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return mask, pixels, random.integers(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)


@pytest.mark.parametrize("tops", [[0], [0, 7, 8, 22], list(range(HEIGHT))])
def test_the_files_of_a_picture_do_not_depend_on_its_strips(tops: list[int]) -> None:
    mask, pixels, planes = drawn(3)
    outputs = requested_outputs({"mask_format": "tar", "overlays": 1, "probabilities": True}, RECIPE)
    writer = PictureWriter(Destination("/out", outputs).missing(PICTURE), PICTURE.image_id, HEIGHT, WIDTH)
    for top, end in pairwise([*tops, HEIGHT]):
        strip = Strip(top, mask[top:end], pixels[top:end], None, lambda top=top, end=end: planes[:, top:end])
        writer.add(strip)
    files = {file.name: file.data for file in writer.finish()}
    assert files == {
        "probabilities/north/a.jpg.png": encode_probabilities(planes),
        "overlays/north/a.jpg.png": encode_png(Image.fromarray(overlay(pixels, mask, CLASSES))),
        "masks/north/a.jpg.png": encode_mask(mask, palette_of([one.color for one in CLASSES])),
    }
    assert np.array_equal(Image.open(io.BytesIO(files["masks/north/a.jpg.png"])), mask)
    # Where there is a mask, all else is there.
    assert list(files)[-1].startswith("masks/")


def test_the_probabilities_are_computed_only_on_request() -> None:
    def refuse() -> npt.NDArray[np.uint8]:
        raise AssertionError("not requested")

    mask, pixels, _ = drawn(4)
    writer = PictureWriter(requested_outputs({"mask_format": "png", "overlays": 2}, RECIPE), "a", HEIGHT, WIDTH)
    writer.add(Strip(0, mask, pixels, None, refuse))
    assert [file.output for file in writer.finish()] == ["overlay", "mask"]


def test_only_chosen_pictures_get_an_overlay() -> None:
    destination = Destination("/out", requested_outputs({"mask_format": "none", "overlays": 2}, RECIPE))
    assert [output.name for output in destination.wanted(PICTURE)] == ["overlay"]
    assert destination.wanted(Located("b.jpg", FileRef("/in/b.jpg"))) == ()


def test_outputs_differ_in_name_folder_and_option() -> None:
    for attribute in ("name", "folder", "option"):
        assert len({getattr(output, attribute) for output in OUTPUTS}) == len(OUTPUTS)


def test_what_an_update_makes_does_not_depend_on_strips(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--input", archive.images, "--ground_truth", archive.masks, "--overlays", 20)
    whole = run_job(tmp_path / "whole", *options)
    run_job(tmp_path / "parts", "--input", archive.images)
    monkeypatch.setattr(strips, "MAX_STRIP_PIXELS", 500)
    monkeypatch.setattr(Computing, "run", None)  # all is made of the pictures and their masks
    updated = run_job(tmp_path / "parts", *options)
    assert updated.summary["run"]["resumed"] == 20
    for key in ("classes", "metrics", "confusion_matrix"):
        assert updated.summary[key] == whole.summary[key]
    overlays = {path.name: path.read_bytes() for path in (tmp_path / "whole/overlays").rglob("*.png")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "parts/overlays").rglob("*.png")} == overlays
    assert len(overlays) == 20
