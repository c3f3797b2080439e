"""Names the format of files that can't be decoded, and the parts of decodable files that are not used."""

import io
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin

from pipeline.core.wording import pictures_text

_MAX_TIFF_PAGES = 64
_SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _BANDS, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 254, 258, 262, 277, 338, 339
_REDUCED_OR_MASK = 0b101
_BIG_TIFF = 43
"""The version number of TIFF with 64-bit offsets; Pillow reads it in little-endian files alone."""
_GREY_PHOTOMETRICS = (0, 1)
_NUMBER_TYPES = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex float"}

# Offset of a format's signature, the signature, and the format's name: unsupported picture formats, then other files.
_PICTURE_SIGNATURES = (
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"),
    (344, b"n+1\0", "NIfTI"),
    (0, b"\x89HDF\r\n", "HDF5"),
    (0, b"GRIB", "GRIB"),
    (0, b"<svg", "SVG"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw format"),
)
_OTHER_SIGNATURES = (
    (0, b"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the picture"),
    (0, b"%PDF-", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<!DOCTYPE", "an HTML page"),
    (0, b"<!doctype", "an HTML page"),
    (0, b"<html", "an HTML page"),
    (0, b"<?xml", "XML"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
)
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


class Unused(StrEnum):
    """Parts of a picture's file that are not used; the values are keys of `images.unused` in `summary.json`."""

    PAGES = "pages"
    """The file has several pages or frames; the first is used."""
    ALPHA = "alpha"
    """Some pixels are transparent; transparency is ignored."""
    DEPTH = "depth"
    """The file has 16 bits a channel; the upper 8 are used."""
    LOW_VALUES = "low_values"
    """The file has 16 bits a channel and no value above 4,095, as 10- and 12-bit data have: read as nearly black."""


UNUSED_TEXTS = {
    Unused.PAGES: "with several pages or frames: the first is used",
    Unused.ALPHA: "with transparent pixels: transparency is ignored",
    Unused.DEPTH: "with 16 bits a channel: the upper 8 are used",
    Unused.LOW_VALUES: "with 16 bits a channel and no value above 4,095: read as nearly black",
}
"""The text shown for each, after a number of pictures."""


def unused_lines(counts: Mapping[str, int]) -> list[str]:
    """Describes which parts of pictures' files are not used, one line per kind.

    Args:
        counts: numbers of pictures by value of `Unused`.
    """
    return [f"{pictures_text(pictures)} {UNUSED_TEXTS[Unused(kind)]}" for kind, pictures in counts.items()]


def unsupported_format(data: bytes) -> str | None:
    """Names a picture format that is recognised but not supported.

    Args:
        data: the whole file.

    Returns:
        For example `HEIC` or `5-band float64 TIFF`; None where the file is not one of these.
    """
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIC"
    return _format_by_signature(data, _PICTURE_SIGNATURES) or _unsupported_tiff(data)


def other_format(data: bytes) -> str | None:
    """Names the type of a file that is not a picture; None if unknown."""
    if data[4:8] == b"ftyp":
        return "an MP4 or QuickTime file"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "an AVI video"
    return _format_by_signature(data, _OTHER_SIGNATURES)


def _format_by_signature(data: bytes, signatures: tuple[tuple[int, bytes, str], ...]) -> str | None:
    matches = (name for at, signature, name in signatures if data[at : at + len(signature)] == signature)
    return next(matches, None)


def _unsupported_tiff(data: bytes) -> str | None:
    """Describes the first page of a TIFF whose bands Pillow doesn't all read; None for others.

    Pillow refuses most of these, but of separate planes it reads the first as a grey picture.
    """
    page = next(_tiff_pages(io.BytesIO(data)), None)
    if page is None:
        return None
    bands = _first(page, _BANDS, 1)
    bits = _first(page, _BITS, 1)
    numbers = _NUMBER_TYPES.get(_first(page, _SAMPLE_FORMAT, 1), "uint")
    extra = page.get(_EXTRA_SAMPLES, ())
    is_grey = _first(page, _PHOTOMETRIC, 1) in _GREY_PHOTOMETRICS
    # Grey with alpha is the only layout of several bands that has a grey photometric interpretation.
    too_many = bands > 4 or (is_grey and bands > 1 and not (bands == 2 and len(extra) == 1 and extra[0] in (1, 2)))
    too_deep = bits > 32 or (bits == 32 and bands > 1) or (numbers == "float" and bits != 32) or "complex" in numbers
    return f"{bands}-band {numbers}{bits} TIFF" if too_many or too_deep else None


def _first(page: Any, tag: int, default: int) -> int:
    value = page.get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else default


def _tiff_pages(file: BinaryIO) -> Iterator[Any]:
    """The directories of a TIFF's pages, as far as they can be read and at most 64; none for other formats."""
    file.seek(0)
    head = file.read(16) or b""
    if head[:4] not in TiffImagePlugin.PREFIXES:
        return
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if head[2] == _BIG_TIFF else 8])
        seen: set[int] = set()
        while directory.next and directory.next not in seen and len(seen) < _MAX_TIFF_PAGES:
            seen.add(directory.next)
            file.seek(directory.next)
            directory.load(file)
            yield directory
    except Exception:  # a damaged directory: pages read before it are kept
        return


def unused_before_loading(picture: Image.Image, data: bytes) -> set[Unused]:
    """Which parts of an opened picture are not used, as far as its header shows.

    Args:
        picture: opened by Pillow, its pixels not loaded.
        data: the whole file.
    """
    unused = set()
    if _has_pages(picture, data):
        unused.add(Unused.PAGES)
    if has_sixteen_bits(picture):
        unused.add(Unused.DEPTH)
    return unused


def _has_pages(picture: Image.Image, data: bytes) -> bool:
    if picture.format == "TIFF":
        return has_several_pages(io.BytesIO(data))
    # The further pictures of a JPEG are previews, depth or gain maps; those of an icon are its other sizes.
    return picture.format in ("GIF", "PNG", "WEBP", "AVIF") and bool(getattr(picture, "is_animated", False))


def has_several_pages(file: BinaryIO) -> bool:
    """Whether a TIFF has several pages; overviews and masks of a page are not pages."""
    pages = (_first(page, _SUBFILE_TYPE, 0) & _REDUCED_OR_MASK for page in _tiff_pages(file))
    return sum(not kind for kind in pages) > 1


def has_sixteen_bits(picture: Image.Image) -> bool:
    """Whether the file of an opened picture has integers of more than 8 bits a channel."""
    if picture.mode.startswith("I"):
        return True
    arguments = (tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in getattr(picture, "tile", ()))
    return any(";16" in str(argument) for each in arguments for argument in each[:1])


def has_transparency(picture: Image.Image) -> bool:
    """Whether a loaded picture has pixels that are not opaque."""
    if "A" in picture.getbands():
        lowest = picture.getchannel("A").getextrema()[0]
        return isinstance(lowest, int | float) and lowest < 255
    return "transparency" in picture.info
