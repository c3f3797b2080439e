"""What passes from the reading of a picture to its outputs and measures: windows in, finished strips out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds

MAX_STRIP_PIXELS = 1 << 22
"""Strips have as many rows as have this many pixels together, so that what is computed of a strip takes some ten MiB
whatever the picture's size; pictures of up to 4 million pixels are one strip."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of a picture, px, within the picture.

    Args:
        top: first row.
        left: first column.
        height: number of rows, at least 1.
        width: number of columns, at least 1.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Strip:
    """Some finished rows of a segmented picture, over its whole width. Strips come from top to bottom, without gaps.

    Args:
        top: the strip's first row in the picture, px.
        mask: (h, W) class ids, uint8 up to 256 classes, else uint16.
        pixels: (h, W, C) uint8, the picture's own pixels; None where no output asked for them.
        truth: (h, W) class ids, as `LabelMap.to_class_ids` gives them; None without ground truth.
        probabilities: gives (num_classes, h, W) uint8, round(255 · probability); computed when it is called.
    """

    top: int
    mask: ClassIds
    pixels: npt.NDArray[np.uint8] | None
    truth: ClassIds | None
    probabilities: Callable[[], npt.NDArray[np.uint8]]


def strip_bounds(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Divides a picture into strips; nothing that is computed of a picture depends on where.

    Args:
        height: the picture's, px.
        width: the picture's, px.

    Yields:
        Each strip's first row, and the row behind its last, from top to bottom.
    """
    rows = max(1, MAX_STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
