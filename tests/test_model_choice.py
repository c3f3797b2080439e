"""Which pictures train, which choose the epoch and which are scored; and that a training learns anything."""

import csv
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

import model.export  # noqa: E402
import model.finish  # noqa: E402
import model.train  # noqa: E402
from model.data.batches import TrainingPictures  # noqa: E402
from model.data.dataset import PairStore  # noqa: E402
from model.data.split import split_pictures  # noqa: E402
from model.figures import Example, can_draw  # noqa: E402
from model.fit import Fitter, Validated  # noqa: E402
from model.losses import SegmentationLoss  # noqa: E402
from model.networks.network import NetworkConfig, build_network, logits_of  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.samples.sample import CLASS_NAMES, draw_sample, write_sample  # noqa: E402
from model.train import train  # noqa: E402
from pipeline.core.resize import resize_image  # noqa: E402
from pipeline.core.spec import ModelSpec  # noqa: E402
from pipeline.core.split_digests import SplitDigests, picture_digest  # noqa: E402

HEIGHT, WIDTH = 48, 64
MAX_CONSTANT_IOU = 1 / 3
"""A mask of one class everywhere scores this at most in the mean of three classes."""


@dataclass(frozen=True)
class Trained:
    """A finished training, the pictures of its parts by name, and what loss, converter and figure were given.

    So that no part can be taken for another, the masks of the kept pictures name the wrong classes, and a third of
    each validation mask is overwritten.
    """

    data: Path
    folder: Path
    spec: ModelSpec
    parts: dict[str, list[str]]
    weights: list[tuple[float, ...] | None]
    calibrations: list[Any]
    examples: list[Example]

    def network(self) -> Any:
        return keras.saving.load_model(self.folder / "model.keras", compile=False, safe_mode=True)

    def pictures(self, part: str, masks: str = "masks") -> list[tuple[np.ndarray, np.ndarray]]:
        """Image and mask of a part's pictures at their own size; the masks as they were drawn from `true_masks`."""
        found = []
        for name in self.parts[part]:
            mask = Image.open(self.data / masks / f"{Path(name).stem}.png")
            found.append((np.asarray(Image.open(self.data / "images" / name)), np.asarray(mask)))
        return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("choice")
    data = folder / "data"
    write_sample(data, 40, 3)
    names = sorted(path.name for path in (data / "images").iterdir())
    split = split_pictures(names, 1, 0.2, 0.2)
    parts = {part: [names[index] for index in getattr(split, part)] for part in ("train", "validation", "test")}
    shutil.copytree(data / "masks", data / "true_masks")
    for part in ("validation", "test"):
        for name in parts[part]:
            path = data / "masks" / f"{Path(name).stem}.png"
            mask = np.array(Image.open(path))
            if part == "validation":
                mask[: len(mask) // 3] = 2
            else:
                mask = (mask + 1) % 3
            Image.fromarray(mask).save(path)
    options = TrainOptions(
        str(data),
        str(folder / "model"),
        preset="residual",
        width=8,
        depth=2,
        image_size=(HEIGHT, WIDTH),
        epochs=10,
        batch_size=4,
        learning_rate=5e-3,
        warmup_epochs=0.5,
        augment="flip",
        class_weights="balanced",
        seed=1,
        class_names=CLASS_NAMES,
        val_fraction=0.2,
        test_fraction=0.2,
    )
    weights: list[tuple[float, ...] | None] = []
    calibrations: list[Any] = []
    examples: list[Example] = []
    convert, draw = model.export._convert, model.finish.examples_figure

    def recorded_loss(kind: str, num_classes: int, given: tuple[float, ...] | None) -> SegmentationLoss:
        weights.append(given)
        return SegmentationLoss(kind, num_classes, given)

    def recorded_convert(network: Any, calibration: Any) -> bytes:
        calibrations.append(calibration)
        return convert(network, calibration)

    def recorded_draw(shown: list[Example], spec: ModelSpec) -> Any:
        examples.extend(shown)
        return draw(shown, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.train, "SegmentationLoss", recorded_loss)
        patch.setattr(model.finish, "examples_figure", recorded_draw)
        patch.setattr(model.export, "_convert", recorded_convert)
        spec = train(options, lambda line: None)
    return Trained(data, folder / "model", spec, parts, weights, calibrations, examples)


def _mean_iou(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The global mean IoU of (truth, prediction) pairs, by counting."""
    scores = []
    for class_id in range(3):
        both = sum(int(((truth == class_id) & (mask == class_id)).sum()) for truth, mask in pairs)
        either = sum(int(((truth == class_id) | (mask == class_id)).sum()) for truth, mask in pairs)
        scores += [both / either] if either else []
    return sum(scores) / len(scores)


def _small(mask: np.ndarray) -> np.ndarray:
    """A mask at the model's size: the pixel that holds the centre of each larger or smaller one."""
    rows = np.floor((np.arange(HEIGHT) + 0.5) * mask.shape[0] / HEIGHT).astype(int)
    columns = np.floor((np.arange(WIDTH) + 0.5) * mask.shape[1] / WIDTH).astype(int)
    return np.asarray(mask[np.ix_(rows, columns)])


def _score_small(network: Any, pictures: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The global mean IoU of a network at its own size."""
    batch = np.stack([resize_image(image, HEIGHT, WIDTH) for image, _ in pictures])
    masks = keras.ops.convert_to_numpy(network(batch, training=False)).argmax(axis=-1)
    return _mean_iou([(_small(truth), mask) for (_, truth), mask in zip(pictures, masks, strict=True)])


def test_a_training_learns_what_no_constant_mask_reaches(trained: Trained) -> None:
    keras.utils.set_random_seed(1)
    untrained = build_network(NetworkConfig("residual", 8, 2, HEIGHT, WIDTH, 3, 3))
    kept = trained.pictures("test", "true_masks")
    assert _score_small(untrained, kept) < MAX_CONSTANT_IOU
    assert _score_small(trained.network(), kept) > 0.45 > MAX_CONSTANT_IOU


def test_the_scores_are_those_of_the_kept_pictures_at_their_own_size(trained: Trained) -> None:
    network = trained.network()
    score = {}
    for part in trained.parts:
        pairs = []
        for image, truth in trained.pictures(part):
            logits = logits_of(network)(resize_image(image, HEIGHT, WIDTH)[None], training=False)
            planes = np.moveaxis(keras.ops.convert_to_numpy(logits)[0], -1, 0)
            size = (truth.shape[1], truth.shape[0])
            large = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in planes]
            pairs.append((truth, np.argmax(large, axis=0)))
        score[part] = _mean_iou(pairs)
    assert trained.spec.scores["pictures"] == len(trained.parts["test"])
    # Pillow enlarges as the job does but for rounding.
    assert trained.spec.scores["global_mean_iou"] == pytest.approx(score["test"], abs=2e-3)
    assert score["test"] < 0.2 < min(score["train"], score["validation"])


def test_the_best_epoch_is_that_of_the_validation_pictures(trained: Trained) -> None:
    best = trained.spec.training["best_validation_global_mean_iou"]
    assert best == pytest.approx(_score_small(trained.network(), trained.pictures("validation")), abs=1e-3)
    assert _score_small(trained.network(), trained.pictures("train")) > best + 0.1
    with (trained.folder / "training" / "log.csv").open() as file:
        log = [float(row["val_global_mean_iou"]) for row in csv.DictReader(file)]
    assert trained.spec.training["best_epoch"] == 1 + int(np.argmax(log))


def test_the_exports_are_compared_on_the_validation_pictures(trained: Trained) -> None:
    for agreement in trained.spec.agreement.values():
        assert agreement["pictures"] == len(trained.parts["validation"]) < len(trained.parts["train"])


@pytest.mark.skipif(not can_draw(), reason="matplotlib is not installed")
def test_the_examples_are_the_best_the_middle_and_the_worst(trained: Trained) -> None:
    def mean_iou(example: Example) -> float:
        return float(np.mean([_iou(example, class_id) for class_id in np.union1d(example.truth, example.prediction)]))

    shown = {
        kind: [one for one in trained.examples if one.title.startswith(kind)] for kind in ("best", "median", "worst")
    }
    assert [len(ones) for ones in shown.values()] == [2, 2, 2]
    scores = {kind: [mean_iou(one) for one in ones] for kind, ones in shown.items()}
    for kind, ones in shown.items():
        for one, score in zip(ones, scores[kind], strict=True):
            assert f"mean IoU {score:.3f}" in one.title
    assert min(scores["best"]) > max(scores["median"]) >= min(scores["median"]) > max(scores["worst"])


def _iou(example: Example, class_id: int) -> float:
    truth, prediction = example.truth == class_id, example.prediction == class_id
    return float((truth & prediction).sum() / (truth | prediction).sum())


def test_the_split_is_written_as_digests_of_the_pictures_files(trained: Trained) -> None:
    written = (trained.folder / "split.json").read_bytes()
    assert trained.spec.files["split.json"] == {"sha256": hashlib.sha256(written).hexdigest(), "bytes": len(written)}
    split = SplitDigests.from_json(written.decode())
    for part, names in trained.parts.items():
        data = [(trained.data / "images" / name).read_bytes() for name in names]
        assert {split.part_of(picture_digest(one)) for one in data} == {part}
        assert split.digests[part].size == len(names)


class _Scripted(Fitter):
    """A fitter whose validation scores are given; keeps the weights of every epoch."""

    scores = (0.2, 0.9, 0.5)

    def _validate(self) -> Validated:
        self.seen = [*getattr(self, "seen", []), [np.array(one) for one in self.network.get_weights()]]
        right = int(100 * self.scores[len(self.seen) - 1])
        # IoU of either class is right / (200 - right).
        return Validated(np.array([[right, 100 - right], [100 - right, right]], np.int64))


def test_the_weights_of_the_best_epoch_are_kept_not_the_last(tmp_path: Path) -> None:
    store = PairStore(16, 16, 3)
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        store.append(str(number), image, (image[..., 0] > 127).astype(np.uint8))
    network = logits_of(build_network(NetworkConfig("residual", 4, 2, 16, 16, 3, 2)))
    network.compile(keras.optimizers.Adam(1e-2), SegmentationLoss("ce", 2), jit_compile=False)
    pictures = TrainingPictures(store, np.arange(3), "none", 3, seed=0)
    fitter = _Scripted(network, pictures, np.array([3]), 2, tmp_path, "")
    fitter.run(3, 0, lambda done: None, [])
    assert fitter.progress.best_epoch == 2
    for kept, best, _ in zip(network.get_weights(), *fitter.seen[1:], strict=True):
        np.testing.assert_array_equal(kept, best)
    assert any(not np.array_equal(best, last) for best, last in zip(*fitter.seen[1:], strict=True))


def test_balanced_weights_are_the_inverse_roots_of_the_shares_in_training(trained: Trained) -> None:
    masks = np.stack([_small(truth) for _, truth in trained.pictures("train")])
    share = np.bincount(masks.ravel(), minlength=3) / masks.size
    expected = 1 / np.sqrt(share)
    assert trained.weights == [pytest.approx(tuple(expected / (expected * share).sum()))]
    assert max(expected) > 2 * min(expected)


def test_int8_is_calibrated_on_the_training_pictures(trained: Trained) -> None:
    floats, int8 = trained.calibrations
    assert floats is None
    expected = [resize_image(image, HEIGHT, WIDTH) for image, _ in trained.pictures("train")]
    assert len(expected) > 10
    np.testing.assert_array_equal(np.stack(int8), np.stack(expected))


def test_every_calibration_picture_counts() -> None:
    from pipeline.engines.litert import LiteRTEngine

    network = logits_of(build_network(NetworkConfig("chapter", 4, 1, 32, 32, 3, 2)))
    pictures = [resize_image(draw_sample(3, index).image, 32, 32) for index in range(3)]
    dark = [(picture // 16).astype(np.uint8) for picture in pictures]
    expected = keras.ops.convert_to_numpy(network(np.stack(pictures), training=False))
    error = []
    for calibration in (dark, [*dark, *pictures]):
        engine = LiteRTEngine(model.export._convert(network, calibration), 1)
        error.append(float(np.abs(engine.logits(np.stack(pictures)) - expected).max()))
    # Ranges that were measured on dark pictures alone clip what bright ones give.
    assert error[1] < error[0] / 3
