"""The embedded sample: pictures of textured objects with exact masks, generated from a seed.

Picture number i of a seed is always the same, for any number of pictures.
"""

import colorsys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from model.samples.shapes import coverage, random_outline, smooth_noise, texture
from pipeline.core.errors import OptionError

CLASS_NAMES = ("background", "object", "border")
BACKGROUND, OBJECT, BORDER = range(3)

_SIDE_MIN_PX, _SIDE_MAX_PX = 96, 640
_OBJECTS_MAX = 6
_BAND_SHARE = 1.0 / 40.0
_VISIBLE_SHARE_MIN = 0.45
_PALETTE = (0x20, 0x20, 0x20, 0xE6, 0x55, 0x2D, 0xF5, 0xD0, 0x42)


@dataclass(frozen=True, slots=True)
class SamplePicture:
    """One picture of the sample.

    Attributes:
        stem: the file's name without its ending.
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids.
        instances: (H, W) uint16, 0 for the background, else the number of the visible object.
        ending: `.jpg` or `.png`.
    """

    stem: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16]
    ending: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A kind of sample.

    Attributes:
        draw: picture number `index` of a seed, given the seed and the index.
        stem: what its pictures' names begin with, before the number.
        class_names: by id; in the masks.
        palette: three bytes a class, the masks' colours.
    """

    draw: Callable[[int, int], SamplePicture]
    stem: str
    class_names: tuple[str, ...]
    palette: tuple[int, ...]


def border_band(instances: npt.NDArray[np.uint16], band_px: float) -> npt.NDArray[np.bool_]:
    """The band along every boundary between two different numbers.

    Args:
        instances: (H, W) uint16, the number of the object, 0 for the background.
        band_px: the width of the band, half of it on either side, px.

    Returns:
        (H, W) bool. The picture's edge is not a boundary.
    """
    band = np.zeros(instances.shape, np.bool_)
    for number in np.unique(instances):
        region = (instances == number).astype(np.uint8)
        if region.all():
            continue
        # A pixel's centre is half a pixel farther from the next centre across the boundary than from the boundary.
        distance_px = cv2.distanceTransform(region, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 0.5
        band |= (region > 0) & (distance_px < band_px / 2.0)
    return band


def hsv_color(hue: float, saturation: float, value: float) -> npt.NDArray[np.float32]:
    """A colour, (3,) float32 RGB 0..1, from its hue (1.0 is once around), saturation and value, 0..1."""
    return np.asarray(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def _background(rng: np.random.Generator, height: int, width: int, unit_px: float) -> npt.NDArray[np.float32]:
    """A muted, textured background, (height, width, 3) float32, about 0..1."""
    hue, value = rng.uniform(), rng.uniform(0.3, 0.75)
    first = hsv_color(hue, rng.uniform(0.0, 0.22), value)
    second = hsv_color(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.0, 0.22), value + rng.uniform(-0.2, 0.2))
    blend = 0.5 + 0.5 * np.clip(smooth_noise(rng, height, width, max(height, width) / 2), -1, 1)
    ground = first + (second - first) * blend[..., None]
    contrast = np.float32(rng.uniform(0.04, 0.12))
    return (ground + contrast * texture(rng, height, width, unit_px)[..., None]).astype(np.float32)


def _surface(rng: np.random.Generator, hue: float, height: int, width: int, unit_px: float) -> npt.NDArray[np.float32]:
    """A saturated, textured and softly lit surface for one object, (height, width, 3) float32, about 0..1."""
    color = hsv_color(hue, rng.uniform(0.65, 1.0), rng.uniform(0.6, 1.0))
    light = 1.0 + 0.15 * smooth_noise(rng, height, width, max(height, width) / 3)
    light += np.float32(rng.uniform(0.03, 0.16)) * texture(rng, height, width, 0.7 * unit_px)
    return (color * light[..., None]).astype(np.float32)


def draw_sample(seed: int, index: int) -> SamplePicture:
    """Draws picture number `index` of a seed.

    Args:
        seed: the data set's seed, at least 0.
        index: the picture's number, at least 0.
    """
    rng = np.random.default_rng([seed, index])
    shorter = float(np.exp(rng.uniform(np.log(_SIDE_MIN_PX), np.log(480))))
    longer = min(_SIDE_MAX_PX, shorter * rng.uniform(1.0, 1.4))
    height, width = (round(side) for side in rng.permutation([shorter, longer]))
    shorter_px = min(height, width)
    unit_px = shorter_px * rng.uniform(0.03, 0.07)

    canvas = _background(rng, height, width, unit_px)
    instances = np.zeros((height, width), np.uint16)
    full_px: list[int] = []
    wanted = int(rng.integers(1, _OBJECTS_MAX + 1))
    # Hues are spread, so that two objects that touch can be distinguished.
    hues = (
        rng.permutation(np.arange(_OBJECTS_MAX) / _OBJECTS_MAX) + rng.uniform() + rng.uniform(-0.04, 0.04, _OBJECTS_MAX)
    )
    for hue in hues[:wanted]:
        center = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height)
        radius_px = shorter_px * rng.uniform(0.12, 0.3)
        cover = coverage(random_outline(rng, center, radius_px), height, width)
        surface = _surface(rng, float(hue), height, width, unit_px)
        inside = cover >= 0.5
        number = len(full_px) + 1
        candidate = np.where(inside, np.uint16(number), instances)
        seen_px = np.bincount(candidate.ravel(), minlength=number + 1)[1:]
        sizes = [*full_px, int(inside.sum())]
        # An object that would hide most of another is left out, so that every number is visible.
        if any(seen < _VISIBLE_SHARE_MIN * size for seen, size in zip(seen_px, sizes, strict=True)):
            continue
        canvas += cover[..., None] * (surface - canvas)
        instances, full_px = candidate, sizes

    canvas += rng.normal(0.0, rng.uniform(0.005, 0.025), canvas.shape).astype(np.float32)
    image = (np.clip(canvas, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    mask = (instances > 0).astype(np.uint8)
    mask[border_band(instances, shorter_px * _BAND_SHARE)] = BORDER
    ending = ".png" if rng.uniform() < 0.4 else ".jpg"
    return SamplePicture(f"sample_{index:05d}", image, mask, instances, ending)


def draw_samples(count: int, seed: int) -> Iterator[SamplePicture]:
    """Draws the first `count` pictures of a seed, one after the other."""
    return (draw_sample(seed, index) for index in range(count))


SHAPES = Scene(draw_sample, "sample", CLASS_NAMES, _PALETTE)


def write_sample(output: Path, count: int, seed: int, scene: Scene = SHAPES) -> int:
    """Writes a sample data set: `images/`, `masks/` and `instances/`.

    Args:
        output: the folder, created if missing; pictures of the same names are replaced.
        count: how many pictures, at least 1.
        seed: at least 0.
        scene: what is drawn.

    Returns:
        The number of objects in all pictures together.

    Raises:
        OptionError: if the count or the seed is out of range, the folder can't be written, or its `images/` holds
            pictures that are not of this sample.
    """
    if count < 1:
        raise OptionError(f"--count must be at least 1, not {count}")
    if seed < 0:
        raise OptionError(f"--seed must be at least 0, not {seed}")
    folders = {kind: output / kind for kind in ("images", "masks", "instances")}
    try:
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        others = sorted(_names(folders["images"]) - {f"{scene.stem}_{index:05d}" for index in range(count)})
        if others:
            raise OptionError(f"--output {output}: images/ has pictures that are not of this sample, {others[0]} first")
        objects = 0
        for index in range(count):
            picture = scene.draw(seed, index)
            _save(picture, folders, scene.palette)
            objects += int(picture.instances.max())
    except OSError as error:
        raise OptionError(f"--output {output} can't be written: {error.strerror or error}") from error
    return objects


def _names(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def _save(picture: SamplePicture, folders: dict[str, Path], palette: tuple[int, ...]) -> None:
    image_path = folders["images"] / f"{picture.stem}{picture.ending}"
    # Another seed may have written the same name with the other ending, which would be a second picture of that name.
    other = ".jpg" if picture.ending == ".png" else ".png"
    image_path.with_suffix(other).unlink(missing_ok=True)
    image = Image.fromarray(picture.image)
    if picture.ending == ".jpg":
        image.save(image_path, quality=92, subsampling=0)
    else:
        image.save(image_path, compress_level=3)
    mask = Image.fromarray(picture.mask).convert("P")
    mask.putpalette(palette)
    mask.save(folders["masks"] / f"{picture.stem}.png", compress_level=6)
    Image.fromarray(picture.instances).save(folders["instances"] / f"{picture.stem}.png", compress_level=6)
