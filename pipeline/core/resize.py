"""The two resizes of a picture's way, and that of a mask in training: one definition for training and serving."""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core.labels import ClassIds

# One picture is one thread's work; OpenCV's own threads would fight the engine's for the same cores.
cv2.setNumThreads(1)


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
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.intp)
    return mask[rows[:, None], columns[None, :]]


def mask_from_logits(logits: npt.NDArray[np.float32], height: int, width: int) -> ClassIds:
    """Brings logits to the picture's size (bilinear, half-pixel centres) and takes the largest, the lowest id on ties.

    The planes are enlarged one after the other against a running maximum, so memory holds two of them whatever the
    number of classes.

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
    best = _enlarge(planes[0], height, width)
    mask = np.zeros((height, width), dtype)
    for class_id in range(1, num_classes):
        plane = _enlarge(planes[class_id], height, width)
        mask[plane > best] = class_id
        if class_id + 1 < num_classes:
            np.maximum(best, plane, out=best)
    return mask


def _enlarge(plane: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    if plane.shape == (height, width):
        return plane.copy()
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
