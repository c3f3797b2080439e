"""The embedded sample: the same picture for the same seed, and masks that mean what they say."""

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from model.cli import main
from model.samples.field import CROP, SOIL, WEED, draw_field
from model.samples.sample import BACKGROUND, BORDER, OBJECT, SamplePicture, border_band, draw_sample, write_sample
from pipeline.core.errors import OptionError


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def pictures() -> list[SamplePicture]:
    return [draw_sample(7, index) for index in range(60)]


def test_a_picture_depends_on_seed_and_number_alone(tmp_path: Path) -> None:
    write_sample(tmp_path / "few", 3, 5)
    write_sample(tmp_path / "more", 6, 5)
    few, more = _digests(tmp_path / "few"), _digests(tmp_path / "more")
    assert len(few) == 9
    assert few.items() <= more.items()
    write_sample(tmp_path / "other", 3, 6)
    assert not set(_digests(tmp_path / "other").values()) & set(few.values())


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    write_sample(tmp_path, 4, 1)
    before = _digests(tmp_path)
    write_sample(tmp_path, 4, 1)
    assert _digests(tmp_path) == before


def test_another_seed_leaves_no_second_picture_of_a_name(tmp_path: Path) -> None:
    write_sample(tmp_path, 20, 1)
    write_sample(tmp_path, 20, 2)
    assert len(list((tmp_path / "images").iterdir())) == 20


def test_sides_kinds_and_objects_are_as_promised(pictures: list[SamplePicture]) -> None:
    sides = [side for picture in pictures for side in picture.mask.shape]
    assert 96 <= min(sides) < 150
    assert 450 < max(sides) <= 640
    assert {picture.ending for picture in pictures} == {".jpg", ".png"}
    assert {int(picture.instances.max()) for picture in pictures} == {1, 2, 3, 4, 5, 6}


def test_every_object_of_a_picture_is_seen(pictures: list[SamplePicture]) -> None:
    for picture in pictures:
        found = np.unique(picture.instances)
        assert found.tolist() == list(range(int(found.max()) + 1))


def test_the_mask_is_the_instances_with_a_band_on_every_line(pictures: list[SamplePicture]) -> None:
    for picture in pictures[:20]:
        outside_band = picture.mask != BORDER
        expected = np.where(picture.instances > 0, OBJECT, BACKGROUND)
        assert np.array_equal(picture.mask[outside_band], expected[outside_band])
        # Brute force: a pixel is border if a pixel of another number is near enough.
        reach_px = min(picture.mask.shape) / 40 / 2 + 0.5
        size = 2 * int(reach_px) + 1
        offsets = np.arange(size) - size // 2
        disc = (np.hypot(offsets[:, None], offsets[None]) < reach_px).astype(np.uint8)
        near = np.zeros(picture.mask.shape, bool)
        for number in np.unique(picture.instances):
            other = (picture.instances != number).astype(np.uint8)
            dilated = cv2.dilate(other, disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            near |= (picture.instances == number) & (dilated > 0)
        assert np.array_equal(~outside_band, near)


def test_the_band_straddles_the_line_and_ignores_the_pictures_edge() -> None:
    instances = np.zeros((20, 40), np.uint16)
    instances[:, 20:] = 1
    band = border_band(instances, 4.0)
    assert np.flatnonzero(band.all(axis=0)).tolist() == [18, 19, 20, 21]
    assert band.sum() == 4 * 20


def test_two_objects_that_touch_have_a_border_between_them() -> None:
    instances = np.zeros((30, 30), np.uint16)
    instances[10:20, 5:15], instances[10:20, 15:25] = 1, 2
    assert border_band(instances, 2.0)[12:18, 14:16].all()


def test_the_files_hold_class_ids_and_sixteen_bit_numbers(tmp_path: Path) -> None:
    write_sample(tmp_path, 3, 7)
    for index in range(3):
        picture = draw_sample(7, index)
        mask = Image.open(tmp_path / "masks" / f"{picture.stem}.png")
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), picture.mask)
        instances = np.asarray(Image.open(tmp_path / "instances" / f"{picture.stem}.png"))
        assert instances.dtype == np.uint16
        assert np.array_equal(instances, picture.instances)
        image = Image.open(tmp_path / "images" / f"{picture.stem}{picture.ending}")
        assert image.size == mask.size
        assert image.format == {".jpg": "JPEG", ".png": "PNG"}[picture.ending]


@pytest.mark.parametrize(("count", "seed", "word"), [(0, 1, "--count"), (1, -1, "--seed")])
def test_numbers_out_of_range_are_refused(tmp_path: Path, count: int, seed: int, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        write_sample(tmp_path / "out", count, seed)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_pictures_is_refused(tmp_path: Path) -> None:
    write_sample(tmp_path, 3, 1)
    with pytest.raises(OptionError, match="sample_00002"):
        write_sample(tmp_path, 2, 1)


def test_the_command_needs_no_tensorflow_and_says_faults_in_one_line(tmp_path: Path) -> None:
    block = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = sys.modules['apache_beam'] = None\n"
    run = block + "from model.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "sample", "--output", str(tmp_path / "s"), "--count", "2", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "s" / "images").iterdir())) == 2
    command[command.index("--count")] = "--coun"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("maskbeam: ")
    assert done.stderr.count("\n") == 1


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OptionError, match="can't be written"):
        write_sample(tmp_path / "file", 1, 1)


@pytest.fixture(scope="module")
def field() -> SamplePicture:
    return draw_field(3, 0, 400, 600)


def test_a_field_depends_on_seed_and_number_alone(field: SamplePicture) -> None:
    same, other = draw_field(3, 0, 400, 600), draw_field(3, 1, 400, 600)
    for name in ("image", "mask", "instances"):
        assert np.array_equal(getattr(field, name), getattr(same, name))
        assert not np.array_equal(getattr(field, name), getattr(other, name))


def test_a_fields_plants_are_small_many_and_green(field: SamplePicture) -> None:
    numbers = np.unique(field.instances)
    assert numbers.tolist() == list(range(len(numbers)))
    assert len(numbers) > 60
    assert {class_id for number in numbers for class_id in np.unique(field.mask[field.instances == number])} == {
        0,
        1,
        2,
    }
    for number in numbers[1:]:
        plant = field.instances == number
        assert len(np.unique(field.mask[plant])) == 1
        rows, columns = np.nonzero(plant)
        assert max(np.ptp(rows), np.ptp(columns)) <= 44
    plants = field.image[field.mask != SOIL].astype(int)
    assert (plants[:, 1] > plants[:, 0]).mean() > 0.9
    soil = field.image[field.mask == SOIL].astype(int)
    assert (soil[:, 1] > soil[:, 0]).mean() < 0.1


def test_crop_and_weeds_have_the_same_colours(field: SamplePicture) -> None:
    crop, weed = (field.image[field.mask == class_id].mean(axis=0) for class_id in (CROP, WEED))
    assert np.abs(crop - weed).max() < 20


def test_a_field_is_written_at_twelve_megapixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--output", str(tmp_path), "--count", "1", "--seed", "2", "--scene", "field"]) == 0
    image, mask = Image.open(tmp_path / "images/field_00000.jpg"), Image.open(tmp_path / "masks/field_00000.png")
    assert image.size == mask.size == (4000, 3000)
    plants = int(np.asarray(Image.open(tmp_path / "instances/field_00000.png")).max())
    assert plants > 2000
    assert f"1 pictures with {plants} objects" in capsys.readouterr().out
    assert set(np.unique(np.asarray(mask))) == {SOIL, CROP, WEED}


def test_an_unknown_scene_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--output", str(tmp_path / "out"), "--scene", "sea"]) == 2
    assert "--scene sea is not one of shapes, field" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
