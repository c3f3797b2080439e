"""From a picture's pixels to a model's input: one definition for training, the job, `predict` and `evaluate`."""

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.resize import resize_image
from pipeline.core.spec import InputSpec

ModelInput = npt.NDArray[np.uint8] | npt.NDArray[np.float32]


def model_input(pixels: npt.NDArray[np.uint8], spec: InputSpec) -> ModelInput:
    """Converts one window of a picture to a model's input.

    In order: the number of bands is checked, the window is resized to the model's size by
    `pipeline.core.resize.resize_image`, 0 to 255 is scaled to the model's range, and the dtype becomes the model's.

    Args:
        pixels: (h, w, bands) uint8; upright.
        spec: the model's input.

    Returns:
        (height, width, channels) of the model's dtype and range; it may share memory with the pixels.

    Raises:
        PictureError: stage `decode`, type `WrongBands`; the picture has another number of bands than the model.
    """
    bands = pixels.shape[2]
    if bands != spec.channels:
        raise PictureError(
            "decode", ErrorType.WRONG_BANDS, f"the picture has {bands} bands and the model takes {spec.channels}"
        )
    resized = resize_image(pixels, spec.height, spec.width)
    if spec.dtype == "uint8":
        return resized
    low, high = spec.value_range
    return (resized * np.float32((high - low) / 255.0) + np.float32(low)).astype(np.float32)
