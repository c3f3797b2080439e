"""Training at full resolution: crops of pictures of any size, and the model that says so."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

pytest.importorskip("keras", reason="the extra `train` is not installed")

from small_archive import run_job

from model.data.batches import TrainingPictures
from model.data.crops import MAX_SCALE, CropStore
from model.data.dataset import PairStore, prepare
from model.data.encoded_pairs import open_source
from model.options import TrainOptions, check_options
from model.reexport import export_model
from model.samples.field import CLASS_NAMES, draw_field
from model.train import train
from pipeline.core.errors import OptionError
from pipeline.core.labels import LabelMap
from pipeline.core.truth import Labels
from pipeline.core.usage import Usage
from pipeline.engines.model_folder import open_model
from pipeline.segmenting.segmentation import load_model

Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
CLASSES = 3


def pair(height: int, width: int) -> Pair:
    """A picture that names each pixel's place, and a mask that follows from it."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.uint8)
    return np.stack([rows, columns, 255 - rows], axis=-1), ((rows // 3 + columns // 5) % CLASSES).astype(np.uint8)


def store_of(*pairs: Pair, in_memory_bytes: int = 1 << 30) -> CropStore:
    store = CropStore(16, 24, CLASSES, in_memory_bytes)
    for number, (image, mask) in enumerate(pairs):
        store.append(f"{number}", *store.fitted(image, mask))
    return store


PAIRS = (pair(40, 50), pair(5, 7), pair(16, 24), pair(33, 24))


def test_the_tiles_of_a_picture_cover_it_once() -> None:
    store = store_of(*PAIRS)
    for index, (image, mask) in enumerate(PAIRS):
        seen = np.zeros(mask.shape, int)
        for item in store.items_of(np.array([index])):
            tile, classes = store[int(item)]
            assert tile.shape == (16, 24, 3)
            assert store.id_of(int(item)) == f"{index}"
            inside = classes != CLASSES
            rows, columns = tile[..., 0].astype(int), tile[..., 1].astype(int)
            assert np.array_equal(image[rows, columns], tile)
            assert np.array_equal(mask[rows, columns][inside], classes[inside])
            np.add.at(seen, (rows[inside], columns[inside]), 1)
        assert (seen == 1).all()
    assert [len(store.items_of(np.array([index]))) for index in range(4)] == [9, 1, 1, 3]
    assert len(store) == 4


def test_class_px_are_those_of_the_whole_pictures() -> None:
    masks = [mask for _, mask in PAIRS]
    expected = sum(np.bincount(mask.ravel(), minlength=CLASSES) for mask in masks[1:])
    assert np.array_equal(store_of(*PAIRS).class_px(np.array([1, 2, 3]), CLASSES), expected)


def test_frame_px_are_those_of_the_whole_pictures() -> None:
    whole = PairStore(40, 50, 3)
    whole.append("0", *PAIRS[0])
    assert np.array_equal(store_of(PAIRS[0]).frame_px(CLASSES), whole.frame_px(CLASSES))


def test_pictures_beyond_the_memory_limit_are_on_disk_and_equal() -> None:
    memory, disk = store_of(*PAIRS), store_of(*PAIRS, in_memory_bytes=8_500)
    assert sum(isinstance(image, np.memmap) for image, _ in disk._pairs) == 2
    for item in memory.items_of(np.arange(4)):
        for one, other in zip(memory[int(item)], disk[int(item)], strict=True):
            assert np.array_equal(one, other)


def test_random_crops_are_of_the_pictures_own_pixels_and_reach_everywhere() -> None:
    image, mask = PAIRS[0]
    store, seen = store_of(*PAIRS), np.zeros(mask.shape, int)
    beyond = 0
    for number in range(400):
        crop, classes = store.sample(0, np.random.default_rng(number), varies_scale=False)
        rows, columns = crop[..., 0].astype(int), crop[..., 1].astype(int)
        assert np.array_equal(image[rows, columns], crop)
        assert np.array_equal(mask[rows, columns], classes)
        np.add.at(seen, (rows, columns), 1)
        beyond += len(set(rows[:, 0])) < 16
    assert seen.min() > 0.2 * seen.mean()
    assert 0 < beyond < 400


def test_the_scale_of_random_crops_varies_both_ways() -> None:
    image, mask = np.zeros((400, 400, 3), np.uint8), np.zeros((400, 400), np.uint8)
    image[..., 0] = np.arange(400) // 2
    store = store_of((image, mask))
    spans = []
    for number in range(200):
        row = store.sample(0, np.random.default_rng(number), varies_scale=True)[0][8, :, 0].astype(int)
        if (np.diff(row) >= 0).all():  # else it is mirrored
            spans.append((row[22] - row[1]) * 2 / 21)
    assert len(spans) > 150
    assert 1 / MAX_SCALE - 0.15 < min(spans) < 0.9
    assert 1.1 < max(spans) < MAX_SCALE + 0.15


@pytest.mark.parametrize(
    ("augmentation", "varies"), [("none", False), ("flip", False), ("light", True), ("full", True)]
)
def test_an_epochs_crops_depend_on_seed_epoch_and_number_alone(
    augmentation: str, varies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, asked = store_of(*PAIRS), []
    sample = CropStore.sample

    def asking(self: CropStore, item: int, rng: np.random.Generator, *, varies_scale: bool) -> Pair:
        asked.append(varies_scale)
        return sample(self, item, rng, varies_scale=varies_scale)  # type: ignore[return-value]

    monkeypatch.setattr(CropStore, "sample", asking)
    items = store.items_of(np.array([0, 3]))
    first, second = (TrainingPictures(store, items, augmentation, 4, seed=5) for _ in range(2))
    assert first.steps == 3
    for item in items:
        one, same, other = first.picture(1, int(item)), second.picture(1, int(item)), first.picture(2, int(item))
        assert all(np.array_equal(*both) for both in zip(one, same, strict=True))
        assert not np.array_equal(one[0], other[0])
    assert set(asked) == {varies}


def test_whole_pictures_are_trained_on_as_before() -> None:
    store = PairStore(16, 24, 3)
    store.append("0", *store.fitted(*PAIRS[0]))
    rng = np.random.default_rng(0)
    for one, other in zip(store.sample(0, rng, varies_scale=True), store[0], strict=True):
        assert np.array_equal(one, other)
    assert rng.random() == np.random.default_rng(0).random()
    assert store.items_of(np.array([0])).tolist() == store.examples(np.array([0]), 5) == [0]


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fields")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for index in range(6):
        drawn = draw_field(1, index, 150, 200)
        Image.fromarray(drawn.image).save(folder / f"images/{index}.png")
        Image.fromarray(drawn.mask).save(folder / f"masks/{index}.png")
    return folder


@pytest.fixture(scope="module")
def trained(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "field"
    options = TrainOptions(
        str(fields), str(folder), mode="tile", preset="chapter", width=8, image_size=(48, 48), epochs=2, batch_size=8,
        class_names=CLASS_NAMES, val_fraction=0.2, test_fraction=0.2, seed=1, augment="light",
    )  # fmt: skip
    train(options, lambda line: None)
    return folder


def test_a_model_of_crops_says_so_and_is_used_so(trained: Path, fields: Path, tmp_path: Path) -> None:
    spec = open_model(str(trained)).spec
    assert spec.usage == Usage("tile", 0.25)
    assert "--mode tile" in spec.training["command"]
    assert spec.training["pictures"] + spec.training["validation_pictures"] + spec.scores["pictures"] == 6
    assert {"model.tflite", "model_int8.tflite"} <= set(spec.files)
    done = run_job(tmp_path / "out", "--input", fields / "images", "--ground_truth", fields / "masks", model=trained)
    assert done.summary["run"]["inference"]["mode"] == "tile"
    found = load_model(trained).segment(fields / "images/0.png")
    assert np.array_equal(Image.open(tmp_path / "out/masks/0.png.png"), found.mask)
    resized = load_model(trained).segment(fields / "images/0.png", mode="resize")
    assert not np.array_equal(found.mask, resized.mask)


def test_the_scores_of_a_training_are_those_of_tiles(trained: Path, fields: Path) -> None:
    spec = open_model(str(trained)).spec
    labels = Labels(LabelMap.identity(3), 3, None)
    found = prepare(open_source(str(fields), None), labels, CropStore(48, 48, 3), 3)
    assert len(found.store) == 6
    scored = [
        load_model(trained).segment(fields / "images" / f"{index}.png").score(fields / "masks" / f"{index}.png")
        for index in range(6)
    ]
    accuracies = {round(one["pixel_accuracy"], 6) for one in scored}
    if spec.scores["pictures"] == 1:
        assert spec.scores["pixel_accuracy"] in accuracies
    else:
        assert min(accuracies) <= spec.scores["pixel_accuracy"] <= max(accuracies)


def test_an_export_is_calibrated_on_tiles(trained: Path, fields: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrated: list[npt.NDArray[np.uint8]] = []
    from model import reexport

    def remembering(*arguments: object, **keywords: object) -> object:
        calibrated.extend(arguments[3])  # type: ignore[arg-type]
        raise OptionError("enough")

    monkeypatch.setattr(reexport, "export_network", remembering)
    with pytest.raises(OptionError, match="enough"):
        export_model(trained, str(fields), None, saved_model=False)
    assert len(calibrated) == 100
    whole = np.asarray(Image.open(fields / "images/0.png"))
    first = calibrated[0]
    # The first tile begins before the picture, by what is left over, and is mirrored there.
    top, left = (4 * 48 - 150) // 2, (5 * 48 - 200) // 2
    assert np.array_equal(first[top:, left:], whole[: 48 - top, : 48 - left])


def test_an_unknown_mode_is_refused(fields: Path) -> None:
    with pytest.raises(OptionError, match="--mode stretch is not one of resize, tile"):
        check_options(TrainOptions(str(fields), "out", mode="stretch"))
