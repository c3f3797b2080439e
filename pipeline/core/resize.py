"""The two resizes of a picture's way, and that of a mask in training: one definition for training and serving."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core.labels import ClassIds

# One picture is one thread's work; OpenCV's own threads would fight the engine's for the same cores.
cv2.setNumThreads(1)

# glibc gives blocks above a threshold back to the kernel when they are freed, and raises the threshold to the largest
# block that it saw freed, up to 32 MiB. A picture's planes taken anew from the kernel each time cost more in page
# faults than all of their arithmetic (1.0 ms for 0.23 ms at 475x475). So it sees one such block, whose pages are
# never touched, before the first picture; other allocators don't care.
np.empty(31 << 20, np.uint8)


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
        (height, width) of the same dtype; no value that was not there.
    """
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    resized: ClassIds = mask[rows[:, None], columns[None, :]]
    return resized


def mask_from_logits(logits: npt.NDArray[np.float32], height: int, width: int) -> ClassIds:
    """Brings logits to the picture's size (bilinear, half-pixel centres) and takes the largest, the lowest id on ties.

    The planes are enlarged one after the other against a running maximum, so memory holds two of them whatever the
    number of classes. OpenCV's planar resize is taken, never that of several channels at once: it rounds otherwise.

    Args:
        logits: (h, w, num_classes) float32.
        height: the picture's height, px.
        width: the picture's width, px.

    Returns:
        (height, width) class ids, uint8 up to 256 classes, else uint16.
    """
    num_classes = logits.shape[2]
    dtype = np.uint8 if num_classes <= 256 else np.uint16
    planes = np.ascontiguousarray(logits.transpose(2, 0, 1))
    best = np.empty((height, width), np.float32)
    plane = np.empty_like(best)
    larger = np.empty((height, width), np.bool_)
    wins = np.empty((height, width), dtype)
    mask = np.zeros((height, width), dtype)
    _enlarge(planes[0], best)
    for class_id in range(1, num_classes):
        _enlarge(planes[class_id], plane)
        np.greater(plane, best, out=larger)
        # Ids ascend, so the larger id is the later winner: a product and a maximum cost a tenth of an assignment by
        # a boolean index.
        np.multiply(larger.view(np.uint8), dtype(class_id), out=wins)
        np.maximum(mask, wins, out=mask)
        if class_id + 1 < num_classes:
            np.maximum(best, plane, out=best)
    return mask


def probabilities_from_logits(logits: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Brings logits to the picture's size as `mask_from_logits` does, and takes their softmax.

    Args:
        logits: (h, w, num_classes) float32.
        height: the picture's height, px.
        width: the picture's width, px.

    Returns:
        (num_classes, height, width) uint8: round(255 · probability).
    """
    num_classes = logits.shape[2]
    planes = np.ascontiguousarray(logits.transpose(2, 0, 1))
    large = np.empty((num_classes, height, width), np.float32)
    for class_id in range(num_classes):
        _enlarge(planes[class_id], large[class_id])
    large -= large.max(axis=0)
    np.exp(large, out=large)
    large *= np.float32(255.0) / large.sum(axis=0)
    return np.rint(large, out=large).astype(np.uint8)


def _enlarge(plane: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None:
    height, width = out.shape
    cv2.resize(plane, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)
