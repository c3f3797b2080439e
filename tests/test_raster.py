"""A picture by windows: equal to the decoded whole, and nothing decoded before it is asked for."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.core import decode
from pipeline.core.decode import decode_image
from pipeline.core.errors import PictureError
from pipeline.core.raster import ArrayRaster, RasterInfo, open_raster
from pipeline.core.strips import Window

PIXELS = np.random.default_rng(1).integers(0, 256, (30, 45, 3), dtype=np.uint8)


def encoded(form: str, pixels: np.ndarray = PIXELS, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def turned(form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(form, exif=exif)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP"]), st.sampled_from([1, 3]), st.sampled_from([1, 3, 6]))
def test_windows_are_parts_of_the_whole(data: st.DataObject, form: str, channels: int, orientation: int) -> None:
    content = turned(form, orientation)
    whole = decode_image(content, channels=channels).pixels
    raster = open_raster(content, channels=channels)
    height, width = whole.shape[:2]
    assert raster.info == RasterInfo(height, width, channels, orientation=orientation)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    expected = whole[top : top + window.height, left : left + window.width]
    np.testing.assert_array_equal(raster.read(window), expected)
    np.testing.assert_array_equal(ArrayRaster(whole, orientation).read(window), expected)
    assert ArrayRaster(whole, orientation).info == raster.info


def test_a_raster_of_pixels_in_memory_knows_their_type() -> None:
    pixels = np.zeros((3, 5, 4), np.uint16)
    plain = ArrayRaster(pixels)
    assert plain.info == RasterInfo(3, 5, 4, "uint16", orientation=1, unused=())
    assert plain.decoded_bytes == 3 * 5 * 4 * 2
    assert ArrayRaster(pixels, 6, ("alpha",)).info == RasterInfo(3, 5, 4, "uint16", orientation=6, unused=("alpha",))


def test_unused_parts_of_a_file_are_reported() -> None:
    transparent = np.full((4, 4, 4), 128, np.uint8)
    assert open_raster(encoded("PNG", transparent)).info.unused == ("alpha",)
    assert open_raster(encoded("PNG")).info.unused == ()


def test_the_size_is_known_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded too early")

    flat = encoded("JPEG", np.full((3000, 4000, 3), 7, np.uint8))
    monkeypatch.setattr(decode.OpenedImage, "decode", refuse)
    raster = open_raster(flat)
    assert len(flat) < 300_000
    assert raster.decoded_bytes == 3000 * 4000 * 10  # four of Pillow's, and twice three of the array
    assert open_raster(flat, channels=1).decoded_bytes == 3000 * 4000 * 6


@pytest.mark.parametrize(
    ("damage", "error_type"),
    [(lambda data: b"", "Empty"), (lambda data: b"no picture", "NotAPicture"), (lambda data: data, "TooLarge")],
)
def test_what_the_header_shows_is_refused_on_opening(damage: Callable[[bytes], bytes], error_type: str) -> None:
    with pytest.raises(PictureError) as caught:
        open_raster(damage(encoded("PNG")), max_pixels=30 * 45 - 1)
    assert (caught.value.stage, caught.value.error_type) == ("decode", error_type)


def test_what_only_the_pixels_show_is_raised_on_reading() -> None:
    raster = open_raster(encoded("PNG")[:-200])
    with pytest.raises(PictureError) as caught:
        raster.read(Window(0, 0, 1, 1))
    assert caught.value.error_type == "Truncated"


def test_a_closed_raster_holds_no_pixels() -> None:
    raster = open_raster(encoded("PNG"))
    kept = raster.read(Window(0, 0, 30, 45))
    info = raster.info
    raster.close()
    raster.close()
    assert raster.info == info
    assert kept.sum() == PIXELS.sum()
    never_read = open_raster(encoded("PNG"))
    never_read.close()
    for closed in (raster, never_read):
        with pytest.raises(ValueError, match="closed"):
            closed.read(Window(0, 0, 1, 1))
