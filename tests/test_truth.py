"""Ground truth in class ids: of its picture's size and orientation, and no larger than allowed."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.core import decode
from pipeline.core.errors import PictureError
from pipeline.core.labels import LabelMap
from pipeline.core.raster import RasterInfo
from pipeline.core.truth import Labels, decode_truth

LABELS = Labels(LabelMap.parse("10=0,20=1,30=2"), 3, 255)
VALUES = np.random.default_rng(0).choice(np.array([10, 20, 30, 255], np.uint8), (7, 11))
CLASS_IDS = np.select([VALUES == 10, VALUES == 20, VALUES == 30], [0, 1, 2], 3)


def png(values: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def test_values_become_class_ids() -> None:
    class_ids = decode_truth(png(VALUES), RasterInfo(7, 11, 3), LABELS)
    assert class_ids.dtype == np.uint8
    assert np.array_equal(class_ids, CLASS_IDS)


def test_a_mask_drawn_on_the_sensors_grid_is_turned_like_its_picture() -> None:
    assert np.array_equal(
        decode_truth(png(VALUES), RasterInfo(11, 7, 3, orientation=6), LABELS), np.rot90(CLASS_IDS, -1)
    )


@pytest.mark.parametrize(
    ("values", "info", "error_type"),
    [
        (VALUES, RasterInfo(7, 12, 3), "SizeMismatch"),
        (VALUES, RasterInfo(11, 7, 3), "SizeMismatch"),
        (np.full((7, 11), 40, np.uint8), RasterInfo(7, 11, 3), "UnknownLabels"),
    ],
)
def test_what_does_not_fit_is_a_failure_of_the_truth(
    values: npt.NDArray[np.uint8], info: RasterInfo, error_type: str
) -> None:
    with pytest.raises(PictureError) as caught:
        decode_truth(png(values), info, LABELS)
    assert (caught.value.stage, caught.value.error_type) == ("truth", error_type)


def test_a_mask_above_the_limit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(decode, "_raw_values", refuse)
    with pytest.raises(PictureError) as caught:
        decode_truth(png(VALUES), RasterInfo(7, 11, 3), LABELS, max_pixels=76)
    assert (caught.value.stage, caught.value.error_type) == ("truth", "TooLarge")
