"""The networks: their shapes, the chapter's numbers, the losses, and the rewriting that must change nothing."""

from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.export import export_network  # noqa: E402
from model.losses import SegmentationLoss  # noqa: E402
from model.networks.network import PRESETS, NetworkConfig, build_network, check_config, logits_of  # noqa: E402
from model.networks.rewrite import phase_kernel, rewrite_for_inference  # noqa: E402
from model.networks.stored_network import config_of  # noqa: E402
from model.options import LOSSES  # noqa: E402
from model.samples.sample import draw_sample  # noqa: E402
from pipeline.core.errors import OptionError  # noqa: E402
from pipeline.core.resize import resize_image  # noqa: E402
from pipeline.core.spec import ModelSpec  # noqa: E402
from pipeline.engines.model_folder import carried_names, folder_of  # noqa: E402


def _config(preset: str, **changes: int) -> NetworkConfig:
    values = {"width": 4, "depth": 2, "image_height": 32, "image_width": 48, "channels": 3, "num_classes": 3} | changes
    return NetworkConfig(preset, **values, encoder=PRESETS[preset].encoder if preset in PRESETS else None)


def _randomised(config: NetworkConfig, seed: int) -> "keras.Model":
    """A network whose every weight, batch norm's included, is far from its start."""
    network = build_network(config)
    rng = np.random.default_rng(seed)
    network.set_weights(
        [
            rng.uniform(0.3, 1.2, w.shape)
            if "variance" in v.path or "gamma" in v.path
            else rng.normal(0.0, 0.2, w.shape)
            for v, w in zip(network.weights, network.get_weights(), strict=True)
        ]
    )
    return network


def test_the_chapters_network_has_the_chapters_shape() -> None:
    network = build_network(NetworkConfig("chapter", 64, 2, 128, 128, 3, 3))
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [64, 128, 256, 128, 64, 3]
    macs = sum(int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3])) for layer in convolutions)
    assert 2 * macs == pytest.approx(8.52e9, rel=0.002)
    # The skips are the maps before pooling.
    assert network.get_layer("up1_join").input[1].shape[1:] == (64, 64, 128)
    assert network.get_layer("up0_join").input[1].shape[1:] == (128, 128, 64)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("channels", "num_classes"), [(1, 2), (3, 5)])
def test_any_channels_and_classes(preset: str, channels: int, num_classes: int) -> None:
    config = _config(preset, channels=channels, num_classes=num_classes)
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 48, channels), np.uint8)
    probabilities = build_network(config)(image)
    assert probabilities.shape == (2, 32, 48, num_classes)
    assert np.allclose(np.sum(keras.ops.convert_to_numpy(probabilities), axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"image_width": 50}, "--image_size 50 can't be halved 2 times"),
        ({"width": 0}, "--width"),
        ({"depth": 0}, "--depth"),
        ({"num_classes": 1}, "classes"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(changes: dict[str, int], word: str) -> None:
    with pytest.raises(OptionError, match=word):
        check_config(_config("chapter", **changes))


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(OptionError, match="--preset unet"):
        check_config(_config("unet"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("seed", range(3))
def test_the_rewriting_is_exact_on_random_weights(preset: str, seed: int) -> None:
    config = _config(preset, depth=3, width=5)
    network = _randomised(config, seed)
    image = np.random.default_rng(seed).integers(0, 256, (2, 32, 48, 3), np.uint8)
    before = keras.ops.convert_to_numpy(logits_of(network)(image, training=False))
    after = keras.ops.convert_to_numpy(rewrite_for_inference(network, config)(image, training=False))
    assert np.abs(after - before).max() <= 2e-5 * np.abs(before).max()


@pytest.mark.parametrize("name", carried_names())
def test_the_rewriting_is_exact_on_trained_weights(name: str) -> None:
    folder = Path(folder_of(name))
    spec = ModelSpec.from_json((folder / "metadata.json").read_text())
    network = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    images = np.stack([resize_image(draw_sample(3, index).image, spec.height, spec.width) for index in range(4)])
    before = keras.ops.convert_to_numpy(logits_of(network)(images, training=False))
    after = keras.ops.convert_to_numpy(rewrite_for_inference(network, config_of(spec))(images, training=False))
    assert np.abs(after - before).max() <= 2e-5 * np.abs(before).max()
    assert (after.argmax(axis=-1) == before.argmax(axis=-1)).mean() > 0.9999


def test_a_dead_layer_costs_the_int8_file_alone(tmp_path: Path) -> None:
    config = _config("residual", image_width=32)
    network = build_network(config)
    network.get_layer("up1_norm").beta.assign(np.full(network.get_layer("up1_norm").beta.shape, -1e6))
    images = [resize_image(draw_sample(3, index).image, 32, 32) for index in range(3)]
    exported = export_network(network, config, tmp_path, images, [(image, None) for image in images])
    assert set(exported.files) == {path.name for path in tmp_path.iterdir()} == {"model.keras", "model.tflite"}
    assert exported.agreement["model.tflite"]["equal_pixels"] > 0.999


def test_a_phase_kernel_sums_the_taps_that_fall_together() -> None:
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3, 1, 1)
    assert phase_kernel(kernel, 0, 0)[..., 0, 0].tolist() == [[0, 1 + 2], [3 + 6, 4 + 5 + 7 + 8]]
    assert phase_kernel(kernel, 1, 1)[..., 0, 0].tolist() == [[0 + 1 + 3 + 4, 2 + 5], [6 + 7, 8]]


def test_cross_entropy_is_keras_own() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    truth = rng.integers(0, 3, (2, 4, 5)).astype(np.uint8)
    reference = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours = float(SegmentationLoss("ce", 3)(truth, logits))
    assert ours == pytest.approx(float(reference(truth, logits)), rel=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_ignored_pixels_add_nothing(kind: str) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(1, 4, 6, 3)).astype(np.float32)
    truth = rng.integers(0, 3, (1, 4, 6)).astype(np.uint8)
    loss = SegmentationLoss(kind, 3)
    alone = float(loss(truth[:, :, :4], logits[:, :, :4]))
    truth[:, :, 4:] = 3
    assert float(loss(truth, logits)) == pytest.approx(alone, rel=1e-5)
    changed = logits.copy()
    changed[:, :, 4:] += 100.0 * rng.normal(size=(1, 4, 2, 3))
    assert float(loss(truth, changed)) == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_all_ignored_is_no_loss_and_perfect_is_nearly_none(kind: str) -> None:
    truth = np.full((1, 3, 3), 2, np.uint8)
    assert float(SegmentationLoss(kind, 2)(truth, np.zeros((1, 3, 3, 2), np.float32))) == pytest.approx(0.0, abs=1e-6)
    truth = np.array([[[0, 1]]], np.uint8)
    logits = np.array([[[[30.0, 0.0], [0.0, 30.0]]]], np.float32)
    assert float(SegmentationLoss(kind, 2)(truth, logits)) == pytest.approx(0.0, abs=1e-5)


def test_dice_by_hand() -> None:
    truth = np.array([[[0, 0, 1, 1]]], np.uint8)
    logits = np.log(np.array([[[[0.5, 0.5], [1.0, 1e-9], [1e-9, 1.0], [1e-9, 1.0]]]], np.float32))
    # Class 0: 2·1.5 / (2 + 1.5); class 1: 2·2 / (2 + 2.5).
    dice = 1.0 - (3.0 / 3.5 + 4.0 / 4.5) / 2.0
    both = float(SegmentationLoss("ce_dice", 2)(truth, logits)) - float(SegmentationLoss("ce", 2)(truth, logits))
    assert both == pytest.approx(dice, abs=1e-5)


def test_focal_by_hand_and_weights() -> None:
    truth = np.array([[[0, 1]]], np.uint8)
    logits = np.log(np.array([[[[0.75, 0.25], [0.5, 0.5]]]], np.float32))
    focal = (-np.log(0.75) * 0.25**2 - np.log(0.5) * 0.5**2) / 2
    assert float(SegmentationLoss("focal", 2)(truth, logits)) == pytest.approx(focal, rel=1e-4)
    weighted = (-3 * np.log(0.75) - np.log(0.5)) / 4
    assert float(SegmentationLoss("ce", 2, (3.0, 1.0))(truth, logits)) == pytest.approx(weighted, rel=1e-5)


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (-1.0, 2.0)])
def test_weights_that_do_not_fit_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(OptionError, match="--class_weights"):
        SegmentationLoss("ce", 2, weights)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="mse"):
        SegmentationLoss("mse", 2)
