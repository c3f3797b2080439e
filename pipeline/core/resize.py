"""Resizing of pictures and logits, and of masks in training: one definition for training and serving."""

import functools
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core.labels import ClassIds
from pipeline.core.planes import Float32Array, argmax, empty_mask, softmax

_OPENCV_MAX_PIXELS = 1 << 22
"""Planes up to this size are interpolated by OpenCV at once; for larger ones, row blocks that fit caches are faster."""

_BLOCK_VALUES = 1 << 18
"""float32 values of all classes that are interpolated at a time by rows: 1 MiB, which fits a core's cache."""


def resize_image(pixels: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Stretches a picture to the model's size, bilinear and antialiased (Pillow's triangle filter).

    Args:
        pixels: (H, W, C) uint8.
        height: the model's input height, px.
        width: the model's input width, px.

    Returns:
        (height, width, C) uint8.
    """
    channels = pixels.shape[2]
    if pixels.shape[:2] == (height, width):
        return pixels
    if channels == 3:
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    planes = [
        np.asarray(Image.fromarray(pixels[..., plane]).resize((width, height), Image.Resampling.BILINEAR))
        for plane in range(channels)
    ]
    return np.stack(planes, axis=-1)


def resize_mask_nearest(mask: ClassIds, height: int, width: int) -> ClassIds:
    """Stretches a mask to the model's size by nearest neighbour (half-pixel centres), for training targets.

    Args:
        mask: (H, W) class ids, uint8 or uint16.
        height: the model's input height, px.
        width: the model's input width, px.

    Returns:
        (height, width) of the same dtype, without new values.
    """
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    resized: ClassIds = mask[rows[:, None], columns[None, :]]
    return resized


def mask_from_logits(logits: Float32Array, height: int, width: int) -> ClassIds:
    """The whole mask of `ResizedLogits`.

    Args:
        logits: (h, w, num_classes) float32.
        height: the picture's height, px.
        width: the picture's width, px.

    Returns:
        (height, width) class ids, uint8 up to 256 classes, else uint16.
    """
    return ResizedLogits(logits, height, width).mask(0, height)


def probabilities_from_logits(logits: Float32Array, height: int, width: int) -> npt.NDArray[np.uint8]:
    """The probabilities of `ResizedLogits` for a whole picture.

    Args:
        logits: (h, w, num_classes) float32.
        height: the picture's height, px.
        width: the picture's width, px.

    Returns:
        (num_classes, height, width) uint8: round(255 · probability).
    """
    return ResizedLogits(logits, height, width).probabilities(0, height)


class ResizedLogits:
    """Logits at a picture's size, computed for some rows at a time (bilinear, half-pixel centres).

    All arithmetic is a float32 multiplication or addition, rounded once, in a fixed order: first along a row,
    left · (1 - f) + right · f, then along a column, upper · (1 - f) + lower · f. So equal logits give equal masks on
    every machine, and the rows may be requested in any blocks.

    Args:
        logits: (h, w, num_classes) float32, finite.
        height: the picture's height, px.
        width: the picture's width, px.
    """

    def __init__(self, logits: Float32Array, height: int, width: int) -> None:
        self._planes = np.ascontiguousarray(logits.transpose(2, 0, 1))
        self._size = height, width

    def mask(self, top: int, bottom: int) -> ClassIds:
        """The class of the largest logit, the lowest id on ties.

        Args:
            top: first row.
            bottom: one past the last row.

        Returns:
            (bottom - top, width) class ids, uint8 up to 256 classes, else uint16.
        """
        num_classes = len(self._planes)
        mask = empty_mask(num_classes, bottom - top, self._size[1])
        if self._suits_opencv(top, bottom, 1):
            # One plane after the other against a running maximum: two planes in memory for any number of classes.
            best, plane = np.empty((2, *self._size), np.float32)
            resized = (_opencv_resize(each, plane if class_id else best) for class_id, each in enumerate(self._planes))
            argmax(resized, num_classes, mask)
        else:
            for start, block in self._blocks(top, bottom):
                argmax(iter(block), num_classes, mask[start - top : start - top + block.shape[1]])
        return mask

    def probabilities(self, top: int, bottom: int) -> npt.NDArray[np.uint8]:
        """The softmax over the classes.

        Args:
            top: first row.
            bottom: one past the last row.

        Returns:
            (num_classes, bottom - top, width) uint8: round(255 · probability).
        """
        num_classes, width = len(self._planes), self._size[1]
        if self._suits_opencv(top, bottom, num_classes):
            planes = np.empty((num_classes, *self._size), np.float32)
            for class_id, plane in enumerate(self._planes):
                _opencv_resize(plane, planes[class_id])
            return softmax(planes)
        probabilities = np.empty((num_classes, bottom - top, width), np.uint8)
        for start, block in self._blocks(top, bottom):
            probabilities[:, start - top : start - top + block.shape[1]] = softmax(block)
        return probabilities

    def planes(self) -> Float32Array:
        """The resized logits themselves.

        Returns:
            (num_classes, height, width) float32, to be read only; the logits' own values if they have this size.
        """
        height, width = self._size
        if self._planes.shape[1:] == self._size:
            return self._planes
        planes = np.empty((len(self._planes), height, width), np.float32)
        for start, block in self._blocks(0, height):
            planes[:, start : start + block.shape[1]] = block
        return planes

    def _suits_opencv(self, top: int, bottom: int, planes: int) -> bool:
        height, width = self._size
        is_whole = (top, bottom) == (0, height) and planes * height * width <= _OPENCV_MAX_PIXELS
        return is_whole and _opencv_is_exact()

    def _blocks(self, top: int, bottom: int) -> Iterator[tuple[int, Float32Array]]:
        """Interpolates rows in blocks that fit a core's cache.

        Yields:
            A block's first row and its planes, (num_classes, rows, width); overwritten by the next block.
        """
        return _interpolated(self._planes, *self._size, top, bottom)


def _interpolated(
    planes: Float32Array, height: int, width: int, top: int, bottom: int
) -> Iterator[tuple[int, Float32Array]]:
    num_classes, source_height, source_width = planes.shape
    left, column_f = _positions(source_width, width)
    # Samples beyond an edge: along a row the edge sample has weight 1, along a column it is both samples. In exact
    # arithmetic that is the same; it rounds as OpenCV does.
    column_f[(left < 0) | (left >= source_width - 1)] = 0
    left = left.clip(0, source_width - 1)
    right = (left + 1).clip(max=source_width - 1)
    left_weight = np.float32(1) - column_f

    @functools.lru_cache(maxsize=2)
    def at_width(row: int) -> Float32Array:
        source = planes[:, min(max(row, 0), source_height - 1)]
        resized: Float32Array = source.take(left, axis=1)
        resized *= left_weight
        resized += source.take(right, axis=1) * column_f
        return resized[:, None]

    upper_rows, row_f = _positions(source_height, height)
    lower_weight = row_f[:, None]
    upper_weight = np.float32(1) - lower_weight
    first_of = np.searchsorted(upper_rows, np.arange(-1, source_height + 1)).tolist()
    block_rows = min(max(4, _BLOCK_VALUES // (num_classes * width)), bottom - top)
    upper, lower = np.empty((2, num_classes, block_rows, width), np.float32)
    for start in range(top, bottom, block_rows):
        end = min(start + block_rows, bottom)
        for row in range(int(upper_rows[start]), int(upper_rows[end - 1]) + 1):
            first, last = max(first_of[row + 1], start), min(first_of[row + 2], end)
            if first < last:
                inside = slice(first - start, last - start)
                np.multiply(at_width(row), upper_weight[first:last], out=upper[:, inside])
                np.multiply(at_width(row + 1), lower_weight[first:last], out=lower[:, inside])
        block = upper[:, : end - start]
        block += lower[:, : end - start]
        yield start, block


def _positions(source: int, target: int) -> tuple[npt.NDArray[np.int64], Float32Array]:
    """Where the centres of a line's target pixels are in its source: the sample before each, and the offset from it.

    Args:
        source: samples in the source.
        target: samples in the target.

    Returns:
        (target,) indices from -1 to source - 1, and (target,) float32 in 0 to 1, with OpenCV's roundings.
    """
    scale = 1.0 / (target / source)
    position = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    before = np.floor(position)
    return before.astype(np.int64), position - before


def _opencv_resize(plane: Float32Array, out: Float32Array) -> Float32Array:
    """Interpolates one plane by OpenCV's own code, which rounds alike on every CPU; Intel's IPP in it does not.

    Planes are resized one by one, because several channels at once are rounded differently.
    """
    height, width = out.shape
    uses_ipp = cv2.ipp.useIPP()  # a switch of each thread
    cv2.ipp.setUseIPP(False)
    try:
        if plane.shape == (2 * height, 2 * width):
            # OpenCV averages over squares if both sides are halved, which rounds differently: one side at a time.
            plane = np.asarray(cv2.resize(plane, (width, 2 * height), interpolation=cv2.INTER_LINEAR), np.float32)
        cv2.resize(plane, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
    finally:
        cv2.ipp.setUseIPP(uses_ipp)
    return out


@functools.cache
def _opencv_is_exact() -> bool:
    """Whether this build of OpenCV rounds as `ResizedLogits` promises; where multiplication and addition are fused, as
    on ARM, it doesn't."""
    # Knuth's multiplicative hash in place of random numbers, whose module takes longer to import than all of this.
    plane = (np.arange(62 * 68, dtype=np.uint32) * np.uint32(2_654_435_761)).astype(np.float32).reshape(62, 68)
    for height, width in ((97, 101), (35, 40), (62, 68), (31, 34), (90, 31)):
        expected = np.concatenate(
            [block[0].copy() for _, block in _interpolated(plane[None], height, width, 0, height)]
        )
        if not np.array_equal(_opencv_resize(plane, np.empty((height, width), np.float32)), expected):
            return False
    return True
