"""Copies among the pictures: found when encoded again or resized, and never among different pictures."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.data.copies import copies_of, thumbnail  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.preparation import prepare_job  # noqa: E402
from model.samples.sample import draw_sample, write_sample  # noqa: E402


def _encoded_again(image: np.ndarray, quality: int, scale: float) -> np.ndarray:
    picture, content = Image.fromarray(image), io.BytesIO()
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture.resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=quality)
    return np.asarray(Image.open(content))


@pytest.mark.parametrize(("quality", "scale"), [(40, 1.0), (75, 0.5), (90, 1.7)])
def test_copies_are_found_and_different_pictures_are_not(quality: int, scale: float) -> None:
    images = [draw_sample(5, number).image for number in range(40)]
    originals = np.stack([thumbnail(image) for image in images[:30]])
    found = np.stack([thumbnail(_encoded_again(image, quality, scale)) for image in images[20:]])
    assert copies_of(found, originals).tolist() == [*range(20, 30), *[-1] * 10]


def test_flat_pictures_are_like_no_other() -> None:
    flat = np.stack([thumbnail(np.full((32, 32, 3), grey, np.uint8)) for grey in (0, 0, 200)])
    assert not flat.any()
    assert copies_of(flat, flat).tolist() == [-1, -1, -1]


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40))
def test_a_thumbnail_has_mean_zero_and_length_one(channels: int, height: int, width: int) -> None:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)
    found = thumbnail(image)
    assert found.shape == (256,)
    if found.any():
        assert abs(found.mean()) < 1e-3
        assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-4)


def test_none_is_found_without_originals_and_large_sets_go_in_parts() -> None:
    rng = np.random.default_rng(0)
    many = np.stack([thumbnail(rng.integers(0, 256, (16, 16, 1), np.uint8)) for _ in range(600)])
    assert copies_of(many, many[:0]).tolist() == [-1] * 600
    assert copies_of(many, many[::-1]).tolist() == list(range(599, -1, -1))


def _said(data: Path, output: Path, mode: str, test: Path | None = None) -> list[str]:
    said: list[str] = []
    options = TrainOptions(
        str(data), str(output), preset="residual", image_size=(32, 32), mode=mode, val_fraction=0.2,
        test_dataset=None if test is None else str(test), class_names=("background", "object", "border"),
    )  # fmt: skip
    prepare_job(options, said.append)
    return [line for line in said if "look like copies" in line]


@pytest.mark.parametrize("mode", ["resize", "tile"])
def test_kept_pictures_that_are_copies_are_warned_of_and_others_are_not(tmp_path: Path, mode: str) -> None:
    write_sample(tmp_path / "data", 30, 3)
    write_sample(tmp_path / "kept", 3, 8)
    assert _said(tmp_path / "data", tmp_path / "out", mode) == []
    assert _said(tmp_path / "data", tmp_path / "out", mode, tmp_path / "kept") == []
    for path in sorted((tmp_path / "data" / "images").iterdir()):
        with Image.open(path) as picture:
            again = np.asarray(picture.convert("RGB"))
            Image.fromarray(again).save(tmp_path / "kept" / "images" / f"again_{path.stem}.jpg", quality=60)
        shutil.copy(
            tmp_path / "data" / "masks" / f"{path.stem}.png", tmp_path / "kept" / "masks" / f"again_{path.stem}.png"
        )
    (line,) = _said(tmp_path / "data", tmp_path / "out", mode, tmp_path / "kept")
    count = int(line.split()[1])
    assert 20 <= count < 30  # the copies of the pictures that are trained on, not those of the validation
    assert "are kept for the end: the scores are too high: again_" in line
