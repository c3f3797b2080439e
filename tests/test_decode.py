"""Every format, depth, orientation and fault of a file that decode must answer for."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFile

from pipeline.core.decode import RawMask, decode_image, decode_mask, has_picture_ending
from pipeline.core.errors import PictureError

Pixels = npt.NDArray[np.uint8]

# What the EXIF standard's table says of tag 0x0112, written with numpy alone.
UPRIGHT: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def _random(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _smooth(height: int, width: int) -> Pixels:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 // height, columns * 255 // width, 40 + 0 * rows], axis=-1).astype(np.uint8)


def _encode(picture: Image.Image | npt.NDArray[Any], file_format: str, orientation: int = 1, **options: Any) -> bytes:
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def _png(width: int, height: int, depth: int, color_type: int, rows: list[bytes], *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand, for depths that Pillow doesn't write."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)), *extra]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _fault(call: Callable[[], object]) -> PictureError:
    with pytest.raises(PictureError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ],
)
def test_every_orientation_becomes_upright(file_format: str, options: dict[str, Any], orientation: int) -> None:
    on_sensor = _smooth(24, 40)
    decoded = decode_image(_encode(on_sensor, file_format, orientation, **options))
    expected = UPRIGHT[orientation](on_sensor)
    assert decoded.orientation == orientation
    assert decoded.pixels.shape == expected.shape
    tolerance = 3 if file_format == "JPEG" else 0
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= tolerance


def test_an_orientation_behind_the_pixels_of_a_png_counts() -> None:
    plain = _encode(_random(3, 5, 3), "PNG")
    turned = _encode(_random(3, 5, 3), "PNG", 6)
    start = turned.index(b"eXIf") - 4
    (length,) = struct.unpack(">I", turned[start : start + 4])
    late = plain[:-12] + turned[start : start + 12 + length] + plain[-12:]
    assert decode_image(late).pixels.shape == (5, 3, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_none(value: int) -> None:
    assert decode_image(_encode(_random(3, 5, 3), "PNG", value)).orientation == 1


def test_broken_exif_does_not_cost_the_picture() -> None:
    pixels = _smooth(16, 20)
    for block in (b"MM\0*garbage!!", bytes(range(256)), b"", b"II*\0\xff\xff\xff\x7f"):
        data = _encode(pixels, "JPEG", exif=b"Exif\0\0" + block, quality=95)
        assert decode_image(data).pixels.shape == (16, 20, 3)
        assert decode_image(data).orientation == 1


def test_the_content_decides_the_format() -> None:
    # No name reaches the decoder, so a GIF or a PNG named .jpg is what it is.
    flat = np.full((6, 9, 3), (200, 30, 10), np.uint8)
    for file_format in ("GIF", "PNG", "BMP", "PPM", "TGA", "PCX"):
        np.testing.assert_array_equal(decode_image(_encode(flat, file_format)).pixels, flat)


@pytest.mark.parametrize(
    ("file_format", "options", "tolerance"),
    [
        ("JPEG", {"quality": 95, "progressive": True}, 6),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("JPEG2000", {}, 3),
        ("AVIF", {"quality": 95}, 12),
    ],
)
def test_formats_of_colour(file_format: str, options: dict[str, Any], tolerance: int) -> None:
    pixels = _smooth(32, 48)
    decoded = decode_image(_encode(pixels, file_format, **options)).pixels
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - pixels).max() <= tolerance


def test_palettes_and_alpha_give_the_colours_without_alpha() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, 3:] = (250, 10, 20)
    indexed = Image.fromarray(pixels).quantize(4)
    np.testing.assert_array_equal(decode_image(_encode(indexed, "PNG")).pixels, pixels)
    np.testing.assert_array_equal(decode_image(_encode(indexed, "PNG", transparency=0)).pixels, pixels)
    np.testing.assert_array_equal(decode_image(_encode(indexed, "PNG", transparency=bytes([0, 128]))).pixels, pixels)
    alpha = np.zeros((4, 6, 1), np.uint8)
    np.testing.assert_array_equal(decode_image(_encode(np.concatenate([pixels, alpha], 2), "PNG")).pixels, pixels)
    grey_alpha = np.stack([pixels[..., 0], alpha[..., 0]], axis=-1)
    grey = decode_image(_encode(Image.fromarray(grey_alpha, "LA"), "PNG")).pixels
    np.testing.assert_array_equal(grey, np.repeat(pixels[..., :1], 3, axis=2))


def test_sixteen_bits_become_eight() -> None:
    values = np.array([[0, 128, 129, 257, 32767, 32896, 65406, 65407, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for file_format in ("PNG", "TIFF"):
        pixels = decode_image(_encode(values, file_format)).pixels
        np.testing.assert_array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))
    big_endian = Image.frombytes("I;16B", (9, 1), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(decode_image(_encode(big_endian, "TIFF")).pixels[..., 0], expected)
    thirty_two = np.array([[-5, 0, 65535, 1_000_000]], np.int32)
    np.testing.assert_array_equal(decode_image(_encode(thirty_two, "TIFF")).pixels[0, :, 0], [0, 0, 255, 255])


def test_sixteen_bit_colour_keeps_its_high_byte() -> None:
    row = b"".join(struct.pack(">3H", 256 * i, 65535, 0) for i in range(3))
    pixels = decode_image(_png(3, 1, 16, 2, [row])).pixels
    np.testing.assert_array_equal(pixels[0], [[0, 255, 0], [1, 255, 0], [2, 255, 0]])


@pytest.mark.parametrize("orientation", [2, 6, 7])
def test_deep_grey_is_turned_too(orientation: int) -> None:
    values = (np.arange(15, dtype=np.uint16) * 257).reshape(3, 5)
    for file_format in ("PNG", "TIFF"):
        pixels = decode_image(_encode(values, file_format, orientation), channels=1).pixels[..., 0]
        np.testing.assert_array_equal(pixels, UPRIGHT[orientation](values // 257))


def test_float_grey_is_zero_to_one() -> None:
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 7.0, np.nan, np.inf, -np.inf]], np.float32)
    pixels = decode_image(_encode(values, "TIFF"), channels=1).pixels[0, :, 0]
    np.testing.assert_array_equal(pixels, [0, 0, 128, 255, 255, 0, 255, 0])


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "1", "RGBA"])
def test_other_colour_spaces_become_rgb_or_luma(mode: str) -> None:
    picture = Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).convert(mode)
    file_format = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    data = _encode(picture, file_format)
    for channels in (1, 3):
        decoded = decode_image(data, channels=channels).pixels
        assert decoded.shape == (8, 8, channels)
        assert decoded.min() >= 254


def test_lab_becomes_rgb_and_luma() -> None:
    picture = Image.frombytes("LAB", (2, 1), bytes([255, 0, 0, 0, 0, 0]))
    data = _encode(picture, "TIFF")
    assert decode_image(data).pixels[0, 0].min() >= 250
    assert decode_image(data, channels=1).pixels[0, 1, 0] <= 5


def test_luma_weights() -> None:
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_array_equal(decode_image(_encode(pixels, "PNG"), channels=1).pixels[0, :, 0], [76, 150, 29])
    with pytest.raises(ValueError, match="channels"):
        decode_image(b"x", channels=2)


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_of_several_frames(file_format: str) -> None:
    first, second = (Image.new("RGB", (5, 4), color) for color in ((255, 0, 0), (0, 0, 255)))
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = _encode(first, file_format, save_all=True, append_images=[second], **options)
    np.testing.assert_array_equal(decode_image(data).pixels, np.asarray(first))


@pytest.mark.parametrize(
    ("data", "error_type"),
    [
        (b"", "Empty"),
        (b"\0" * 500, "NotAPicture"),
        (_random(4000).tobytes(), "NotAPicture"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "NotAPicture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n", "NotAPicture"),
    ],
)
def test_what_is_no_picture(data: bytes, error_type: str) -> None:
    fault = _fault(lambda: decode_image(data))
    assert (fault.stage, fault.error_type) == ("decode", error_type)
    assert fault.message
    assert "\n" not in fault.message
    assert _fault(lambda: decode_mask(data)).stage == "truth"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "JPEG2000"])
def test_cut_off_files_fail_and_never_come_half_grey(file_format: str) -> None:
    data = _encode(_random(64, 64, 3), file_format)
    for share in (0.3, 0.6, 0.9):
        fault = _fault(partial(decode_image, data[: int(len(data) * share)]))
        assert fault.stage == "decode"
        assert fault.error_type in ("Truncated", "Broken", "NotAPicture")
    if file_format in ("JPEG", "PNG", "BMP"):
        assert _fault(lambda: decode_image(data[: len(data) // 2])).error_type == "Truncated"


def test_no_bytes_raise_anything_but_picture_errors() -> None:
    rng = np.random.default_rng(5)
    for file_format in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        whole = np.frombuffer(_encode(_smooth(20, 30), file_format), np.uint8)
        for _ in range(40):
            broken = whole.copy()
            broken[rng.integers(0, broken.size, 8)] = rng.integers(0, 256, 8)
            for decode in (decode_image, decode_mask):
                with contextlib.suppress(PictureError):
                    decode(broken.tobytes(), max_pixels=1_000_000)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_load(*_: object) -> None:
        raise AssertionError("the picture was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_load)
    bomb = _png(60_000, 60_000, 8, 2, [b""])
    fault = _fault(lambda: decode_image(bomb))
    assert (fault.stage, fault.error_type) == ("decode", "TooLarge")
    assert "60000x60000" in fault.message
    assert _fault(lambda: decode_mask(bomb)).stage == "truth"
    assert _fault(lambda: decode_image(_encode(_random(10, 11, 3), "PNG"), max_pixels=109)).error_type == "TooLarge"


def test_a_bomb_within_an_icon_is_refused() -> None:
    png = _png(60_000, 60_000, 8, 2, [b""])
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22) + png
    assert _fault(lambda: decode_image(icon)).error_type == "TooLarge"


def test_the_limit_counts_pixels_and_can_be_lifted() -> None:
    data = _encode(_random(10, 11, 3), "PNG")
    assert decode_image(data, max_pixels=110).pixels.shape == (10, 11, 3)
    assert decode_image(data, max_pixels=None).pixels.shape == (10, 11, 3)


@pytest.mark.parametrize(
    ("name", "is_picture"),
    [
        ("a/b.JPG", True),
        ("b.TiFF", True),
        ("x.y.webp", True),
        ("a.txt", False),
        ("jpg", False),
        (".jpg", False),
        ("a/._b.jpg", False),
        ("a.jpg/b", False),
    ],
)
def test_endings(name: str, is_picture: bool) -> None:
    assert has_picture_ending(name) is is_picture


def _values(raw: RawMask, is_color: bool = False) -> npt.NDArray[Any]:
    assert raw.is_color is is_color
    return raw.values


def test_grey_masks_keep_their_values() -> None:
    small = _random(7, 5)
    np.testing.assert_array_equal(_values(decode_mask(_encode(small, "PNG"))), small)
    deep = np.random.default_rng(1).integers(0, 65536, (7, 5)).astype(np.uint16)
    for file_format in ("PNG", "TIFF"):
        raw = decode_mask(_encode(deep, file_format))
        assert _values(raw).dtype == np.uint16
        np.testing.assert_array_equal(raw.values, deep)
    one_bit = small > 127
    for file_format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(_values(decode_mask(_encode(one_bit, file_format))), one_bit)
    np.testing.assert_array_equal(decode_mask(b"P5 3 1 65535\n\0\0\0\1\1\0").values, [[0, 1, 256]])
    np.testing.assert_array_equal(decode_mask(b"P2 3 1 65535\n0 1 256\n").values, [[0, 1, 256]])
    np.testing.assert_array_equal(decode_mask(b"P1 3 1\n0 1 0\n").values, [[1, 0, 1]])
    np.testing.assert_array_equal(decode_mask(b"P2 3 1 255\n0 1 255\n").values, [[0, 1, 255]])
    alpha = np.stack([small, small[::-1]], axis=-1)
    np.testing.assert_array_equal(_values(decode_mask(_encode(Image.fromarray(alpha, "LA"), "PNG"))), small)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("transparency", [None, 0])
def test_palette_masks_give_indices_at_every_depth(bits: int, transparency: int | None) -> None:
    indices = np.random.default_rng(bits).integers(0, 2**bits, (9, 13)).astype(np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette(_random(3 * 2**bits, seed=7).tobytes())
    options = {"bits": bits} | ({} if transparency is None else {"transparency": transparency})
    data = _encode(picture, "PNG", **options)
    assert data[24] == bits
    np.testing.assert_array_equal(_values(decode_mask(data)), indices)
    if transparency is None:
        np.testing.assert_array_equal(_values(decode_mask(_encode(picture, "BMP"))), indices)


def _packed(values: Pixels, bits: int, *, reverse: bool = False) -> list[bytes]:
    """Rows of so many bits a value, each filled up to whole bytes; reversed, the first value has the lowest bits."""
    rows = []
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        octets = [text[at : at + 8] for at in range(0, len(text), 8)]
        rows.append(bytes(int(octet[::-1] if reverse else octet, 2) for octet in octets))
    return rows


def _grey_tiff(values: Pixels, bits: int, *, white_is_zero: bool, reverse: bool) -> bytes:
    """An uncompressed grey TIFF of few bits a value."""
    height, width = values.shape
    data = b"".join(_packed(values, bits, reverse=reverse))
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 266: 2 if reverse else 1}
    tags |= {273: 8 + 2 + 12 * 10 + 4, 277: 1, 278: height, 279: len(data)}
    table = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<LH", 8, len(tags)) + table + bytes(4) + data


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_hold_what_was_written(bits: int) -> None:
    most = 2**bits - 1
    values = np.random.default_rng(bits).integers(0, most + 1, (9, 13)).astype(np.uint8)
    png = _png(13, 9, bits, 0, _packed(values, bits))
    np.testing.assert_array_equal(_values(decode_mask(png)), values)
    # A level of a picture is a brightness, of which 15 of 15 is all there is.
    np.testing.assert_array_equal(decode_image(png, channels=1).pixels[..., 0], values * (255 // most))
    for reverse in (False, True):
        tiff = _grey_tiff(values, bits, white_is_zero=False, reverse=reverse)
        np.testing.assert_array_equal(_values(decode_mask(tiff)), values)
        # Levels of grey count from black, as they do in a TIFF of eight bits whose zero is white.
        inverted = _grey_tiff(values, bits, white_is_zero=True, reverse=reverse)
        np.testing.assert_array_equal(_values(decode_mask(inverted)), most - values)
    turned = _png(13, 9, bits, 0, _packed(values, bits), (b"eXIf", _exif(3)))
    np.testing.assert_array_equal(_values(decode_mask(turned)), values[::-1, ::-1])


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_colour_masks_pack_their_colours() -> None:
    pixels = np.array([[[255, 0, 16], [1, 2, 3]]], np.uint8)
    expected = [[0xFF0010, 0x010203]]
    raw = decode_mask(_encode(pixels, "PNG"))
    assert _values(raw, True).dtype == np.uint32
    np.testing.assert_array_equal(raw.values, expected)
    alpha = np.concatenate([pixels, [[[0], [9]]]], axis=2).astype(np.uint8)
    np.testing.assert_array_equal(_values(decode_mask(_encode(alpha, "PNG")), True), expected)


def test_masks_of_other_kinds_are_refused() -> None:
    floats = np.ones((2, 2), np.float32)
    assert _fault(lambda: decode_mask(_encode(floats, "TIFF"))).error_type == "NotAMask"
    assert _fault(lambda: decode_mask(_encode(Image.new("CMYK", (2, 2)), "TIFF"))).error_type == "NotAMask"
    # Read as 8 bits, the labels 0, 1, 2 would all become 0.
    row = b"".join(struct.pack(">3H", i, i, i) for i in range(3))
    assert _fault(lambda: decode_mask(_png(3, 1, 16, 2, [row]))).error_type == "NotAMask"
    grey_alpha = b"".join(struct.pack(">2H", i, 65535) for i in range(3))
    assert _fault(lambda: decode_mask(_png(3, 1, 16, 4, [grey_alpha]))).error_type == "NotAMask"
    for rescaled in (b"P5 3 1 2\n\0\1\2", b"P2 3 1 2\n0 1 2\n", b"P6 1 1 65535\n\0\1\0\1\0\1"):
        assert _fault(partial(decode_mask, rescaled)).error_type == "NotAMask"
    negative = decode_mask(_encode(np.array([[0, -9999, 65_535]], np.int32), "TIFF"))
    assert negative.values.dtype == np.int32
    np.testing.assert_array_equal(negative.values, [[0, -9999, 65_535]])
    too_large = np.array([[0, 70_000]], np.int32)
    assert "70000" in _fault(lambda: decode_mask(_encode(too_large, "TIFF"))).message


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_masks_of_a_turned_picture(file_format: str, depth: type, orientation: int) -> None:
    on_sensor: npt.NDArray[Any] = np.random.default_rng(3).integers(0, 200, (4, 6)).astype(depth)
    upright = UPRIGHT[orientation](on_sensor)
    size = (upright.shape[1], upright.shape[0])

    def decoded(data: bytes) -> npt.NDArray[Any]:
        return decode_mask(data, picture_orientation=orientation, expected_size=size).values

    # Drawn on the upright picture; with its own orientation; on the sensor's grid without one.
    np.testing.assert_array_equal(decoded(_encode(np.ascontiguousarray(upright), file_format)), upright)
    np.testing.assert_array_equal(decoded(_encode(on_sensor, file_format, orientation)), upright)
    if orientation >= 5:
        np.testing.assert_array_equal(decoded(_encode(on_sensor, file_format)), upright)


def test_a_mask_of_another_size_names_both() -> None:
    data = _encode(_random(4, 6), "PNG")
    for orientation in (1, 6):
        fault = _fault(partial(decode_mask, data, picture_orientation=orientation, expected_size=(5, 5)))
        assert (fault.stage, fault.error_type) == ("truth", "SizeMismatch")
        assert "6x4" in fault.message
        assert "5x5" in fault.message
