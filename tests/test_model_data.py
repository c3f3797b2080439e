"""What training sees: pairs, class ids, splits, variations and batches."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.cli import main
from model.data.augment import AUGMENTATIONS, augment, random_transform, vary_color, warp
from model.data.dataset import PairStore, load_pair, prepare
from model.data.encoded_pairs import EncodedPair, check_source, open_source, tfds_name
from model.data.label_faults import describe_faults
from model.data.split import split_pictures
from model.samples.sample import write_sample
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.labels import LabelMap
from pipeline.core.resize import resize_image, resize_mask_nearest
from pipeline.core.truth import Labels
from pipeline.engines import quiet
from pipeline.storage import filesystem, object_stores
from pipeline.storage.retries import patience_s

_LABELS = Labels(LabelMap.identity(3), 3, None)


def _save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def _picture(height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_pairs_are_found_by_their_path_without_the_ending(tmp_path: Path) -> None:
    for name in ("images/a/1.jpg", "images/b/1.png", "images/lone.png", "images/note.txt"):
        if name.endswith("txt"):
            (tmp_path / name).write_text("no picture")
        else:
            _save(tmp_path / name, _picture())
    for name in ("masks/a/1.png", "masks/b/1.png", "masks/other.png"):
        _save(tmp_path / name, np.zeros((12, 16), np.uint8))
    assert [pair.pair_id for pair in open_source(str(tmp_path), None)] == ["a/1.jpg", "b/1.png"]
    said: list[str] = []
    apart = open_source(str(tmp_path / "images"), str(tmp_path / "masks"), say=said.append)
    assert [pair.pair_id for pair in apart] == ["a/1.jpg", "b/1.png"]
    assert said == ["--dataset: 1 of 3 pictures have no mask and are left out, 1 masks have no picture"]


def test_a_folder_needs_both_images_and_masks(tmp_path: Path) -> None:
    _save(tmp_path / "masks/1.png", np.zeros((12, 16), np.uint8))
    _save(tmp_path / "1.png", _picture())
    with pytest.raises(OptionError, match="no masks: needs images/ and masks/"):
        open_source(str(tmp_path), None)
    (tmp_path / "masks").rename(tmp_path / "images")
    with pytest.raises(OptionError, match="no masks: needs images/ and masks/"):
        open_source(str(tmp_path), None)


def test_a_store_that_does_not_respond_is_reported_before_keras_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start_keras() -> None:
        pytest.fail("Keras is imported")

    patience: list[float] = []
    stat, list_objects = object_stores.stat, object_stores.list_objects

    def recorded(act: Callable[[str], object]) -> Callable[[str], object]:
        def record(uri: str) -> object:
            patience.append(patience_s())
            return act(uri)

        return record

    monkeypatch.setattr(quiet, "start_keras", start_keras)
    monkeypatch.setattr(filesystem, "CHECK_PATIENCE_S", 0.2)
    monkeypatch.setattr(object_stores, "stat", recorded(stat))
    monkeypatch.setattr(object_stores, "list_objects", recorded(list_objects))
    for name, value in (("ENDPOINT_URL", "http://127.0.0.1:9"), ("ACCESS_KEY_ID", "i"), ("SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(f"AWS_{name}", value)
    local = tmp_path / "local"
    _save(local / "images/1.png", _picture())
    _save(local / "masks/1.png", np.zeros((12, 16), np.uint8))
    train = ["train", "--output", str(tmp_path / "model"), "--dataset"]
    export = ["export", "--model", str(tmp_path / "model"), "--dataset"]
    for command, at in (
        ([*train, "s3://bucket/a"], "--dataset s3://bucket/a"),
        ([*train, str(local / "images"), "--ground_truth", "s3://bucket/b"], "--ground_truth s3://bucket/b"),
        ([*train, str(local), "--test_dataset", "s3://bucket/c"], "--test_dataset s3://bucket/c"),
        ([*export, "s3://bucket/d"], "--dataset s3://bucket/d"),
    ):
        assert main(command) == 2
        assert re.fullmatch(f"maskbeam: {at}: .*Connection refused\n", capsys.readouterr().err)
    assert set(patience) == {0.2}


def test_a_source_without_pictures_is_reported_before_training(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    with pytest.raises(OptionError, match=f"--dataset {tmp_path}: has no picture"):
        check_source(str(tmp_path), None)
    check_source("tfds:oxford_iiit_pet/train", None)


def test_two_masks_for_a_picture_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "images/1.png", _picture())
    _save(tmp_path / "masks/1.png", np.zeros((12, 16), np.uint8))
    _save(tmp_path / "masks/1.bmp", np.zeros((12, 16), np.uint8))
    with pytest.raises(OptionError, match="2 masks match"):
        list(open_source(str(tmp_path), None))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "csv", "csv of masks", "glob"])
def test_the_sources_of_the_job_train_too(kind: str, tmp_path: Path) -> None:
    write_sample(tmp_path / "data", 4, 2)
    images, masks = tmp_path / "data" / "images", tmp_path / "data" / "masks"
    expected = [pair.read() for pair in open_source(str(tmp_path / "data"), None)]
    if kind == "csv":
        rows = [f"{path},{masks / path.stem}.png\n" for path in sorted(images.iterdir())]
        (tmp_path / "set.csv").write_text("image,mask\n" + "".join(rows))
        found = open_source(str(tmp_path / "set.csv"), None)
    elif kind == "csv of masks":
        rows = [f"{path.name},{masks / path.stem}.png\n" for path in sorted(images.iterdir())]
        (tmp_path / "list.csv").write_text("image,mask\n" + "".join(rows))
        found = open_source(str(images), str(tmp_path / "list.csv"))
    elif kind == "glob":
        found = open_source(f"{images}/*", f"{masks}/*.png")
    else:
        form = {"zip": "zip", "tar": "tar", "tar.gz": "gztar"}[kind]
        found = open_source(
            shutil.make_archive(str(tmp_path / "images"), form, images),
            shutil.make_archive(str(tmp_path / "masks"), form, masks),
        )
    assert [pair.read() for pair in found] == expected


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("tfds:oxford_iiit_pet/train", "oxford_iiit_pet"),
        ("tfds:oxford_iiit_pet:4.0.0/train", "oxford_iiit_pet"),
        ("tfds:voc/2012:4.*.*/train[:10%]", "voc"),
        ("tfds:voc", None),
        ("folder", None),
    ],
)
def test_the_name_of_a_tfds_source(source: str, name: str | None) -> None:
    assert tfds_name(source) == name


def test_training_sees_what_the_job_sees(tmp_path: Path) -> None:
    write_sample(tmp_path, 5, 2)
    pairs = list(open_source(str(tmp_path), None))
    found = prepare(iter(pairs), _LABELS, PairStore(32, 48, 3), 3)
    assert found.store.pair_ids == [pair.pair_id for pair in pairs]
    for index, pair in enumerate(pairs):
        loaded = load_pair(pair, _LABELS, 3)
        stored_image, stored_mask = found.store[index]
        assert np.array_equal(stored_image, resize_image(loaded.image, 32, 48))
        assert np.array_equal(stored_mask, resize_mask_nearest(loaded.mask, 32, 48))
    assert found.store.class_px(np.arange(5), 3).sum() == 5 * 32 * 48


def test_exif_turns_picture_and_mask_alike(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _save(tmp_path / "images/1.jpg", np.tile(np.arange(16, dtype=np.uint8)[None, :, None], (12, 1, 3)), exif=exif)
    mask = np.zeros((12, 16), np.uint8)
    mask[:3] = 1
    _save(tmp_path / "masks/1.png", mask)
    (pair,) = open_source(str(tmp_path), None)
    loaded = load_pair(pair, _LABELS, 3)
    assert loaded.image.shape == (16, 12, 3)
    assert np.array_equal(loaded.mask, np.rot90(mask, -1))


def test_ignored_pixels_become_the_number_of_classes(tmp_path: Path) -> None:
    mask = np.zeros((12, 16), np.uint8)
    mask[0] = 255
    _save(tmp_path / "images/1.png", _picture())
    _save(tmp_path / "masks/1.png", mask)
    labels = Labels(LabelMap.identity(2), 2, 255)
    (pair,) = open_source(str(tmp_path), None)
    assert (load_pair(pair, labels, 3).mask[0] == 2).all()
    store = prepare(iter([pair]), labels, PairStore(12, 16, 3), 3).store
    assert store.class_px(np.array([0]), 2).tolist() == [11 * 16, 0]


def test_a_mask_of_another_size_is_a_fault_and_a_broken_picture_is_left_out(tmp_path: Path) -> None:
    for name in ("1", "2"):
        _save(tmp_path / f"images/{name}.png", _picture())
        _save(tmp_path / f"masks/{name}.png", np.zeros((12, 16), np.uint8))
    (tmp_path / "images/1.png").write_bytes(b"broken")
    found = prepare(open_source(str(tmp_path), None), _LABELS, PairStore(8, 8, 3), 3)
    assert found.store.pair_ids == ["2.png"]
    assert len(found.left_out) == 1
    _save(tmp_path / "masks/2.png", np.zeros((5, 5), np.uint8))
    found = prepare(open_source(str(tmp_path), None), _LABELS, PairStore(8, 8, 3), 3)
    assert [(fault.pair_id, fault.unknown) for fault in found.truth_faults] == [("2.png", ())]
    said = describe_faults(found.truth_faults, found.masks, None, 3, ())
    assert said.startswith("1 of 1 masks can't be used: 2.png: the mask is 5x5 px")


def test_not_one_usable_picture_is_an_error() -> None:
    def nothing() -> Iterator[EncodedPair]:
        yield EncodedPair("x", lambda: (b"", b""))

    with pytest.raises(OptionError, match="no picture"):
        prepare(nothing(), _LABELS, PairStore(8, 8, 3), 3)


def test_an_unreadable_file_is_a_picture_error() -> None:
    def fail() -> tuple[bytes, bytes]:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(PictureError, match="Permission denied"):
        load_pair(EncodedPair("x", fail), _LABELS, 3)


def test_the_store_gives_back_from_disk_what_it_took() -> None:
    rng = np.random.default_rng(0)
    store = PairStore(4, 6, 3, in_memory_bytes=2 * 4 * 6 * 5)
    pairs = [
        (rng.integers(0, 256, (4, 6, 3), np.uint8), rng.integers(0, 300, (4, 6)).astype(np.uint16)) for _ in range(5)
    ]
    for number, (image, mask) in enumerate(pairs):
        store.append(str(number), image, mask)
    # Two pairs of 4 x 6 px fit into memory: 3 bytes a pixel of the image, 2 of the mask.
    assert os.fstat(store._file.fileno()).st_size == 3 * 4 * 6 * 5
    for number, (image, mask) in enumerate(pairs):
        assert np.array_equal(store[number][0], image)
        assert np.array_equal(store[number][1], mask)


def test_a_picture_keeps_its_part_when_others_come() -> None:
    ids = [f"picture {number}" for number in range(500)]
    few, many = split_pictures(ids[:200], 1, 0.1, 0.2), split_pictures(ids, 1, 0.1, 0.2)
    for part in ("train", "validation", "test"):
        before = {ids[index] for index in getattr(few, part)}
        after = {ids[index] for index in getattr(many, part)}
        assert before == after & set(ids[:200])
    assert sorted(np.concatenate([many.train, many.validation, many.test])) == list(range(500))
    assert len(many.test) == pytest.approx(100, abs=25)
    assert len(many.validation) == pytest.approx(50, abs=20)
    assert list(many.test) != list(split_pictures(ids, 2, 0.1, 0.2).test)
    # More pictures to choose the epoch come from training: no picture that was trained on is kept for the end.
    assert list(many.test) == list(split_pictures(ids, 1, 0.3, 0.2).test)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_no_part_of_a_handful_is_empty(count: int) -> None:
    for seed in range(20):
        split = split_pictures([str(number) for number in range(count)], seed, 0.1, 0.1)
        assert min(len(split.train), len(split.validation), len(split.test)) >= 1


@pytest.mark.parametrize(("fractions", "count"), [((0.0, 0.1), 9), ((0.6, 0.4), 9), ((0.1, 0.1), 2)])
def test_a_split_that_leaves_nothing_is_refused(fractions: tuple[float, float], count: int) -> None:
    with pytest.raises(OptionError):
        split_pictures([str(number) for number in range(count)], 0, *fractions)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_variations_keep_shape_dtype_and_class_ids(kind: str, channels: int) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (40, 56, channels), np.uint8)
    mask = np.full((40, 56), 7, np.uint8)
    mask[10:30, 10:30] = 200
    for number in range(20):
        varied, moved = augment(image, mask, kind, np.random.default_rng(number))
        assert varied.shape == image.shape
        assert varied.dtype == np.uint8
        assert moved.shape == mask.shape
        assert moved.dtype == mask.dtype
        assert set(np.unique(moved)) <= {7, 200}
        again = augment(image, mask, kind, np.random.default_rng(number))
        assert np.array_equal(again[0], varied)
        assert np.array_equal(again[1], moved)


@pytest.mark.parametrize("kind", ["flip", "light", "full"])
def test_picture_and_mask_move_together(kind: str) -> None:
    """A picture that shows its own mask still shows it after every flip, turn, zoom and shift."""
    mask = np.zeros((64, 64), np.uint8)
    mask[12:40, 20:50] = 1
    image = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    flips = 0
    for number in range(30):
        varied, moved = augment(image, mask, kind, np.random.default_rng(number))
        flips += not np.array_equal(moved, mask)
        grey = varied.mean(axis=2)
        if moved.min() == moved.max():
            continue
        threshold = (grey[moved == 1].mean() + grey[moved == 0].mean()) / 2
        assert ((grey > threshold) == (moved == 1)).mean() > (0.9999 if kind == "flip" else 0.96)
    assert flips > 5


@pytest.mark.parametrize(("kind", "max_degrees", "max_zoom"), [("light", 10.0, 1.25), ("full", 20.0, 1.6)])
def test_views_are_rotated_zoomed_and_shifted_as_stated(kind: str, max_degrees: float, max_zoom: float) -> None:
    height, width = 40, 61
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    views = [random_transform(height, width, n % 2 == 1, kind, np.random.default_rng(n)) for n in range(600)]
    degrees, zooms, stretches, shifts, rooms = [], [], [], [], []
    for number, view in enumerate(views):
        linear = view[:, :2]
        assert (np.linalg.det(linear) < 0) == (number % 2 == 1)
        # The columns are the axes of the rotated view; their lengths are stretch / zoom and 1 / (stretch · zoom).
        along, across = np.linalg.norm(linear, axis=0)
        assert linear[:, 0] @ linear[:, 1] == pytest.approx(0.0, abs=1e-9)
        degrees.append(np.rad2deg(np.arctan2(-linear[0, 1], linear[1, 1])))
        zooms.append(1 / np.sqrt(along * across))
        stretches.append(np.sqrt(along / across))
        shifts.append((linear @ middle + view[:, 2] - middle) / (width, height))
        rooms.append(max(0.05, 0.5 - 0.5 / zooms[-1]))
    for values, least, most in (
        (degrees, -max_degrees, max_degrees),
        (np.log(zooms), -0.35 * np.log(max_zoom), np.log(max_zoom)),
        (np.log(stretches), -0.1, 0.1),
        (np.array(shifts)[:, 0] / rooms, -1.0, 1.0),
        (np.array(shifts)[:, 1] / rooms, -1.0, 1.0),
    ):
        reach = 0.05 * (most - least)
        assert least - 1e-9 <= min(values) < least + reach
        assert most - reach < max(values) <= most + 1e-9


def test_colours_vary_by_the_strength_and_not_at_all_without() -> None:
    image = _picture(30, 40)
    assert np.array_equal(vary_color(image, 0.0, np.random.default_rng(0)), image)
    flat = np.full((4, 4, 3), 120, np.uint8)
    # A flat picture shows brightness and balance alone: 120 · (1 ± s ± s / 3).
    means = np.array([vary_color(flat, 0.3, np.random.default_rng(n))[0, 0] for n in range(600)]) / 120
    assert 0.59 < means.min() < 0.66
    assert 1.34 < means.max() < 1.41
    spread = np.ptp(means, axis=1)
    assert 0.15 < spread.max() <= 0.21
    assert means.mean() == pytest.approx(1.0, abs=0.03)
    # Two grey tones show contrast: their distance of 60 varies by brightness and contrast, from 0.7² to 1.3².
    tones = np.repeat(np.array([[90], [150]], np.uint8)[..., None], 3, axis=2)
    distance = [np.diff(vary_color(tones, 0.3, np.random.default_rng(n)).mean(axis=2), axis=0) for n in range(600)]
    assert 0.45 < np.min(distance) / 60 < 0.6
    assert 1.5 < np.max(distance) / 60 < 1.85


def test_saturation_varies_the_distance_from_grey() -> None:
    image = np.full((2, 2, 3), (60, 120, 180), np.uint8)
    varied = np.array([vary_color(image, 0.3, np.random.default_rng(n))[0, 0].astype(float) for n in range(600)])
    ratio = (varied[:, 2] - varied[:, 0]) / varied.mean(axis=1)
    # Contrast and balance alone stay within 0.5 to 1.5.
    assert 0.25 < ratio.min() < 0.48
    assert 1.55 < ratio.max() < 1.95


def test_a_warp_by_whole_pixels_is_exact() -> None:
    image, mask = _picture(20, 20), np.arange(400, dtype=np.uint16).reshape(20, 20)
    moved_image, moved_mask = warp(image, mask, np.array([[1.0, 0.0, 3.0], [0.0, 1.0, -2.0]]))
    assert np.array_equal(moved_image[2:, :17], image[:18, 3:])
    assert np.array_equal(moved_mask[2:, :17], mask[:18, 3:])


def test_both_ways_of_making_batches_give_the_same_pixels(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="the extra `train` is not installed")
    from model.data.batches import NumpyBatches, TrainingPictures, epoch_batches

    write_sample(tmp_path, 11, 2)
    found = prepare(open_source(str(tmp_path), None), _LABELS, PairStore(16, 16, 3), 3)
    pictures = TrainingPictures(found.store, np.arange(11), "full", 4, seed=9)
    plain = NumpyBatches(pictures, 1)
    assert len(plain) == 2
    for step, (images, masks) in enumerate(epoch_batches(pictures, 1)):
        expected_images, expected_masks = plain[step]
        assert np.array_equal(np.asarray(images), expected_images)
        assert np.array_equal(np.asarray(masks), expected_masks)
    assert not np.array_equal(pictures.order(1), pictures.order(2))
    assert not np.array_equal(pictures.picture(1, 0)[0], pictures.picture(2, 0)[0])
