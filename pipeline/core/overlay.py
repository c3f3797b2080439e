"""A mask drawn over its picture, the same for the job, the report and `python -m model predict`."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds
from pipeline.core.palette import rgb_from_hex
from pipeline.core.spec import ClassSpec

_OPACITY = 0.45


def background_id(class_names: Sequence[str]) -> int:
    """The class that is named background, else the first."""
    lower = [name.lower() for name in class_names]
    return lower.index("background") if "background" in lower else 0


def overlay(
    image: npt.NDArray[np.uint8],
    mask: ClassIds,
    classes: Sequence[ClassSpec],
    *,
    above: ClassIds | None = None,
    below: ClassIds | None = None,
) -> npt.NDArray[np.uint8]:
    """Draws the classes' colours half transparent over a picture, their edges opaque; the background is left as it is.

    An edge is a pixel with a neighbour of another class, so rows of a larger picture need those next to them.

    Args:
        image: (H, W, 1 or 3) uint8.
        mask: (H, W) class ids.
        classes: with names and colours, by class id.
        above: (W,) class ids of the row above the first; None where there is none.
        below: (W,) class ids of the row below the last; None where there is none.

    Returns:
        (H, W, 3) uint8.
    """
    colors = np.array([rgb_from_hex(spec.color) for spec in classes], np.uint8)
    drawn = colors[mask]
    rgb = np.ascontiguousarray(np.broadcast_to(image, drawn.shape))
    blended = np.asarray(cv2.addWeighted(rgb, 1.0 - _OPACITY, drawn, _OPACITY, 0.0), np.uint8)
    edge = np.zeros(mask.shape, np.bool_)
    across, down = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    edge[:, 1:] = across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    if above is not None:
        edge[0] |= mask[0] != above
    if below is not None:
        edge[-1] |= mask[-1] != below
    blended[edge] = drawn[edge]
    behind = mask == background_id([spec.name for spec in classes])
    blended[behind] = rgb[behind]
    return blended
