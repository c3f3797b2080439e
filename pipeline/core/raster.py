"""A picture that is read by windows, for any file format: the interface between decoding and segmenting.

Pillow decodes files whole; `pipeline.core.tiff_windows` reads TIFF by window. Another format that supports that needs a
class that implements `Raster`, chosen in `pipeline.segmenting.preparing.open_picture`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from pipeline.core.decode import DEFAULT_MAX_PIXELS, DecodedImage, OpenedImage
from pipeline.core.strips import Window


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where on Earth a raster's pixels are.

    Args:
        crs: the coordinate reference system, an authority's code (`EPSG:32633`) or WKT.
        transform: (a, b, c, d, e, f) with x = a · column + b · row + c and y = d · column + e · row + f.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class RasterInfo:
    """Properties of a raster.

    Args:
        height: upright height, px.
        width: upright width, px.
        bands: how many values a pixel has.
        dtype: NumPy's name of their type.
        nodata: the value of pixels without data; None where there is none.
        georeference: where it is; None where that isn't known.
        pixel_area_m2: area of one pixel; None where it isn't known.
        orientation: the EXIF orientation that was applied to the file's pixels, 1 to 8.
        unused: parts of the file that are not used, values of `pipeline.core.file_formats.Unused`, sorted.
    """

    height: int
    width: int
    bands: int
    dtype: str = "uint8"
    nodata: float | None = None
    georeference: Georeference | None = None
    pixel_area_m2: float | None = None
    orientation: int = 1
    unused: tuple[str, ...] = ()

    @property
    def whole(self) -> Window:
        """The window of all pixels."""
        return Window(0, 0, self.height, self.width)


class Raster(Protocol):
    """One opened picture; used by one thread at a time."""

    @property
    def decoded_bytes(self) -> int:
        """Maximum memory that reading takes, known from the header before anything is decoded."""

    @property
    def info(self) -> RasterInfo:
        """Properties of the raster; reading them may decode it (PNG may store its orientation after the pixels).

        Raises:
            PictureError: stage `decode`; the file can't be decoded.
        """

    def read(self, window: Window) -> npt.NDArray[Any]:
        """Reads some pixels.

        Args:
            window: a rectangle within the raster.

        Returns:
            (h, w, bands), upright, to be read only.

        Raises:
            PictureError: stage `decode`; the file can't be decoded.
        """

    def close(self) -> None:
        """Frees the decoded pixels; nothing is read after that. May be called twice."""


class ArrayRaster:
    """A raster of pixels that are in memory.

    Args:
        pixels: (H, W, bands).
        orientation: the EXIF orientation that was applied to them, 1 to 8.
        unused: as in `RasterInfo`.
    """

    def __init__(self, pixels: npt.NDArray[Any], orientation: int = 1, unused: tuple[str, ...] = ()) -> None:
        self._pixels: npt.NDArray[Any] | None = pixels
        height, width, bands = pixels.shape
        self.info = RasterInfo(height, width, bands, pixels.dtype.name, orientation=orientation, unused=unused)
        self.decoded_bytes = pixels.nbytes

    def read(self, window: Window) -> npt.NDArray[Any]:
        """As `Raster.read`: a view."""
        if self._pixels is None:
            raise ValueError("the raster is closed")
        rows = self._pixels[window.top : window.top + window.height]
        return rows[:, window.left : window.left + window.width]

    def close(self) -> None:
        """As `Raster.close`."""
        self._pixels = None


class DecodedRaster:
    """A file that is decoded whole when it is first used.

    Args:
        opened: the file, its header read.
    """

    def __init__(self, opened: OpenedImage) -> None:
        self._opened: OpenedImage | None = opened
        self._array: ArrayRaster | None = None
        self.decoded_bytes = opened.decoded_bytes

    @property
    def info(self) -> RasterInfo:
        """As `Raster.info`."""
        return self._decoded().info

    def read(self, window: Window) -> npt.NDArray[Any]:
        """As `Raster.read`: a view of the whole."""
        return self._decoded().read(window)

    def close(self) -> None:
        """As `Raster.close`."""
        self._opened = None
        if self._array is not None:
            self._array.close()

    def _decoded(self) -> ArrayRaster:
        if self._array is None:
            if self._opened is None:
                raise ValueError("the raster is closed")
            image: DecodedImage = self._opened.decode()
            self._opened = None
            self._array = ArrayRaster(image.pixels, image.orientation, image.unused)
        return self._array


def open_raster(data: bytes, *, channels: int = 3, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Raster:
    """Opens a picture's file and checks its header.

    Args:
        data: the whole file.
        channels: 1 (luma) or 3 (RGB): the bands that the raster has.
        max_pixels: larger pictures are refused; None for no limit.

    Returns:
        The raster; nothing of its pixels is decoded yet.

    Raises:
        PictureError: stage `decode`; the data is empty, not a picture, broken or too large.
    """
    return DecodedRaster(OpenedImage(data, channels=channels, max_pixels=max_pixels))
