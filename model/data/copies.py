"""Pictures of different files that show the same: copies that were encoded again or resized.

They are recognised by small grey thumbnails, which hardly change then. Equal files are found by their digests
(`pipeline.core.split_digests`).
"""

import numpy as np
import numpy.typing as npt

from pipeline.core.resize import resize_image

Thumbnail = npt.NDArray[np.float32]

MIN_CORRELATION = 0.97
"""Thumbnails that correlate at least so much show the same.

Different pictures of Oxford-IIIT Pet and of nuclei correlate by at most 0.86; of their copies at least 98 % are
recognised (tests/benchmarks/copies.py).
"""

_SIDE = 16
_MIN_CONTRAST = 1.0
"""Grey levels: a picture with a smaller standard deviation is flat, and like every other flat one."""
_ROWS_AT_ONCE = 256
"""At most 100 MB of correlations with 100,000 pictures are in memory."""


def thumbnail(image: npt.NDArray[np.uint8]) -> Thumbnail:
    """A picture as a vector of which products are correlations.

    Args:
        image: (H, W, C) uint8.

    Returns:
        (256,) float32 of mean 0 and length 1; zeros for a flat picture, which is like no other.
    """
    grey = resize_image(image, _SIDE, _SIDE).mean(axis=2).ravel()
    centred = grey - grey.mean()
    if centred.std() < _MIN_CONTRAST:
        return np.zeros(_SIDE * _SIDE, np.float32)
    return np.asarray(centred / np.linalg.norm(centred), np.float32)


def copies_of(found: Thumbnail, originals: Thumbnail) -> npt.NDArray[np.int64]:
    """For each picture the one that it looks like a copy of.

    Args:
        found: (n, 256) thumbnails.
        originals: (m, 256) thumbnails.

    Returns:
        (n,) int64 numbers of originals, -1 where there is none.
    """
    numbers = np.full(len(found), -1, np.int64)
    if not len(originals):
        return numbers
    for start in range(0, len(found), _ROWS_AT_ONCE):
        correlation = found[start : start + _ROWS_AT_ONCE] @ originals.T
        best = correlation.argmax(axis=1)
        is_copy = correlation[np.arange(len(best)), best] >= MIN_CORRELATION
        numbers[start : start + len(best)] = np.where(is_copy, best, -1)
    return numbers
