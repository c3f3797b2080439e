"""From a file's bytes to upright pixels: one decode for training and for the job.

Rules, the same for every format that Pillow reads:
- the content decides the format, never the name;
- of several frames or pages the first is used;
- alpha is ignored: the colours under it are the picture;
- 16-bit grey becomes 8 bits by v / 257, rounded; float grey is taken as 0 to 1 and scaled to 255, clipped;
- palette, CMYK, YCbCr, Lab and the like become RGB; one channel is made by ITU-R 601 luma;
- the EXIF orientation is applied, so pixels are upright as a person sees them.

Parts of a file that are not used are reported with the pixels (`file_formats.Unused`).
"""

import io
import re
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pipeline.core import file_formats, limits
from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.file_formats import Unused

UInt8Array = npt.NDArray[np.uint8]

DEFAULT_MAX_PIXELS = 178_956_970
"""Pictures above this many pixels are refused by default: 0.5 GiB as RGB, Pillow's own limit for an attack."""

PICTURE_ENDINGS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .gif .bmp .dib .webp .tif .tiff .avif .avifs .jp2 .j2k .jpx .ppm .pgm .pbm .pnm"
    " .tga .ico .pcx .sgi .dds".split()
)
"""Names with these endings, in any case, are pictures; other files of a folder are ignored and counted."""

_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
_SIXTEEN_BIT_MODES = frozenset(("I;16", "I;16L", "I;16B", "I;16N", "I"))
_FEW_BITS_OF_GREY = re.compile(r"L;([24])(?!\d)")
# 4,095 of 65,535 in 8 bits, rounded.
_HIGHEST_OF_TWELVE_BITS = 16
_PILLOW_BYTES_PER_PIXEL = 4
_EIGHT_OF_SIXTEEN_BITS = ((np.arange(65_536) + 128) // 257).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright picture.

    Args:
        pixels: (height, width, channels) uint8, 0 to 255.
        orientation: the EXIF orientation that was applied, 1 to 8.
        unused: parts of the file that are not used, values of `Unused`, sorted.
    """

    pixels: UInt8Array
    orientation: int
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RawMask:
    """An upright mask with the values that its file holds.

    Args:
        values: (height, width); grey level or palette index as uint8 or uint16, where some are negative int32; for a
            colour mask 0xRRGGBB as uint32.
        is_color: whether the values are packed colours.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int32] | npt.NDArray[np.uint32]
    is_color: bool


def has_picture_ending(name: str) -> bool:
    """Whether a file of this name counts as a picture; macOS's `._` files never do.

    Args:
        name: a path with `/` between its parts, or a bare name.

    Returns:
        True where the ending is one of `PICTURE_ENDINGS`, in any case.
    """
    base = name.rpartition("/")[2]
    stem, dot, ending = base.rpartition(".")
    return bool(dot and stem) and not base.startswith("._") and f".{ending.lower()}" in PICTURE_ENDINGS


def decode_image(data: bytes, *, channels: int = 3, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> DecodedImage:
    """Decodes one picture to upright pixels.

    Args:
        data: the whole file.
        channels: 1 (luma) or 3 (RGB).
        max_pixels: larger pictures are refused before they are decoded; None for no limit.

    Returns:
        The pixels, (height, width, channels) uint8, the orientation that was applied, and what was not used.

    Raises:
        PictureError: stage `decode`; the data is empty, not a picture, truncated, broken or too large.
    """
    return OpenedImage(data, channels=channels, max_pixels=max_pixels).decode()


class OpenedImage:
    """A picture whose header is read and checked, and whose pixels are not decoded yet.

    Args:
        data: the whole file.
        channels: 1 (luma) or 3 (RGB).
        max_pixels: larger pictures are refused; None for no limit.

    Raises:
        PictureError: stage `decode`; the data is empty, not a picture, broken or too large.
    """

    def __init__(self, data: bytes, *, channels: int = 3, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {channels}")
        self._channels = channels
        self._data = data
        self._picture = _open(data, max_pixels, "decode")

    @property
    def decoded_bytes(self) -> int:
        """Memory that decoding takes for most pictures, from the header: Pillow's pixels, the array and its copy."""
        return self._picture.width * self._picture.height * (_PILLOW_BYTES_PER_PIXEL + 2 * self._channels)

    def decode(self) -> DecodedImage:
        """Decodes the pixels; to be called once.

        Returns:
            The pixels, (height, width, channels) uint8, the orientation that was applied, and what was not used.

        Raises:
            PictureError: stage `decode`; the file is truncated or broken.
        """
        picture, channels = self._picture, self._channels
        try:
            unused = file_formats.unused_before_loading(picture, self._data)
            orientation = _orientation(picture)
            picture.load()
            if file_formats.has_transparency(picture):
                unused.add(Unused.ALPHA)
            picture = _eight_bit(_upright(picture, _remaining_orientation(picture, orientation)))
            if picture.mode == "LAB" and channels == 1:
                picture = picture.convert("RGB")
            mode = "L" if channels == 1 else "RGB"
            # Converting to its own mode would copy the picture.
            pixels = np.asarray(picture if picture.mode == mode else picture.convert(mode))
        except Exception as error:
            raise picture_error(error, "decode") from error
        if Unused.DEPTH in unused and pixels.max() <= _HIGHEST_OF_TWELVE_BITS:
            unused.add(Unused.LOW_VALUES)
        return DecodedImage(
            pixels.reshape(*pixels.shape[:2], channels), orientation, tuple(sorted(each.value for each in unused))
        )


def decode_mask(
    data: bytes,
    *,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    picture_orientation: int = 1,
    expected_size: tuple[int, int] | None = None,
) -> RawMask:
    """Decodes one ground-truth mask to upright raw values.

    A mask that has an EXIF orientation is rotated by it. A mask without one is taken as upright, unless it fits the
    picture only with the picture's orientation: then it was drawn on the sensor's grid and is rotated like its picture.
    Grey levels and palette indices are not rescaled, whatever the bit depth: 0 and 1 with one bit, 0 to 3 with two.

    Args:
        data: the whole file.
        max_pixels: larger masks are refused before they are decoded; None for no limit.
        picture_orientation: the EXIF orientation of the mask's picture, 1 to 8.
        expected_size: the picture's upright (width, height), px; None to skip the check.

    Returns:
        Grey levels, palette indices or packed colours.

    Raises:
        PictureError: stage `truth`; the bytes can't be decoded or the size isn't the picture's.
    """
    picture = _open(data, max_pixels, "truth")
    try:
        _refuse_rescaled_values(picture)
        step = _grey_step(picture)
        orientation = _orientation(picture)
        picture.load()
        turn = _remaining_orientation(picture, orientation)
        if orientation == 1 and picture_orientation >= 5 and expected_size == picture.size[::-1] != picture.size:
            turn = picture_orientation
        raw = _raw_values(_upright(picture, turn), step)
    except Exception as error:
        raise picture_error(error, "truth") from error
    height, width = raw.values.shape
    if expected_size is not None and (width, height) != expected_size:
        raise PictureError(
            "truth",
            ErrorType.SIZE_MISMATCH,
            f"the mask is {width}x{height} px, its picture {expected_size[0]}x{expected_size[1]} px",
        )
    return raw


def _open(data: bytes, max_pixels: int | None, stage: str) -> Image.Image:
    if not data:
        raise PictureError(stage, ErrorType.EMPTY, "the file is empty")
    try:
        limits.check_metadata(data)
        for width, height in limits.sizes_before_opening(data):
            _check_size(width, height, max_pixels, stage)
        picture = Image.open(io.BytesIO(data), formats=limits.SERVED_FORMATS)
    except UnidentifiedImageError as error:
        raise _unidentified(data, stage) from error
    except Exception as error:
        raise picture_error(error, stage) from error
    if picture.format == "TIFF" and (name := file_formats.unsupported_format(data)):
        raise _unsupported(name, stage)
    _check_size(*picture.size, max_pixels, stage)
    tile = limits.tile_size(picture)
    if tile is not None:
        _check_size(*tile, max_pixels, stage)
    if limits.has_too_many_scans(picture, data):
        raise PictureError(
            stage, ErrorType.TOO_MANY_SCANS, "the picture has so many scans that decoding would take minutes"
        )
    return picture


def _check_size(width: int, height: int, max_pixels: int | None, stage: str) -> None:
    if width < 1 or height < 1:
        raise PictureError(stage, ErrorType.NO_PIXELS, f"the picture is {width}x{height} px")
    if max_pixels is not None and width * height > max_pixels:
        raise PictureError(
            stage,
            ErrorType.TOO_LARGE,
            f"{width}x{height} px is more than --max_pixels {max_pixels} and was not decoded",
        )


def picture_error(error: Exception, stage: str) -> PictureError:
    """Turns what Pillow's decoders raise on malformed data, almost any exception, into a `PictureError`."""
    if isinstance(error, PictureError):
        return error
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):  # without prepare_process()
        return PictureError(stage, ErrorType.TOO_LARGE, text)
    if isinstance(error, limits.MetadataTooLargeError):
        return PictureError(stage, ErrorType.METADATA_TOO_LARGE, text)
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return PictureError(stage, ErrorType.TRUNCATED, f"the file is cut off: {text}")
    if isinstance(error, MemoryError):
        return PictureError(stage, ErrorType.OUT_OF_MEMORY, "decoding needs more memory than is available")
    return PictureError(stage, ErrorType.BROKEN, f"the file can't be decoded: {text}")


def _unidentified(data: bytes, stage: str) -> PictureError:
    """Describes a file that Pillow can't identify."""
    if name := file_formats.unsupported_format(data):
        return _unsupported(name, stage)
    name = file_formats.other_format(data)
    return PictureError(
        stage, ErrorType.NOT_A_PICTURE, f"the content is {name or 'not a picture format that can be read'}"
    )


def _unsupported(name: str, stage: str) -> PictureError:
    return PictureError(stage, ErrorType.UNSUPPORTED_FORMAT, f"{name} is not supported")


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1 without one, or if the EXIF block itself is broken."""
    if picture.format == "PNG":
        # EXIF may follow the pixels in the file, so Pillow decodes them to find it. An error in the pixels must be
        # raised here: suppressed below, it would leave black pixels that look decoded.
        picture.load()
    try:
        value = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken metadata must not fail a picture whose pixels are intact
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _remaining_orientation(picture: Image.Image, orientation: int) -> int:
    """The orientation to apply to a loaded picture: Pillow applies that of TIFF on loading, of no other format."""
    return 1 if picture.format == "TIFF" else orientation


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    transpose = _TRANSPOSE_BY_ORIENTATION.get(orientation)
    return picture if transpose is None else picture.transpose(transpose)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Converts 16-bit, 32-bit and float grey to 8 bits; other modes are returned unchanged."""
    if picture.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(picture)
        if picture.mode == "I":
            values = np.clip(values, 0, 65_535).astype(np.uint16)
        return Image.fromarray(_EIGHT_OF_SIXTEEN_BITS[values])
    if picture.mode == "F":
        values_f = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        return Image.fromarray(np.rint(np.clip(values_f, 0.0, 1.0) * 255.0).astype(np.uint8))
    return picture


def _refuse_rescaled_values(picture: Image.Image) -> None:
    """Refuses masks whose values Pillow would rescale, so that small labels would silently become others, mostly 0."""
    for tile in getattr(picture, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if picture.mode not in _SIXTEEN_BIT_MODES and ";16" in str(arguments[:1]):
            raise PictureError(
                "truth", ErrorType.NOT_A_MASK, "a mask of several 16-bit channels can't be read; 16-bit grey can"
            )
        full_scale = 65_535 if picture.mode == "I" else 255
        if tile.codec_name in ("ppm", "ppm_plain") and picture.mode != "1" and arguments[-1] != full_scale:
            raise PictureError(
                "truth",
                ErrorType.NOT_A_MASK,
                f"a mask of maximum {arguments[-1]} can't be read; 255 and grey of 65535 can",
            )


def _grey_step(picture: Image.Image) -> int:
    """The factor by which Pillow multiplies grey levels on loading: it spreads those of 2 and 4 bits over 0 to 255.

    PNG has them as `L;2` and `L;4`, TIFF also with reversed bits and inverted levels (`L;2IR`).
    """
    for tile in getattr(picture, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        bits = _FEW_BITS_OF_GREY.match(str(arguments[0])) if arguments else None
        if bits:
            return 85 if bits[1] == "2" else 17
    return 1


def _raw_values(picture: Image.Image, grey_step: int) -> RawMask:
    if picture.mode == "1":
        return RawMask(np.asarray(picture).astype(np.uint8), False)
    if picture.mode in ("L", "P"):
        values = np.asarray(picture)
        return RawMask(values // np.uint8(grey_step) if grey_step > 1 else values, False)
    if picture.mode in ("LA", "PA"):
        return RawMask(np.ascontiguousarray(np.asarray(picture)[..., 0]), False)
    if picture.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if high > 65535:
            raise PictureError(
                "truth", ErrorType.UNKNOWN_LABELS, f"mask values from {low} to {high} are not 16-bit labels"
            )
        if low < 0:
            return RawMask(values.astype(np.int32), False)
        return RawMask(values.astype(np.uint16), False)
    if picture.mode in ("RGB", "RGBA", "RGBX"):
        code = cv2.COLOR_RGB2BGRA if picture.mode == "RGB" else cv2.COLOR_RGBA2BGRA
        packed = cv2.cvtColor(np.asarray(picture), code).view("<u4")[..., 0]
        return RawMask(np.bitwise_and(packed, 0xFFFFFF, dtype=np.uint32), True)
    raise PictureError("truth", ErrorType.NOT_A_MASK, f"a mask can't be stored as Pillow mode {picture.mode}")
