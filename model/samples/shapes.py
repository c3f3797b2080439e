"""Random outlines and textures of the sample data set.

All functions take a numpy Generator, so that a picture is a function of its seed only.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
FloatImage = npt.NDArray[np.float32]

_FRACTION_BITS = 4


def ring(count: int) -> Points:
    """Angles of `count` points spread evenly over a circle, radians, (count,)."""
    return np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)


def polar(radii: Points, angles: Points) -> Points:
    """Points around the origin, (n, 2) x and y, from their distances and angles (radians), (n,) each."""
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _ellipse(rng: np.random.Generator) -> Points:
    angles = ring(96)
    return np.stack([np.cos(angles), rng.uniform(0.55, 1.0) * np.sin(angles)], axis=1)


def _rectangle(rng: np.random.Generator) -> Points:
    aspect = rng.uniform(0.55, 1.0)
    return np.array([[-1.0, -aspect], [1.0, -aspect], [1.0, aspect], [-1.0, aspect]]) * 0.85


def _polygon(rng: np.random.Generator) -> Points:
    count = int(rng.integers(3, 8))
    angles = ring(count) + rng.uniform(-0.15, 0.15, count)
    return polar(rng.uniform(0.9, 1.1, count), angles)


def _star(rng: np.random.Generator) -> Points:
    spikes = int(rng.integers(5, 8))
    radii = np.tile([1.15, rng.uniform(0.55, 0.7)], spikes)
    return polar(radii, ring(2 * spikes))


def _blob(rng: np.random.Generator) -> Points:
    angles = ring(120)
    radii = np.ones_like(angles)
    for frequency in range(2, 6):
        radii += rng.uniform(0.0, 0.26) / (frequency - 0.5) * np.cos(frequency * angles + rng.uniform(0, 2 * np.pi))
    return polar(radii, angles)


def _heart(rng: np.random.Generator) -> Points:
    """The curve of https://mathworld.wolfram.com/HeartCurve.html, equation 8, scaled to about unit radius."""
    angles = ring(96)
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    return np.stack([x, -y], axis=1) / 15.5


_OUTLINES: tuple[Callable[[np.random.Generator], Points], ...] = (_ellipse, _rectangle, _polygon, _star, _blob, _heart)


def random_outline(rng: np.random.Generator, center: tuple[float, float], radius_px: float) -> Points:
    """A closed outline of a random kind and rotation.

    Args:
        rng: the picture's generator.
        center: x and y of the middle, px.
        radius_px: the size, about the distance from the centre to the outermost point, px.

    Returns:
        (n, 2) float64, x and y of the corners, px.
    """
    points = _OUTLINES[int(rng.integers(len(_OUTLINES)))](rng) * radius_px
    turn = rng.uniform(0.0, 2.0 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.asarray(points @ rotation.T + np.asarray(center), np.float64)


def coverage(points: Points, height: int, width: int) -> FloatImage:
    """How much of every pixel is inside an outline.

    Returns:
        (height, width) float32, 0..1, soft only along the outline.
    """
    canvas = np.zeros((height, width), np.uint8)
    fixed_point = np.round(points * (1 << _FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed_point], (255,), lineType=cv2.LINE_AA, shift=_FRACTION_BITS)
    return canvas.astype(np.float32) / np.float32(255.0)


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell_px: float) -> FloatImage:
    """Value noise: random values on a coarse grid, interpolated cubically.

    Args:
        cell_px: the distance of the grid's points, px.

    Returns:
        (height, width) float32, about -1..1.
    """
    rows, columns = max(2, round(height / cell_px)), max(2, round(width / cell_px))
    grid = rng.uniform(-1.0, 1.0, (rows, columns)).astype(np.float32)
    noise: FloatImage = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return noise


def waves(rng: np.random.Generator, height: int, width: int, period_px: float) -> FloatImage:
    """Parallel stripes of a random direction with soft edges.

    Returns:
        (height, width) float32, -1..1.
    """
    turn, phase = rng.uniform(0.0, np.pi), rng.uniform(0.0, 2.0 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = (x * np.cos(turn) + y * np.sin(turn)) * (2.0 * np.pi / period_px) + phase
    return np.asarray(np.tanh(2.0 * np.sin(angle)), np.float32)


def texture(rng: np.random.Generator, height: int, width: int, unit_px: float) -> FloatImage:
    """A random pattern: clouds, stripes, a lattice or grain.

    Args:
        unit_px: the scale of the pattern, px.

    Returns:
        (height, width) float32, about -1..1.
    """
    kind = int(rng.integers(4))
    if kind == 0:
        return 0.7 * smooth_noise(rng, height, width, 4 * unit_px) + 0.3 * smooth_noise(rng, height, width, unit_px)
    if kind == 1:
        return waves(rng, height, width, 2 * unit_px)
    if kind == 2:
        return waves(rng, height, width, 2 * unit_px) * waves(rng, height, width, 2 * unit_px)
    return smooth_noise(rng, height, width, max(2.0, 0.5 * unit_px))
