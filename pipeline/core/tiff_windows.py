"""Reading a TIFF's pixels by window: only the tiles or strips that a window meets are read and decoded.

Each of them is put into a small TIFF of its own and decoded by Pillow, so its pixels are those of the whole picture's
decoding for any compression that Pillow reads.
"""

import io
from collections.abc import Sequence
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from pipeline.core.decode import picture_error
from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.file_formats import Unused, has_several_pages
from pipeline.core.ranged_file import RangedFile
from pipeline.core.raster import RasterInfo
from pipeline.core.records import FileRef
from pipeline.core.strips import Window

# Tags of TIFF 6.0 (Adobe, 1992).
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _BANDS = 256, 257, 258, 259, 262, 274, 277
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 273, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _JPEG_TABLES = 338, 339, 347
_COPIED = (
    _BITS, _COMPRESSION, _PHOTOMETRIC, 266, _BANDS, _PLANAR, 317, _SAMPLE_FORMAT, _JPEG_TABLES, 529, 530, 531, 532,
)  # fmt: skip
"""What decoding a part depends on: also fill order, predictor, and how YCbCr is stored."""

_JPEG = 7
_COMPRESSIONS = frozenset((1, 5, _JPEG, 8, 32773, 32946, 34925, 50000))
"""None, LZW, JPEG, deflate (both numbers), PackBits, LZMA, Zstandard."""
_YCBCR = 6
_BANDS_OF_PHOTOMETRIC = {0: 1, 1: 1, 2: 3, _YCBCR: 3}

_MAX_PART_PIXELS = 1 << 24
_MAX_PIXEL_BYTES, _PART_SLACK_BYTES = 16, 1 << 16
_MAX_VIEW_ROWS = 512

MAX_DECODED_BYTES = 1 << 30
"""Maximum of `decoded_bytes`: a small file may claim any width."""

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class TiffWindows:
    """A tiled or striped TIFF, as `pipeline.core.raster.Raster`.

    Decoded parts are kept until a window begins below them, so that windows are best read from top to bottom.

    Args:
        file: the TIFF.
        tags: of its first page, as Pillow reads them.
        channels: 1 (luma) or 3 (RGB): the bands that the raster has.
    """

    def __init__(self, file: RangedFile, tags: Any, channels: int) -> None:
        self._file, self._tags, self._channels = file, tags, channels
        width, height = int(tags[_WIDTH]), int(tags[_HEIGHT])
        self._is_tiled = _TILE_WIDTH in tags
        self._part_width, self._part_height = _part_size(tags)
        self._across = -(-width // self._part_width)
        self._decoded: dict[int, npt.NDArray[np.uint8]] = {}
        unused = (Unused.PAGES.value,) if has_several_pages(cast(BinaryIO, file)) else ()
        self.info = RasterInfo(height, width, channels, unused=unused)
        rows = min(height, 2 * self._part_height + _MAX_VIEW_ROWS)
        self.decoded_bytes = rows * self._across * self._part_width * channels

    @staticmethod
    def open(file: RangedFile, channels: int) -> "TiffWindows | None":
        """Opens a TIFF if it can be read by window.

        Args:
            file: any file.
            channels: 1 (luma) or 3 (RGB).

        Returns:
            The raster; None if the file is none, or has one that must be decoded whole: not 8-bit grey or RGB, with
            alpha, separate planes or an orientation, with parts of more than 16 megapixels, or so wide that reading
            would take more than `MAX_DECODED_BYTES`.

        Raises:
            PictureError: stage `read`; the file can't be read.
        """
        try:
            file.seek(0)
            tags = Image.open(cast(BinaryIO, file), formats=("TIFF",)).tag_v2  # type: ignore[attr-defined]
            opened = TiffWindows(file, tags, channels) if _has_windows(tags) else None
        except PictureError:
            raise
        except Exception:  # Pillow raises almost any exception for a damaged directory; decoding whole explains it
            return None
        return None if opened is None or opened.decoded_bytes > MAX_DECODED_BYTES else opened

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        """As `Raster.read`."""
        height, width = self._part_height, self._part_width
        bottom, right = window.top + window.height, window.left + window.width
        pixels = np.empty((window.height, window.width, self._channels), np.uint8)
        for row in range(window.top // height, -(-bottom // height)):
            for column in range(window.left // width, -(-right // width)):
                part = self._part(row, column)
                top, left = row * height, column * width
                first, begin = max(window.top, top), max(window.left, left)
                last, end = min(bottom, top + part.shape[0]), min(right, left + part.shape[1])
                inside = np.s_[first - window.top : last - window.top, begin - window.left : end - window.left]
                pixels[inside] = part[first - top : last - top, begin - left : end - left]
        passed = window.top // height * self._across
        for index in [index for index in self._decoded if index < passed]:
            del self._decoded[index]
        return pixels

    def close(self) -> None:
        """As `Raster.close`."""
        self._decoded.clear()

    def _part(self, row: int, column: int) -> npt.NDArray[np.uint8]:
        index = row * self._across + column
        if index not in self._decoded:
            rows = self._part_height
            if not self._is_tiled:
                rows = min(rows, self.info.height - row * self._part_height)
            self._decoded[index] = self._decode(index, rows)
        return self._decoded[index]

    def _decode(self, index: int, rows: int) -> npt.NDArray[np.uint8]:
        offset, size_bytes = (values[index] for values in _places(self._tags))
        if not size_bytes:  # left out, as in sparse files
            return np.zeros((rows, self._part_width, self._channels), np.uint8)
        name = "tile" if self._is_tiled else "strip"
        if size_bytes > _MAX_PIXEL_BYTES * rows * self._part_width + _PART_SLACK_BYTES:
            raise PictureError("decode", ErrorType.BROKEN, f"{name} {index} of the TIFF claims {size_bytes:,} bytes")
        data = self._file.read_at(offset, size_bytes)
        if len(data) < size_bytes:
            raise PictureError("decode", ErrorType.TRUNCATED, f"the file is cut off in {name} {index} of the TIFF")
        alone = io.BytesIO(_tiff_of(self._tags, self._part_width, rows, data))
        mode = "L" if self._channels == 1 else "RGB"
        try:
            picture = Image.open(alone, formats=("TIFF",))
            pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        except Exception as error:
            raise picture_error(error, "decode") from error
        return pixels.reshape(rows, self._part_width, self._channels)


def may_have_windows(file: FileRef) -> bool:
    """Whether a file could be a TIFF that is read by window, as far as its name says."""
    return (file.member or file.uri).lower().endswith((".tif", ".tiff"))


def _has_windows(tags: Any) -> bool:
    bands = _BANDS_OF_PHOTOMETRIC.get(tags.get(_PHOTOMETRIC, -1))
    compression, (width, height) = tags.get(_COMPRESSION, 1), _part_size(tags)
    if bands is None or bands != tags.get(_BANDS, 1) or compression not in _COMPRESSIONS:
        return False
    if tags[_PHOTOMETRIC] == _YCBCR and compression != _JPEG:
        return False
    if set(_values(tags.get(_BITS, 1))) != {8} or set(_values(tags.get(_SAMPLE_FORMAT, 1))) != {1}:
        return False
    if tags.get(_EXTRA_SAMPLES) or tags.get(_ORIENTATION, 1) != 1 or (tags.get(_PLANAR, 1) != 1 and bands > 1):
        return False
    if min(width, height, tags[_WIDTH], tags[_HEIGHT]) < 1 or width * height > _MAX_PART_PIXELS:
        return False
    parts = -(-int(tags[_WIDTH]) // width) * -(-int(tags[_HEIGHT]) // height)
    return all(len(values) == parts for values in _places(tags))


def _part_size(tags: Any) -> tuple[int, int]:
    """Width and height of a tile, or of a strip."""
    if _TILE_WIDTH in tags:
        return int(tags[_TILE_WIDTH]), int(tags[_TILE_HEIGHT])
    return int(tags[_WIDTH]), min(int(tags.get(_ROWS_PER_STRIP, tags[_HEIGHT])), int(tags[_HEIGHT]))


def _places(tags: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Offset and size of each part, bytes."""
    if _TILE_WIDTH in tags:
        return _values(tags[_TILE_OFFSETS]), _values(tags[_TILE_BYTES])
    return _values(tags[_STRIP_OFFSETS]), _values(tags[_STRIP_BYTES])


def _values(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _tiff_of(tags: Any, width: int, height: int, data: bytes) -> bytes:
    """A TIFF of one strip with the data of a tile or strip of another."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in _COPIED:
        if tag in tags:
            directory.tagtype[tag] = tags.tagtype[tag]
            directory[tag] = tags[tag]
    sizes = {_WIDTH: width, _HEIGHT: height, _ROWS_PER_STRIP: height, _STRIP_BYTES: len(data)}
    for tag, value in (*sizes.items(), (_STRIP_OFFSETS, 0)):  # Pillow adds the length of header and directory
        directory[tag] = value
    alone = io.BytesIO()
    directory.save(alone)
    alone.write(data)
    return alone.getvalue()
