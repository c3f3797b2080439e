"""From a plane of logits for each class to class ids and probabilities."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds

Float32Array = npt.NDArray[np.float32]


def argmax(planes: Iterator[Float32Array], num_planes: int, mask: ClassIds) -> None:
    """Writes the index of the largest of some planes, the lowest on ties.

    Args:
        planes: (h, w) each; the first is overwritten, and one is no longer used when the next is requested.
        num_planes: how many there are.
        mask: (h, w), zeros.
    """
    best = next(planes)
    larger = np.empty(mask.shape, np.bool_)
    wins = np.empty_like(mask)
    for class_id, plane in enumerate(planes, 1):
        np.greater(plane, best, out=larger)
        # Ids ascend, so the larger id is the later maximum: a product and a maximum cost a tenth of an assignment by
        # a boolean index.
        np.multiply(larger.view(np.uint8), mask.dtype.type(class_id), out=wins)
        np.maximum(mask, wins, out=mask)
        if class_id + 1 < num_planes:
            np.maximum(best, plane, out=best)


def softmax(planes: Float32Array) -> npt.NDArray[np.uint8]:
    """The softmax over the first axis.

    Args:
        planes: (num_classes, h, w) float32; overwritten.

    Returns:
        (num_classes, h, w) uint8: round(255 · probability).
    """
    planes -= planes.max(axis=0)
    np.exp(planes, out=planes)
    total = planes[0].copy()
    for plane in planes[1:]:
        total += plane
    planes *= np.float32(255.0) / total
    return np.rint(planes, out=planes).astype(np.uint8)


def empty_mask(num_classes: int, height: int, width: int) -> ClassIds:
    """A mask of zeros in the dtype that its class ids need.

    Args:
        num_classes: of the model.
        height: px.
        width: px.

    Returns:
        (height, width), uint8 up to 256 classes, else uint16.
    """
    shape = height, width
    return np.zeros(shape, np.uint8) if num_classes <= 256 else np.zeros(shape, np.uint16)
