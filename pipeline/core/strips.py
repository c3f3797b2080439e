"""The interface between segmenting a picture and its outputs and measures: windows in, finished strips out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds

MAX_STRIP_PIXELS = 1 << 22
"""Maximum number of pixels of a strip, so that processing one takes some ten MiB for any size of picture; pictures of
up to 4 million pixels are one strip."""


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
        pixels: (h, W, C) uint8, the picture's own pixels; None if no output needs them.
        truth: (h, W) class ids, as `LabelMap.to_class_ids` gives them; None without ground truth.
        probabilities: gives (num_classes, h, W) uint8, round(255 · probability); computed when it is called.
    """

    top: int
    mask: ClassIds
    pixels: npt.NDArray[np.uint8] | None
    truth: ClassIds | None
    probabilities: Callable[[], npt.NDArray[np.uint8]]


def strip_bounds(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Divides a picture into strips; no result depends on the division.

    Args:
        height: the picture's, px.
        width: the picture's, px.

    Yields:
        Each strip's first row and one past its last row, from top to bottom.
    """
    rows = max(1, MAX_STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)
