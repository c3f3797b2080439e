"""Each option of a training reaches what it is for: batches, schedule, seed, checkpoint and metadata."""

import math
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

import model.fit  # noqa: E402
from model import preparation  # noqa: E402
from model.cli import build_parser  # noqa: E402
from model.data.batches import TrainingPictures  # noqa: E402
from model.data.dataset import PairStore  # noqa: E402
from model.data.split import Split  # noqa: E402
from model.finish import class_colors  # noqa: E402
from model.fit import Fitter, Validated, confusions_of  # noqa: E402
from model.job import TrainingJob  # noqa: E402
from model.losses import SegmentationLoss  # noqa: E402
from model.networks.network import NetworkConfig, build_network, logits_of  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.preparation import prepare_job  # noqa: E402
from model.samples.sample import CLASS_NAMES, write_sample  # noqa: E402
from model.train import make_fitter, set_seed_and_precision, train  # noqa: E402
from pipeline.core.errors import OptionError  # noqa: E402
from pipeline.core.palette import default_colors  # noqa: E402
from pipeline.core.split_digests import TEST, TRAIN, VALIDATION, SplitDigests  # noqa: E402

NAMES = "background,object,border"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 20, 3)
    return folder


def _options(sample: Path, output: Path, **changes: Any) -> TrainOptions:
    plain = TrainOptions(
        str(sample),
        str(output),
        preset="residual",
        width=4,
        depth=2,
        image_size=(16, 16),
        epochs=10,
        batch_size=4,
        seed=3,
        class_names=CLASS_NAMES,
        val_fraction=0.2,
        test_fraction=0.2,
    )
    return replace(plain, **changes)


def _job(options: TrainOptions) -> TrainingJob:
    return prepare_job(options, lambda line: None)


def _fitter(job: TrainingJob, folder: Path) -> Fitter:
    set_seed_and_precision(job.options)
    return make_fitter(job, build_network(job.config), folder)


def test_batches_are_those_of_seed_augmentation_and_batch_size(sample: Path, tmp_path: Path) -> None:
    options = _options(sample, tmp_path, augment="full", batch_size=5, seed=7)
    job = _job(options)
    found = _fitter(job, tmp_path).pictures
    expected = TrainingPictures(job.data.store, job.split.train, "full", 5, 7)
    assert len(expected.order(0)) == 10
    for epoch in range(2):
        np.testing.assert_array_equal(found.order(epoch), expected.order(epoch))
        for index in map(int, expected.order(epoch)):
            np.testing.assert_array_equal(found.picture(epoch, index)[0], expected.picture(epoch, index)[0])


@pytest.mark.parametrize(
    ("changes", "rates"),
    [
        # Three batches an epoch: one epoch of warm-up, then half a cosine over the 27 steps that are left.
        ({}, {0: 0.01, 3: 1.0, 3 + 27 // 3: 0.01 + 0.99 * 0.75, 30: 0.01}),
        ({"warmup_epochs": 2.0}, {3: 0.505, 6: 1.0, 30: 0.01}),
        ({"warmup_epochs": 0.0}, {0: 1.0, 15: 0.505, 30: 0.01}),
        ({"schedule": "constant"}, {0: 1.0, 15: 1.0, 30: 1.0}),
    ],
)
def test_the_learning_rate_follows_its_schedule(
    sample: Path, tmp_path: Path, changes: dict[str, Any], rates: dict[int, float]
) -> None:
    optimizer = _fitter(_job(_options(sample, tmp_path, learning_rate=0.004, **changes)), tmp_path).network.optimizer
    for step, share in rates.items():
        optimizer.iterations.assign(step)
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        assert rate == pytest.approx(0.004 * share, rel=1e-3), step


def test_the_seed_decides_the_first_weights(sample: Path, tmp_path: Path) -> None:
    job = _job(_options(sample, tmp_path))

    def kernel(seed: int) -> Any:
        set_seed_and_precision(replace(job.options, seed=seed))
        return build_network(job.config).get_weights()[0]

    first = kernel(1)
    np.testing.assert_array_equal(first, kernel(1))
    assert not np.array_equal(first, kernel(2))


@pytest.mark.parametrize(
    ("precision", "policy"), [("mixed_float16", "mixed_float16"), ("float32", "float32"), ("auto", "float32")]
)
def test_the_precision_is_that_of_the_option(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, policy: str
) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    monkeypatch.setattr(tensorflow.config, "list_physical_devices", lambda kind: [])
    try:
        set_seed_and_precision(_options(sample, tmp_path, precision=precision))
        assert keras.mixed_precision.dtype_policy().name == policy
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def test_a_checkpoint_is_that_of_its_options_and_pictures(sample: Path, tmp_path: Path) -> None:
    options = _options(sample, tmp_path, epochs=1)
    job = _job(options)
    _fitter(job, tmp_path).run(1, 0, lambda row: None, [])
    for same in ({}, {"patience": 5}, {"name": "other"}, {"licence": "CC0"}, {"tensorboard": True}):
        assert _fitter(replace(job, options=replace(job.options, **same)), tmp_path).resume()
    for other in ({"loss": "ce"}, {"learning_rate": 0.1}, {"augment": "none"}, {"seed": 4}, {"epochs": 2}):
        with pytest.raises(OptionError, match="other options or other pictures"):
            _fitter(replace(job, options=replace(job.options, **other)), tmp_path).resume()
    job.data.store.pair_ids[0] = "another.jpg"
    with pytest.raises(OptionError, match="other options or other pictures"):
        _fitter(job, tmp_path).resume()


def test_the_metadata_has_labels_and_the_command_that_trained(sample: Path, tmp_path: Path) -> None:
    options = _options(
        sample,
        tmp_path / "model",
        epochs=1,
        label_map="0=0,1=1,2=1",
        ignore_label=255,
        class_names=("other", "object"),
        saved_model=True,
    )
    spec = train(options, lambda line: None)
    assert (spec.label_map, spec.ignore_label) == ({"0": 0, "1": 1, "2": 1}, 255)
    assert (spec.training["seed"], spec.training["epochs"]) == (3, 1)
    words = shlex.split(spec.training["command"])
    assert words[:3] == ["python", "-m", "model"]
    parsed = build_parser().parse_args(words[3:])
    assert (parsed.dataset, parsed.output) == ("SOURCE", "DIR")
    for name in TrainOptions.__dataclass_fields__:
        if name not in ("dataset", "output"):
            assert getattr(parsed, name) == getattr(options, name), name


def test_the_background_has_the_dark_colour_whatever_its_id() -> None:
    dark, second, third = default_colors(3)
    assert class_colors(("background", "object", "border")) == [dark, second, third]
    assert class_colors(("pet", "background", "border")) == [second, dark, third]
    assert class_colors(("pet", "border", "background")) == [second, third, dark]


@pytest.mark.parametrize(("count", "is_warned"), [(19, True), (20, False)])
def test_fewer_than_20_pictures_to_choose_an_epoch_are_warned_of(count: int, is_warned: bool) -> None:
    said: list[str] = []
    split = Split(np.arange(50), np.arange(50, 50 + count), np.arange(0))
    digests = SplitDigests.of({TRAIN: range(50), VALIDATION: range(50, 50 + count), TEST: ()})
    preparation._report_split(split, 0, digests, said.append)
    assert any("unreliable" in line for line in said) == is_warned


# The fitter.


def _store(count: int) -> PairStore:
    store, rng = PairStore(16, 16, 3), np.random.default_rng(0)
    for number in range(count):
        image = rng.integers(0, 256, (16, 16, 3), np.uint8)
        store.append(str(number), image, (image[..., 0] > 127).astype(np.uint8))
    return store


class _ScriptedFitter(Fitter):
    """A fitter whose validation scores are given; keeps the weights of every epoch."""

    def script(self, scores: list[float]) -> "_ScriptedFitter":
        self._scores: Iterator[float] = iter(scores)
        self.seen: list[list[np.ndarray]] = []
        return self

    def _validate(self) -> Validated:
        self.seen.append([np.array(one) for one in self.network.get_weights()])
        right = int(100 * next(self._scores))
        # IoU of either class is right / (200 - right).
        return Validated(np.array([[right, 100 - right], [100 - right, right]], np.int64))


def _scripted(folder: Path, scores: list[float], loss: Any = None) -> _ScriptedFitter:
    keras.utils.set_random_seed(1)
    network = logits_of(build_network(NetworkConfig("residual", 4, 2, 16, 16, 3, 2)))
    network.compile(keras.optimizers.Adam(1e-2), loss or SegmentationLoss("ce", 2), jit_compile=False)
    pictures = TrainingPictures(_store(4), np.arange(3), "none", 3, seed=0)
    return _ScriptedFitter(network, pictures, np.array([3]), 2, folder, "").script(scores)


def test_of_equal_epochs_the_first_is_the_best(tmp_path: Path) -> None:
    fitter = _scripted(tmp_path, [0.5, 0.9, 0.9])
    fitter.run(3, 0, lambda row: None, [])
    assert fitter.progress.best_epoch == 2
    for kept, best in zip(fitter.network.get_weights(), fitter.seen[1], strict=True):
        np.testing.assert_array_equal(kept, best)


def test_a_resumed_training_still_has_the_best_weights(tmp_path: Path) -> None:
    first = _scripted(tmp_path, [0.9, 0.2])
    first.run(2, 0, lambda row: None, [])
    resumed = _scripted(tmp_path, [0.5])
    assert resumed.resume()
    resumed.run(3, 0, lambda row: None, [])
    assert (resumed.progress.epoch, resumed.progress.best_epoch) == (3, 1)
    for kept, best in zip(resumed.network.get_weights(), first.seen[0], strict=True):
        np.testing.assert_array_equal(kept, best)
    assert any(not np.array_equal(best, last) for best, last in zip(first.seen[0], resumed.seen[0], strict=True))


@pytest.mark.parametrize(("patience", "epochs"), [(0, 5), (1, 3), (2, 4), (3, 5)])
def test_patience_counts_epochs_since_the_best(tmp_path: Path, patience: int, epochs: int) -> None:
    fitter = _scripted(tmp_path, [0.5, 0.9, 0.8, 0.7, 0.6])
    fitter.run(5, patience, lambda row: None, [])
    assert (fitter.progress.epoch, fitter.progress.best_epoch) == (epochs, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path, value: float) -> None:
    fitter = _scripted(tmp_path, [0.5], loss=lambda truth, logits: keras.ops.mean(logits) * 0.0 + value)
    with pytest.raises(OptionError, match="in epoch 1: try a lower --learning_rate"):
        fitter.run(1, 0, lambda row: None, [])


def test_every_epoch_has_batches_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int] = []
    batches = model.fit.epoch_batches

    def recorded(pictures: TrainingPictures, epoch: int) -> Any:
        epochs.append(epoch)
        return batches(pictures, epoch)

    monkeypatch.setattr(model.fit, "epoch_batches", recorded)
    _scripted(tmp_path, [0.5, 0.9]).run(2, 0, lambda row: None, [])
    again = _scripted(tmp_path, [0.5])
    assert again.resume()
    again.run(3, 0, lambda row: None, [])
    assert epochs == [0, 1, 2]


def test_the_confusion_matrices_count_every_picture_by_truth_and_prediction() -> None:
    store = _store(5)

    class Constant:
        """Predicts class 1 everywhere."""

        def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
            return np.broadcast_to(np.array([0.0, 1.0], np.float32), (*images.shape[:3], 2))

    found = list(confusions_of(Constant(), store, np.array([4, 0, 2]), 2, batch_size=2))
    assert [number for number, _ in found] == [4, 0, 2]
    for number, matrix in found:
        ones = int(store[number][1].sum())
        assert matrix.tolist() == [[0, 16 * 16 - ones], [0, ones]]


def test_batches_hold_pictures_of_the_split_alone() -> None:
    store = _store(12)
    pictures = TrainingPictures(store, np.array([1, 4, 5, 8, 11]), "none", 2, seed=0)
    order = pictures.order(0)
    assert (pictures.steps, len(order), len(set(order.tolist()))) == (2, 4, 4)
    assert set(order.tolist()) <= {1, 4, 5, 8, 11}
    assert {index for epoch in range(20) for index in pictures.order(epoch).tolist()} == {1, 4, 5, 8, 11}
    few = TrainingPictures(store, np.array([1, 4, 5]), "none", 16, seed=0)
    assert (few.batch_size, few.steps, sorted(few.order(0).tolist())) == (3, 1, [1, 4, 5])
