"""The scene `field`: a field from above with thousands of small plants, crop in rows and weeds anywhere.

The two kinds have the same range of colours: a crop plant is a rosette of five to seven broad leaves, a weed has a few
narrow blades. At the size of a model's input they look the same. Picture number i of a seed is always the same.
"""

import numpy as np
import numpy.typing as npt

from model.samples.sample import SamplePicture, Scene, hsv_color
from model.samples.shapes import Points, coverage, polar, ring, smooth_noise

CLASS_NAMES = ("soil", "crop", "weed")
SOIL, CROP, WEED = range(3)
HEIGHT_PX, WIDTH_PX = 3000, 4000

_ROW_PX, _PLANT_PX = (130.0, 180.0), (48.0, 64.0)
_CROP_RADIUS_PX, _WEED_RADIUS_PX = (13.0, 21.0), (6.0, 13.0)
_PX_A_WEED = (4_000, 9_000)
_PX_A_STONE = 25_000
_PALETTE = (0x5B, 0x45, 0x32, 0x3F, 0xA0, 0x3F, 0xE0, 0x4F, 0x9F)

_Float32 = npt.NDArray[np.float32]


def draw_field(seed: int, index: int, height: int = HEIGHT_PX, width: int = WIDTH_PX) -> SamplePicture:
    """Draws picture number `index` of a seed.

    Args:
        seed: the data set's seed, at least 0.
        index: the picture's number, at least 0.
        height: px.
        width: px.

    Returns:
        The picture; a pixel is of a plant if at least half of it is inside the plant's outline, of the upper one where
        two overlap. Plants that are hidden have no number in `instances`.
    """
    rng = np.random.default_rng([seed, index, height, width])
    canvas = _soil(rng, height, width)
    for center in rng.uniform((0, 0), (width, height), (height * width // _PX_A_STONE, 2)):
        stone = polar(rng.uniform(0.7, 1.0, 9), ring(9)) * rng.uniform(3.0, 11.0) + center
        _paint(canvas, stone, hsv_color(0.09, rng.uniform(0.0, 0.1), rng.uniform(0.4, 0.7)), rng)
    instances = np.zeros((height, width), np.uint16)
    classes = [SOIL]
    weeds = int(height * width / rng.uniform(*_PX_A_WEED))
    places = [(CROP, place) for place in _rows_of_crop(rng, height, width)]
    places += [(WEED, place) for place in rng.uniform((0, 0), (width, height), (weeds, 2))]
    for number in rng.permutation(len(places)):
        kind, place = places[number]
        for outline in _crop(rng, place) if kind == CROP else _weed(rng, place):
            color = hsv_color(rng.uniform(0.24, 0.36), rng.uniform(0.45, 0.75), rng.uniform(0.35, 0.7))
            inside = _paint(canvas, outline, color, rng)
            if inside is not None:
                rows, columns, is_inside = inside
                instances[rows, columns][is_inside] = len(classes)
        classes.append(kind)
    canvas += rng.normal(0.0, rng.uniform(0.01, 0.03), canvas.shape).astype(np.float32)
    image = (np.clip(canvas, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    mask = np.asarray(classes, np.uint8)[instances]
    seen = np.zeros(len(classes), np.bool_)
    seen[instances] = True
    seen[0] = False
    numbers = np.where(seen, np.cumsum(seen), 0).astype(np.uint16)
    return SamplePicture(f"{FIELD.stem}_{index:05d}", image, mask, numbers[instances], ".jpg")


FIELD = Scene(draw_field, "field", CLASS_NAMES, _PALETTE)


def _soil(rng: np.random.Generator, height: int, width: int) -> _Float32:
    """Brown ground with clods, (height, width, 3) float32, about 0..1."""
    color = hsv_color(rng.uniform(0.05, 0.1), rng.uniform(0.25, 0.5), rng.uniform(0.3, 0.5))
    light = 1.0 + 0.2 * smooth_noise(rng, height, width, 900.0)
    for cell_px, contrast in ((40.0, 0.12), (9.0, 0.15), (2.5, 0.15)):
        light += np.float32(contrast) * smooth_noise(rng, height, width, cell_px)
    return (color * light[..., None]).astype(np.float32)


def _rows_of_crop(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float64]:
    """Where crop plants are, (n, 2) x and y, px: on parallel rows, each a little off."""
    turn, row_px, plant_px = rng.uniform(-0.3, 0.3), rng.uniform(*_ROW_PX), rng.uniform(*_PLANT_PX)
    reach = int(np.hypot(height, width) / 2 / plant_px) + 2
    steps = np.arange(-reach, reach + 1)
    along, across = np.meshgrid(steps * plant_px, steps * row_px)
    places = np.stack([along.ravel(), across.ravel()], axis=1) + rng.normal(0.0, 5.0, (along.size, 2))
    cos, sin = np.cos(turn), np.sin(turn)
    places = places @ np.array([[cos, sin], [-sin, cos]]) + (width / 2, height / 2)
    grows = rng.random(len(places)) < 0.9
    is_inside = ((places > -20) & (places < (width + 20, height + 20))).all(axis=1)
    return np.asarray(places[grows & is_inside], np.float64)


def _crop(rng: np.random.Generator, center: Points) -> list[Points]:
    """A rosette of broad leaves: one outline."""
    leaves, angles = int(rng.integers(5, 8)), ring(72)
    lobes = 0.55 + 0.45 * np.abs(np.cos(leaves * angles / 2 + rng.uniform(0.0, np.pi)))
    return [polar(lobes * rng.uniform(*_CROP_RADIUS_PX), angles) + center]


def _weed(rng: np.random.Generator, center: Points) -> list[Points]:
    """Two to four narrow blades from one point."""
    radius, turn = rng.uniform(*_WEED_RADIUS_PX), rng.uniform(0.0, 2.0 * np.pi)
    blades = int(rng.integers(2, 5))
    outlines = []
    for blade in range(blades):
        angle = turn + 2.0 * np.pi * blade / blades + rng.uniform(-0.3, 0.3)
        along = np.array([np.cos(angle), np.sin(angle)])
        around = ring(24)
        length, width = radius / 2, radius * rng.uniform(0.14, 0.24)
        points = np.stack([length * (1.0 + np.cos(around)), width * np.sin(around)], axis=1)
        outlines.append(points @ np.array([along, [-along[1], along[0]]]) + center)
    return outlines


def _paint(
    canvas: _Float32, outline: Points, color: _Float32, rng: np.random.Generator
) -> tuple[slice, slice, npt.NDArray[np.bool_]] | None:
    """Paints one surface over the canvas.

    Returns:
        The rows and columns around it, and which of these pixels are at least half inside; None if it is beyond the
        canvas.
    """
    height, width = canvas.shape[:2]
    left, top = np.floor(outline.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(outline.max(axis=0)).astype(int) + 2
    rows, columns = slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    patch = canvas[rows, columns]
    cover = coverage(outline - (columns.start, rows.start), *patch.shape[:2])
    light = 1.0 + rng.normal(0.0, 0.12, patch.shape[:2]).astype(np.float32)
    patch += cover[..., None] * (color * light[..., None] - patch)
    return rows, columns, cover >= 0.5
