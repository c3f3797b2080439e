"""Random variations of a picture and its mask, the same geometry for both.

Masks are moved by nearest neighbour only, so no new class ids appear.
"""

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.core.errors import OptionError
from pipeline.core.labels import ClassIds

UInt8Array = npt.NDArray[np.uint8]

AUGMENTATIONS = ("none", "flip", "light", "full")
"""`flip`: left and right; `light`: also scale, crop, small rotations and colour; `full`: stronger, and blur."""

VARIES_SCALE = frozenset(("light", "full"))

_MAX_TURN_DEGREES = {"light": 10.0, "full": 20.0}
_MAX_ZOOM = {"light": 1.25, "full": 1.6}
_COLOR_STRENGTH = {"light": 0.15, "full": 0.3}
_BLUR_SHARE = {"light": 0.0, "full": 0.15}


def check_augmentation(kind: str) -> None:
    """Refuses an unknown kind.

    Raises:
        OptionError: naming the known ones.
    """
    if kind not in AUGMENTATIONS:
        raise OptionError(f"--augment {kind} is not one of {', '.join(AUGMENTATIONS)}")


def augment(image: UInt8Array, mask: ClassIds, kind: str, rng: np.random.Generator) -> tuple[UInt8Array, ClassIds]:
    """Varies one picture and its mask.

    Args:
        image: (H, W, C) uint8.
        mask: (H, W) class ids.
        kind: one of `AUGMENTATIONS`.
        rng: the only source of randomness, so equal generators give equal results.

    Returns:
        The same shapes and dtypes.
    """
    if kind == "none":
        return image, mask
    mirrored = rng.random() < 0.5
    if kind == "flip":
        return (image[:, ::-1], mask[:, ::-1]) if mirrored else (image, mask)
    transform = random_transform(image.shape[0], image.shape[1], mirrored, kind, rng)
    image, mask = warp(image, mask, transform)
    image = vary_color(image, _COLOR_STRENGTH[kind], rng)
    if rng.random() < _BLUR_SHARE[kind]:
        image = _with_channels(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2)), image.shape)
    return image, mask


def random_transform(
    height: int, width: int, mirrored: bool, kind: str, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """A random view: mirrored or not, rotated, zoomed, stretched and shifted.

    Args:
        height: of picture and view, px.
        width: of picture and view, px.
        mirrored: whether left and right are exchanged.
        kind: `light` or `full`.
        rng: decides everything.

    Returns:
        (2, 3), from output to input pixels.
    """
    turn = np.deg2rad(rng.uniform(-_MAX_TURN_DEGREES[kind], _MAX_TURN_DEGREES[kind]))
    zoom = np.exp(rng.uniform(-0.35, 1.0) * np.log(_MAX_ZOOM[kind]))
    stretch = np.exp(rng.uniform(-0.1, 0.1))
    scale = np.diag([(-1.0 if mirrored else 1.0) * stretch / zoom, 1.0 / (stretch * zoom)])
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = rotation @ scale
    # The view's centre may move as far as the zoomed view has room, or a little if it has none.
    room = max(0.05, 0.5 * (1.0 - 1.0 / zoom))
    middle = np.array([(width - 1) / 2.0, (height - 1) / 2.0])
    shift = np.array([rng.uniform(-room, room) * width, rng.uniform(-room, room) * height])
    return np.concatenate([linear, (middle + shift - linear @ middle)[:, None]], axis=1)


def warp(image: UInt8Array, mask: ClassIds, transform: npt.NDArray[np.float64]) -> tuple[UInt8Array, ClassIds]:
    """Moves a picture (bilinear) and its mask (nearest) by one transform; pixels outside are mirrored.

    Args:
        image: (H, W, C) uint8.
        mask: (H, W) class ids.
        transform: (2, 3), from output to input pixels.
    """
    height, width = mask.shape
    flags = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        image, transform, (width, height), flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    moved_mask = cv2.warpAffine(
        mask, transform, (width, height), flags=flags | cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101
    )
    return _with_channels(moved, image.shape), moved_mask.reshape(mask.shape)  # type: ignore[return-value]


def vary_color(image: UInt8Array, strength: float, rng: np.random.Generator) -> UInt8Array:
    """Varies saturation, contrast and brightness by up to `strength` of their value, and each channel by a third of it.

    Args:
        image: (H, W, C) uint8.
        strength: at least 0; 0 changes nothing.
        rng: decides everything.
    """
    values = image.astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    saturation, contrast, brightness = (1.0 + rng.uniform(-strength, strength) for _ in range(3))
    values = grey + (values - grey) * np.float32(saturation)
    mean = values.mean()
    values = mean + (values - mean) * np.float32(contrast)
    balance = np.asarray(brightness + rng.uniform(-strength / 3, strength / 3, image.shape[2]), np.float32)
    return np.asarray(np.clip(values * balance + 0.5, 0, 255), np.uint8)


def _with_channels(image: npt.NDArray[np.generic], shape: tuple[int, ...]) -> UInt8Array:
    """OpenCV drops the last axis of a one-channel picture; this puts it back."""
    return np.asarray(image, np.uint8).reshape(shape)
