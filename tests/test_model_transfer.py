"""Trainings that start from a trained model, or learn from one: what is taken, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.cli import main  # noqa: E402
from model.losses import SegmentationLoss  # noqa: E402
from model.networks.distil import DistilledNetwork, Teacher, divergence  # noqa: E402
from model.networks.network import LOGITS_LAYER, NetworkConfig, build_network, logits_of  # noqa: E402
from model.networks.stored_network import StoredNetwork, stored_network  # noqa: E402
from model.networks.transfer import transfer  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.samples.sample import CLASS_NAMES, write_sample  # noqa: E402
from model.train import train  # noqa: E402
from pipeline.core.spec import ClassSpec, ModelSpec  # noqa: E402
from pipeline.core.split_digests import TRAIN, SplitDigests  # noqa: E402

SOURCE = NetworkConfig("residual", 4, 2, 16, 16, 3, 3)


def _stored(config: NetworkConfig, class_names: tuple[str, ...], seed: int = 0) -> StoredNetwork:
    """A network of random weights, none of them at its start."""
    network = build_network(config)
    rng = np.random.default_rng(seed)
    network.set_weights([rng.uniform(0.1, 1.0, weights.shape) for weights in network.get_weights()])
    classes = tuple(ClassSpec(class_id, name, "#000000") for class_id, name in enumerate(class_names))
    spec = ModelSpec("source", config.image_height, config.image_width, config.channels, classes)
    return StoredNetwork(spec, config, network, "", None)


def test_of_the_same_classes_and_channels_everything_is_taken() -> None:
    source = _stored(SOURCE, ("a", "b", "c"))
    network = build_network(replace(SOURCE, image_height=32))
    taken = transfer(source, network, ("a", "b", "c"))
    for one, other in zip(network.get_weights(), source.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert taken.classes == ("a", "b", "c")
    assert taken.spread == ()
    assert taken.layers == sum(bool(layer.weights) for layer in network.layers)


def test_classes_are_taken_by_their_names() -> None:
    source = _stored(SOURCE, ("a", "b", "c"))
    network = build_network(replace(SOURCE, num_classes=4))
    before = network.get_layer(LOGITS_LAYER).get_weights()
    assert transfer(source, network, ("c", "new", "a", "other")).classes == ("c", "a")
    theirs = source.network.get_layer(LOGITS_LAYER).get_weights()
    for own, old, other in zip(network.get_layer(LOGITS_LAYER).get_weights(), before, theirs, strict=True):
        np.testing.assert_array_equal(own[..., [0, 2]], other[..., [2, 0]])
        np.testing.assert_array_equal(own[..., [1, 3]], old[..., [1, 3]])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_are_spread_and_grey_pictures_keep_their_answers(channels: int) -> None:
    source = _stored(SOURCE, ("a", "b", "c"))
    network = build_network(replace(SOURCE, channels=channels))
    assert transfer(source, network, ("a", "b", "c")).spread == ("stem",)
    grey = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8)
    answers = [
        keras.ops.convert_to_numpy(logits_of(one)(np.repeat(grey, number, axis=3), training=False))
        for one, number in ((source.network, 3), (network, channels))
    ]
    assert np.abs(answers[0] - answers[1]).max() < 1e-5 * np.abs(answers[0]).max()


def test_the_divergence_by_hand() -> None:
    teacher, student = np.log([[[[0.8, 0.2]]]]), np.log([[[[0.5, 0.5]]]])
    expected = 0.8 * np.log(0.8 / 0.5) + 0.2 * np.log(0.2 / 0.5)
    assert float(divergence(teacher, student, 1.0)) == pytest.approx(expected, rel=1e-5)
    # Logits that are halved are the probabilities' square roots, normalised.
    soft = np.sqrt([0.8, 0.2]) / np.sqrt([0.8, 0.2]).sum()
    expected = 4 * (soft[0] * np.log(soft[0] / 0.5) + soft[1] * np.log(soft[1] / 0.5))
    assert float(divergence(teacher, student, 2.0)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(teacher, teacher)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [16, 32])
def test_a_network_learns_from_its_teacher_where_the_masks_say_nothing(size: int) -> None:
    plain = NetworkConfig("chapter", 4, 1, 16, 16, 3, 3)
    teacher = _stored(replace(plain, image_height=size, image_width=size), ("a", "b", "c"), seed=3)
    keras.utils.set_random_seed(0)
    student = logits_of(build_network(plain))
    network = DistilledNetwork(student, Teacher(teacher.network, teacher.config))
    assert len(network.weights) == len(student.weights)
    network.compile(keras.optimizers.Adam(3e-2), SegmentationLoss("ce", 3), jit_compile=False)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    ignored = np.full((4, 16, 16), 3, np.uint8)
    before = [weights.copy() for weights in teacher.network.get_weights()]

    def loss() -> float:
        return float(network.compute_loss(images, ignored, network(images, training=False), training=False))

    untrained = loss()
    for _ in range(15):
        network.train_on_batch(images, ignored)
    assert loss() < 0.5 * untrained
    for one, other in zip(before, teacher.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer_sample")
    write_sample(folder, 12, 3)
    return folder


def _options(sample: Path, output: Path, **changes: Any) -> TrainOptions:
    plain = TrainOptions(
        str(sample), str(output), preset="chapter", width=4, depth=1, image_size=(32, 32), epochs=1, batch_size=4,
        seed=1, class_names=CLASS_NAMES, val_fraction=0.25, test_fraction=0.25,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer") / "large"
    train(_options(sample, folder, licence="CC0"), lambda line: None)
    return folder


def test_a_training_starts_from_a_model(trained: Path, sample: Path, tmp_path: Path) -> None:
    said: list[str] = []
    free = {"preset": None, "width": None, "depth": None, "image_size": None}
    names = ("background", "thing", "border")
    changes = {"from_model": str(trained), "class_names": names, "learning_rate": 1e-6, "seed": 2, **free}
    spec = train(_options(sample, tmp_path / "next", **changes), said.append)
    assert "starts from large: 4 layers; the outputs of the classes background, border are taken" in said
    training = spec.training
    assert (training["preset"], training["width"], training["depth"], spec.height) == ("chapter", 4, 1, 32)
    source = stored_network(str(trained), "--from")
    assert training["from"] == {"name": "large", "sha256": source.digest, "dataset": sample.name, "licence": "CC0"}
    assert f"--from {trained}" in training["command"]
    network = stored_network(str(tmp_path / "next"), "--from").network
    np.testing.assert_allclose(
        network.get_layer("down0").get_weights()[0], source.network.get_layer("down0").get_weights()[0], atol=1e-4
    )
    # What the source was trained on counts as trained on, so kept pictures among it are warned of.
    assert any(line.endswith("are trained on and are kept for the end: the scores are too high") for line in said)
    first, second = (
        SplitDigests.from_json((folder / "split.json").read_text()) for folder in (trained, tmp_path / "next")
    )
    assert set(first.digests[TRAIN].tolist()) < set(second.digests[TRAIN].tolist())


def test_a_training_learns_from_a_model(
    trained: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    logits = Teacher.logits

    def recorded(self: Teacher, images: Any) -> Any:
        asked.append(images)
        return logits(self, images)

    monkeypatch.setattr(Teacher, "logits", recorded)
    spec = train(_options(sample, tmp_path / "small", width=2, distil=str(trained)), lambda line: None)
    assert asked
    assert spec.training["distilled_from"]["name"] == "large"
    assert f"--distil {trained}" in spec.training["command"]
    small, large = (stored_network(str(folder), "--from").network for folder in (tmp_path / "small", trained))
    assert small.count_params() < large.count_params()


def _fault(capsys: pytest.CaptureFixture[str], sample: Path, *arguments: str) -> str:
    """Runs a training and returns the one line that says what is wrong."""
    assert main(["train", "--dataset", str(sample), "--output", str(sample / "model"), *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert not any(line.startswith("epoch") for line in lines)
    return lines[-1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--from {model} --preset residual", "--preset residual: the network of --from {model} has preset chapter"),
        ("--from {model} --depth 2", "--depth 2: the network of --from {model} has depth 1"),
        ("--from {model} --encoder none", "--encoder none: the network of --from {model} has encoder None"),
        ("--from {model} --image_size 33", "--image_size 33 can't be halved"),
        ("--from {model} --encoder_rate_factor 0.1", "--encoder_rate_factor needs a network with a pretrained encoder"),
        ("--from nothing", "--from nothing: neither a folder nor one of the carried models"),
        ("--distil nothing", "--distil nothing: neither a folder nor one of the carried models"),
        (
            "--distil {model} --class_names a,b,c",
            "--distil {model}: its classes are background,object,border, not a,b,c",
        ),
        ("--distil {model} --channels 1 --class_names background,object,border", "it takes 3 channels, not 1"),
        ("--encoder_rate_factor 2", "--encoder_rate_factor must be 0 to 1, not 2.0"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(
    capsys: pytest.CaptureFixture[str], trained: Path, sample: Path, arguments: str, words: str
) -> None:
    line = _fault(capsys, sample, *arguments.format(model=trained).split())
    assert words.format(model=trained) in line


def test_a_changed_or_missing_keras_file_is_one_line(
    capsys: pytest.CaptureFixture[str], trained: Path, sample: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(trained, folder)
    (folder / "model.keras").write_bytes(b"something else")
    assert f"--from {folder}: model.keras has another digest" in _fault(capsys, sample, "--from", str(folder))
    metadata = json.loads((folder / "metadata.json").read_text())
    del metadata["files"]["model.keras"]
    (folder / "metadata.json").write_text(json.dumps(metadata))
    assert "is not a Keras file of a chapter network" in _fault(capsys, sample, "--from", str(folder))
    (folder / "model.keras").unlink()
    assert f"--from {folder}: model.keras can't be read" in _fault(capsys, sample, "--from", str(folder))
