"""From a mask's file to the class ids of a ground truth."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.core.errors import PictureError
from pipeline.core.labels import LabelMap
from pipeline.core.raster import RasterInfo
from pipeline.core.truth import Labels, decode_truth

LABELS = Labels(LabelMap({1: 0, 2: 1}, {}), 2, 255)
MASK = np.array([[1, 2, 255], [2, 2, 1]], np.uint8)


def _png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _info(height: int, width: int, orientation: int = 1) -> RasterInfo:
    return RasterInfo(height, width, 3, orientation=orientation)


def test_values_become_class_ids() -> None:
    assert decode_truth(_png(MASK), _info(2, 3), LABELS).tolist() == [[0, 1, 2], [1, 1, 0]]


def test_a_mask_stored_as_its_picture_is_turned_with_it() -> None:
    # The picture is upright at 3x2 px after a quarter turn, and the mask was drawn over the stored pixels.
    turned = decode_truth(_png(MASK), _info(3, 2, orientation=6), LABELS)
    assert turned.tolist() == np.rot90([[0, 1, 2], [1, 1, 0]], -1).tolist()


@pytest.mark.parametrize(
    ("data", "info", "max_pixels", "error_type"),
    [
        (_png(MASK), _info(2, 4), None, "SizeMismatch"),
        (_png(MASK), _info(2, 3), 5, "TooLarge"),
        (_png(MASK * 0), _info(2, 3), None, "UnknownLabels"),
        (b"", _info(2, 3), None, "Empty"),
    ],
)
def test_faults_are_of_the_truth(data: bytes, info: RasterInfo, max_pixels: int | None, error_type: str) -> None:
    with pytest.raises(PictureError) as caught:
        decode_truth(data, info, LABELS, max_pixels=max_pixels)
    assert (caught.value.stage, caught.value.error_type) == ("truth", error_type)


def test_a_mask_at_the_limit_is_decoded() -> None:
    assert decode_truth(_png(MASK), _info(2, 3), LABELS, max_pixels=6).shape == (2, 3)
