"""The README's table of formats, a test a row: what each kind of file becomes, in the job as in training."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, features
from small_archive import draw_picture

from pipeline.core.decode import decode_image

Pixels = npt.NDArray[np.uint8]

PICTURE = draw_picture(3, 37, 26)
GREY = PICTURE[..., 0]
_ROWS, _COLUMNS = np.mgrid[0:26, 0:37]
SMOOTH = np.stack([9 * _ROWS, 6 * _COLUMNS, 120 + 0 * _ROWS], axis=-1).astype(np.uint8)


def _saved(picture: Image.Image | npt.NDArray[Any], file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _png(width: int, height: int, depth: int, color_type: int, data: bytes, *, interlaced: bool = False) -> bytes:
    """A PNG made by hand (ISO/IEC 15948), for what Pillow doesn't write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, int(interlaced))
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _grey_png(values: Pixels, depth: int) -> bytes:
    """Grey of 1, 2 or 4 bits a pixel."""
    rows = []
    for row in values:
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        rows.append(b"\0" + bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)))
    return _png(values.shape[1], values.shape[0], depth, 0, b"".join(rows))


def _interlaced_png(pixels: Pixels) -> bytes:
    """Adam7: seven passes over a grid of 8×8."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    data = b"".join(b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx] if row.size)
    return _png(pixels.shape[1], pixels.shape[0], 8, 2, data, interlaced=True)


def _tiff(pixels: Pixels, *, tile: int | None = None, planar: bool = False) -> bytes:
    """An uncompressed RGB TIFF (revision 6.0) in tiles or in planes, for what Pillow doesn't write."""
    height, width, _ = pixels.shape
    pieces: list[bytes] = []
    for plane in [pixels[..., channel : channel + 1] for channel in range(3)] if planar else [pixels]:
        if tile is None:
            pieces.append(plane.tobytes())
            continue
        padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                pieces.append(padded[top : top + tile, left : left + tile].tobytes())
    offsets = np.cumsum([8, *map(len, pieces)])[:-1].tolist()
    layout = [(273, offsets), (278, [height]), (279, list(map(len, pieces)))]
    if tile is not None:
        layout = [(322, [tile]), (323, [tile]), (324, offsets), (325, list(map(len, pieces)))]
    tags = {256: [width], 257: [height], 258: [8] * 3, 259: [1], 262: [2], 277: [3], 284: [1 + planar], **dict(layout)}
    data = b"".join(pieces)
    begin = 8 + len(data)
    extra_begin = begin + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, values in sorted(tags.items()):
        body = struct.pack(f"<{len(values)}L", *values)
        place = body if len(values) == 1 else struct.pack("<L", extra_begin + len(extra))
        extra += body if len(values) > 1 else b""
        entries += struct.pack("<HHL", tag, 4, len(values)) + place
    return b"II*\0" + struct.pack("<L", begin) + data + struct.pack("<H", len(tags)) + entries + bytes(4) + extra


def _grey_of(values: npt.NDArray[Any]) -> Pixels:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def _alpha(pixels: Pixels) -> Pixels:
    ramp = np.linspace(0, 255, pixels.shape[1]).astype(np.uint8)
    return np.concatenate([pixels, np.broadcast_to(ramp[None, :, None], (*pixels.shape[:2], 1))], axis=2)


_TWO = (GREY // 64).astype(np.uint8)
_SIXTEEN = GREY.astype(np.uint16) * 257 + 100
_PALETTE = Image.fromarray(PICTURE).quantize(16)
_FEW_COLORS = np.asarray(_PALETTE.convert("RGB"))

# Row: the file's bytes, the pixels that it must give, and by how much they may differ on the mean where it loses.
ROWS: dict[str, tuple[Callable[[], bytes], Pixels, float]] = {
    "JPEG": (lambda: _saved(SMOOTH, "JPEG", quality=95), SMOOTH, 4),
    "JPEG, progressive": (lambda: _saved(SMOOTH, "JPEG", quality=95, progressive=True), SMOOTH, 4),
    "JPEG, grey": (lambda: _saved(GREY, "JPEG", quality=95), _grey_of(GREY), 4),
    "JPEG, CMYK": (lambda: _saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95), SMOOTH, 6),
    "PNG, 1 bit": (lambda: _grey_png(GREY // 128, 1), _grey_of(GREY // 128 * 255), 0),
    "PNG, 2 bits": (lambda: _grey_png(_TWO, 2), _grey_of(_TWO * 85), 0),
    "PNG, 4 bits": (lambda: _grey_png(GREY // 16, 4), _grey_of(GREY // 16 * 17), 0),
    "PNG, 8 bits": (lambda: _saved(PICTURE, "PNG"), PICTURE, 0),
    "PNG, 16 bits grey: v / 257": (lambda: _saved(_SIXTEEN, "PNG"), _grey_of((_SIXTEEN + 128) // 257), 0),
    "PNG, palette": (lambda: _saved(_PALETTE, "PNG"), _FEW_COLORS, 0),
    "PNG, alpha is dropped": (lambda: _saved(_alpha(PICTURE), "PNG"), PICTURE, 0),
    "PNG, interlaced": (lambda: _interlaced_png(PICTURE), PICTURE, 0),
    "GIF": (lambda: _saved(_PALETTE, "GIF"), _FEW_COLORS, 0),
    "GIF, the first frame": (
        lambda: _saved(_PALETTE, "GIF", save_all=True, append_images=[Image.new("P", (37, 26))]),
        _FEW_COLORS,
        0,
    ),
    "BMP": (lambda: _saved(PICTURE, "BMP"), PICTURE, 0),
    "WebP": (lambda: _saved(PICTURE, "WEBP", lossless=True), PICTURE, 0),
    "WebP, lossy": (lambda: _saved(SMOOTH, "WEBP", quality=95), SMOOTH, 6),
    "AVIF": (lambda: _saved(SMOOTH, "AVIF", quality=95), SMOOTH, 6),
    "TIFF": (lambda: _saved(PICTURE, "TIFF"), PICTURE, 0),
    "TIFF, LZW": (lambda: _saved(PICTURE, "TIFF", compression="tiff_lzw"), PICTURE, 0),
    "TIFF, deflate": (lambda: _saved(PICTURE, "TIFF", compression="tiff_adobe_deflate"), PICTURE, 0),
    "TIFF, JPEG": (lambda: _saved(SMOOTH, "TIFF", compression="jpeg", quality=95), SMOOTH, 6),
    "TIFF, tiled": (lambda: _tiff(PICTURE, tile=16), PICTURE, 0),
    "TIFF, planar": (lambda: _tiff(PICTURE, planar=True), PICTURE, 0),
    "TIFF, tiled and planar": (lambda: _tiff(PICTURE, tile=16, planar=True), PICTURE, 0),
    "TIFF, 16 bits grey: v / 257": (lambda: _saved(_SIXTEEN, "TIFF"), _grey_of((_SIXTEEN + 128) // 257), 0),
    "TIFF, float grey: 0 to 1": (lambda: _saved(GREY.astype(np.float32) / 255, "TIFF"), _grey_of(GREY), 0),
    "TIFF, the first page": (
        lambda: _saved(PICTURE, "TIFF", save_all=True, append_images=[Image.new("RGB", (37, 26))]),
        PICTURE,
        0,
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str) -> None:
    if row == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    make, expected, tolerance = ROWS[row]
    pixels = decode_image(make()).pixels
    assert pixels.shape == expected.shape
    difference = np.abs(pixels.astype(int) - expected)
    if tolerance:
        assert difference.mean() <= tolerance
    else:
        assert not difference.any()
