"""What a file that can't be decoded is reported as: the stage, the type and the whole message."""

import io
import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from pipeline.core.decode import DecodedImage, RawMask, decode_image, decode_mask
from pipeline.core.errors import PictureError

DECODERS: dict[str, Callable[[bytes], DecodedImage | RawMask]] = {"decode": decode_image, "truth": decode_mask}


def _encoded(pixels: Any, file_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(content, file_format, **options)
    return content.getvalue()


def _deep_png(color_type: int, channels: int) -> bytes:
    """A PNG of one pixel of 16 bits a channel."""
    rows = zlib.compress(b"\0" + b"\0\1" * channels)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, color_type, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    parts = [struct.pack(">I", len(data)) + name + data for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part + struct.pack(">I", zlib.crc32(part[4:])) for part in parts)


GREY = np.zeros((4, 6), np.uint8)
PNG = _encoded(GREY, "PNG")
NOISE_PNG = _encoded(np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8), "PNG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
COMMENTS = b"GIF89a\1\0\1\0\0\0\0!\xfe" + (b"\xff" + b"c" * 255) * 4_097


def _fault(act: Callable[[], object]) -> tuple[str, str, str]:
    with pytest.raises(PictureError) as caught:
        act()
    return caught.value.stage, caught.value.error_type, caught.value.message


@pytest.mark.parametrize("stage", DECODERS)
@pytest.mark.parametrize(
    ("data", "error_type", "message"),
    [
        (b"", "Empty", "the file is empty"),
        (b"\1" * 100, "NotAPicture", "the content is not a picture format that can be read"),
        (HEIC, "UnsupportedFormat", "HEIC is not supported"),
        (COMMENTS, "MetadataTooLarge", "the comments take more than 1048576 bytes"),
        (NOISE_PNG[:1_000], "Truncated", "the file is cut off: .*[Tt]runcated.*"),
        (_encoded(GREY, "PPM").replace(b"6 4", b"0 4", 1), "NotAPicture", "the content is .+"),
    ],
)
def test_files_that_are_no_picture(stage: str, data: bytes, error_type: str, message: str) -> None:
    found = _fault(partial(DECODERS[stage], data))
    assert found[:2] == (stage, error_type)
    assert re.fullmatch(message, found[2])


@pytest.mark.parametrize("stage", DECODERS)
@pytest.mark.parametrize(
    ("error", "error_type", "message"),
    [
        (ValueError(" a\n  b\t"), "Broken", "the file can't be decoded: a b"),
        (ValueError("x" * 400), "Broken", "the file can't be decoded: " + "x" * 300),
        (ZeroDivisionError(), "Broken", "the file can't be decoded: ZeroDivisionError"),
        (OSError("Truncated File Read"), "Truncated", "the file is cut off: Truncated File Read"),
        (EOFError(), "Truncated", "the file is cut off: EOFError"),
        (MemoryError(), "OutOfMemory", "decoding needs more memory than is available"),
    ],
)
def test_errors_of_pillow(
    monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception, error_type: str, message: str
) -> None:
    def load(_: object) -> None:
        raise error

    for data in (PNG, _encoded(GREY, "BMP")):
        with monkeypatch.context() as patch:
            patch.setattr(ImageFile.ImageFile, "load", load)
            assert _fault(partial(DECODERS[stage], data)) == (stage, error_type, message)


@pytest.mark.parametrize("stage", DECODERS)
def test_pillow_s_own_limit(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 11)
    found = _fault(partial(DECODERS[stage], PNG))
    assert found[:2] == (stage, "TooLarge")
    assert re.fullmatch(r"Image size \(24 pixels\) exceeds limit of 22 pixels, .+", found[2])


@pytest.mark.parametrize("stage", DECODERS)
def test_a_size_above_the_limit(stage: str) -> None:
    found = _fault(lambda: {"decode": decode_image, "truth": decode_mask}[stage](PNG, max_pixels=23))
    assert found == (stage, "TooLarge", "6x4 px is more than --max_pixels 23 and was not decoded")


def test_masks_that_can_not_hold_labels() -> None:
    deep = "a mask of several 16-bit channels can't be read; 16-bit grey can"
    for data, message in (
        (_deep_png(2, 3), deep),
        (_deep_png(4, 2), deep),
        (b"P5 3 1 2\n\0\1\2", "a mask of maximum 2 can't be read; 255 and grey of 65535 can"),
        (b"P2 3 1 254\n0 1 2\n", "a mask of maximum 254 can't be read; 255 and grey of 65535 can"),
        (b"P5 1 1 65534\n\0\1", "a mask of maximum 65534 can't be read; 255 and grey of 65535 can"),
        (_encoded(np.ones((2, 2), np.float32), "TIFF"), "a mask can't be stored as Pillow mode F"),
        (_encoded(Image.new("CMYK", (2, 2)), "TIFF"), "a mask can't be stored as Pillow mode CMYK"),
    ):
        assert _fault(partial(decode_mask, data)) == ("truth", "NotAMask", message)


def test_a_mask_of_another_size_names_width_before_height() -> None:
    found = _fault(lambda: decode_mask(PNG, expected_size=(5, 7)))
    assert found == ("truth", "SizeMismatch", "the mask is 6x4 px, its picture 5x7 px")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 65_535], np.uint16),
        ([1, 65_535], np.uint16),
        ([-1, 65_535], np.int32),
        ([-70_000, -1], np.int32),
    ],
)
def test_grey_of_32_bits_holds_labels_of_16(values: list[int], dtype: type) -> None:
    raw = decode_mask(_encoded(np.array([values], np.int32), "TIFF"))
    assert (raw.values.dtype, raw.is_color) == (dtype, False)
    assert raw.values.tolist() == [values]


def test_grey_of_32_bits_above_16_is_refused() -> None:
    for low, high in ((0, 65_536), (-3, 2_000_000)):
        data = _encoded(np.array([[low, high]], np.int32), "TIFF")
        message = f"mask values from {low} to {high} are not 16-bit labels"
        assert _fault(partial(decode_mask, data)) == ("truth", "UnknownLabels", message)


@pytest.mark.parametrize(
    ("picture", "is_color"),
    [
        (Image.new("1", (3, 2), 1), False),
        (Image.new("L", (3, 2), 1), False),
        (Image.new("P", (3, 2), 1), False),
        (Image.new("LA", (3, 2), (1, 200)), False),
        (Image.new("RGB", (3, 2), (0, 0, 1)), True),
        (Image.new("RGBA", (3, 2), (0, 0, 1, 200)), True),
        (Image.new("RGBX", (3, 2), (0, 0, 1, 200)), True),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_masks_of_every_mode_hold_whole_numbers(picture: Image.Image, is_color: bool) -> None:
    raw = decode_mask(_encoded(picture, "TIFF"))
    assert (raw.values.dtype, raw.is_color) == (np.uint32 if is_color else np.uint8, is_color)
    assert raw.values.tolist() == [[1, 1, 1]] * 2


def test_grey_of_few_bits_stays_whole_numbers() -> None:
    rows = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0), zlib.compress(b"\0\x1b")
    chunks = ((b"IHDR", rows[0]), (b"IDAT", rows[1]), (b"IEND", b""))
    parts = [struct.pack(">I", len(data)) + name + data for name, data in chunks]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(part + struct.pack(">I", zlib.crc32(part[4:])) for part in parts)
    raw = decode_mask(png)
    assert raw.values.dtype == np.uint8
    assert raw.values.tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("stage", DECODERS)
@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels(stage: str, width: int, height: int) -> None:
    webp = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0" + b"\0" * 6 + struct.pack("<HH", width, height) + bytes(20)
    expected = (stage, "NoPixels", f"the picture is {width}x{height} px")
    assert _fault(partial(DECODERS[stage], webp)) == expected


def test_a_broken_exif_block_leaves_the_picture_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def getexif(_: object) -> None:
        raise SyntaxError("not a TIFF file")

    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    data = _encoded(pixels, "PNG")
    monkeypatch.setattr(Image.Image, "getexif", getexif)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.getexif", getexif)
    decoded = decode_image(data)
    assert decoded.orientation == 1
    np.testing.assert_array_equal(decoded.pixels, pixels)


@pytest.mark.parametrize("stage", DECODERS)
def test_broken_pixels_of_a_png_are_no_black_picture(stage: str) -> None:
    """Pillow decodes the pixels to look for EXIF behind them, where the error could be taken for broken EXIF."""
    start = NOISE_PNG.index(b"IDAT")
    (length,) = struct.unpack(">I", NOISE_PNG[start - 4 : start])
    body = b"IDAT" + NOISE_PNG[start + 4 : start + 4 + length // 2] + bytes(length - length // 2)
    broken = NOISE_PNG[:start] + body + struct.pack(">I", zlib.crc32(body)) + NOISE_PNG[start + 8 + length :]
    assert _fault(partial(DECODERS[stage], broken))[0] == stage


def _tiled_tiff(width: int, length: int) -> bytes:
    """A grey TIFF of 6x4 px in one tile of a given size, whose pixels are missing."""
    tags = {256: 6, 257: 4, 258: 8, 259: 1, 262: 1, 277: 1, 322: width, 323: length, 324: 8, 325: 24}
    table = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + table + bytes(4)


@pytest.mark.parametrize("stage", DECODERS)
def test_the_tiles_of_a_tiff_count_as_its_size(stage: str) -> None:
    decode = {"decode": decode_image, "truth": decode_mask}[stage]
    found = _fault(lambda: decode(_tiled_tiff(304, 16), max_pixels=304 * 16 - 1))
    assert found == (stage, "TooLarge", "304x16 px is more than --max_pixels 4863 and was not decoded")
    # Within the limit the tile is read, and its pixels are missing.
    assert _fault(lambda: decode(_tiled_tiff(304, 16), max_pixels=304 * 16))[1] != "TooLarge"


@pytest.mark.parametrize("stage", DECODERS)
def test_a_jpeg_of_thousands_of_scans(stage: str) -> None:
    jpeg = _encoded(GREY, "JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    large = jpeg[:frame] + struct.pack(">HH", 8_192, 8_192) + jpeg[frame + 4 :]
    found = _fault(partial(DECODERS[stage], large + (b"\xff\xda" + bytes(8)) * 64))
    message = "the picture has so many scans that decoding would take minutes"
    assert found == (stage, "TooManyScans", message)
