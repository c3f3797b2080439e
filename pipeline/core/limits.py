"""Limits on the memory and time that a file takes, checked in its headers before it is decoded.

Decoding one file takes at most 64 MiB, four times the file and 24 bytes for each pixel that --max_pixels allows;
refusing it at most 64 MiB and four times the file. Pillow enforces most of that; this module checks the rest:
- Pillow allocates the pixels of icons and WebP when it opens them, before their size can be read;
- a TIFF directory (EXIF is one) may refer to the same bytes a thousand times, and Pillow copies them each time;
- the tiles of a TIFF may be larger than the picture;
- a progressive JPEG may have thousands of scans, each a pass over all pixels;
- the parts of a GIF's comment, and of a JPEG's EXIF block, are joined in quadratic time.
"""

import io
import struct
from typing import Any

from PIL import Image, JpegImagePlugin, TiffImagePlugin

SERVED_FORMATS = (
    "JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "PCX", "SGI", "DDS", "TGA",
)  # fmt: skip
"""The formats of `PICTURE_ENDINGS` by Pillow's names; TGA is last because it has no signature."""

_MAX_PIXEL_BYTES, _MAX_HEADER_BYTES = 16, 64 << 20

MAX_SCANS = 64
MAX_SCANNED_PIXELS = 1 << 32
"""With more than 64 scans, which no encoder makes by default, the maximum of scans × pixels."""

MAX_COMMENT_BYTES = 1 << 20
MAX_SEGMENT_BYTES = 32 << 20
"""Maximum length of a GIF's comments before the first frame, and of a JPEG's segments before the first scan."""

_VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MIN_SCAN_BYTES = 10
_DIRECTORY_SLACK_BYTES = 1 << 16
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_load_any_directory = TiffImagePlugin.ImageFileDirectory_v2.load


def max_file_bytes(max_pixels: int) -> int:
    """The maximum length of a picture's file: no format stores a pixel in more than 16 bytes.

    Args:
        max_pixels: the maximum number of pixels of a picture.

    Returns:
        Bytes, including 64 MiB for headers and metadata.
    """
    return _MAX_HEADER_BYTES + _MAX_PIXEL_BYTES * max_pixels


class MetadataTooLargeError(ValueError):
    """A file's directory claims more bytes than the file can hold, or its metadata is too large."""


def _load_checked_directory(directory: TiffImagePlugin.ImageFileDirectory_v2, file: Any) -> None:
    """Checks the sizes that a directory claims, TIFF's or an EXIF block's in any format, and lets Pillow load it."""
    start = file.tell()
    length = file.seek(0, io.SEEK_END)
    file.seek(start)
    claimed = _claimed_bytes(file, "<" if directory.prefix[:2] == b"II" else ">", directory._bigtiff)
    if claimed > 4 * length + _DIRECTORY_SLACK_BYTES:
        raise MetadataTooLargeError(f"the directory of {length} bytes claims {claimed}")
    file.seek(start)
    _load_any_directory(directory, file)


def check_directories() -> None:
    """Makes Pillow check the sizes that a directory claims before loading it, in the whole process.

    One class serves the directories of all formats, and Pillow loads some of them while it opens a file.
    """
    TiffImagePlugin.ImageFileDirectory_v2.load = _load_checked_directory  # type: ignore[assignment, method-assign]


def _claimed_bytes(file: Any, order: str, is_big: bool) -> int:
    """Sums the bytes that the entries of the directory at a file's position refer to outside of it."""
    count_form, entry, inline = ("Q", struct.Struct(f"{order}HHQ8x"), 8) if is_big else ("H", _entry(order), 4)
    head = file.read(struct.calcsize(count_form))
    if len(head) < struct.calcsize(count_form):
        return 0
    (count,) = struct.unpack(order + count_form, head)
    table = file.read(min(count, 65_536) * entry.size)
    claimed = 0
    for _, kind, values in entry.iter_unpack(table[: len(table) // entry.size * entry.size]):
        size = values * _VALUE_BYTES.get(kind, 0)
        claimed += size if size > inline else 0
    return claimed


def _entry(order: str) -> struct.Struct:
    return struct.Struct(f"{order}HHL4x")


def check_metadata(data: bytes) -> None:
    """Refuses metadata that Pillow would take minutes to join when it opens the file.

    Args:
        data: the whole file.

    Raises:
        MetadataTooLargeError: a GIF's comments or a JPEG's segments are too long.
    """
    if data[:6] in (b"GIF87a", b"GIF89a"):
        _check_comments(data)
    elif data[:2] == b"\xff\xd8":
        _check_segments(data)


def _check_comments(data: bytes) -> None:
    """Reads the extensions before a GIF's first frame (GIF89a specification, 1990)."""
    at = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    comments = 0
    while at + 2 < len(data) and data[at] != 0x2C:
        if data[at] != 0x21:
            at += 1
            continue
        is_comment = data[at + 1] == 0xFE
        at += 2
        while at < len(data) and data[at]:
            # The length byte counts too, so that the number of one-byte parts is bounded.
            comments += (data[at] + 1) * is_comment
            at += data[at] + 1
            if comments > MAX_COMMENT_BYTES:
                raise MetadataTooLargeError(f"the comments take more than {MAX_COMMENT_BYTES} bytes")
        comments += is_comment
        at += 1


def _check_segments(data: bytes) -> None:
    """Reads a JPEG's segments as Pillow does, up to the first scan."""
    at = segments = 0
    while 0 <= at < len(data) - 1 and data[at + 1] != 0xDA:
        known = JpegImagePlugin.MARKER.get(0xFF00 | data[at + 1])
        length = 0 if known is None or known[2] is None else int.from_bytes(data[at + 2 : at + 4], "big")
        segments += length
        if segments > MAX_SEGMENT_BYTES:
            raise MetadataTooLargeError(f"the segments before the pixels take more than {MAX_SEGMENT_BYTES} bytes")
        at = data.find(b"\xff", at + (2 + length if known is not None else 1))


def sizes_before_opening(data: bytes) -> list[tuple[int, int]]:
    """The sizes that a file claims, px, for the formats whose pixels Pillow allocates when it opens them.

    Args:
        data: the whole file.

    Returns:
        Width and height of each picture in it; none for other formats.
    """
    if data[:4] == b"\0\0\1\0":
        return _icon_sizes(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp_sizes(data)
    return []


def _icon_sizes(data: bytes) -> list[tuple[int, int]]:
    """From the headers of the pictures themselves, because the icon's directory may be wrong."""
    sizes: list[tuple[int, int]] = []
    for entry in range(6, 6 + 16 * min(int.from_bytes(data[4:6], "little"), len(data) // 16), 16):
        start = int.from_bytes(data[entry + 12 : entry + 16], "little")
        if data[start : start + 8] == b"\x89PNG\r\n\x1a\n":
            sizes.append(struct.unpack(">II", data[start + 16 : start + 24].ljust(8, b"\1")))
        elif start + 12 <= len(data):
            width, doubled_height = struct.unpack("<ii", data[start + 4 : start + 12])
            sizes.append((abs(width), abs(doubled_height) // 2))
    return [(width, height) for width, height in sizes if width and height]


def _webp_sizes(data: bytes) -> list[tuple[int, int]]:
    """The canvas, or the one picture where there is none (WebP Container Specification, 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return [(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"))]
    if kind == b"VP8L" and len(data) >= 25:
        packed = int.from_bytes(data[21:25], "little")
        return [(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF))]
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack("<HH", data[26:30])
        return [(width & 0x3FFF, height & 0x3FFF)]
    return []


def tile_size(picture: Image.Image) -> tuple[int, int] | None:
    """The size of an opened TIFF's tiles, px; None without tiles."""
    tags: Any = getattr(picture, "tag_v2", None)
    size = tags and (tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH))
    return size if size and all(isinstance(side, int) for side in size) else None


def has_too_many_scans(picture: Image.Image, data: bytes) -> bool:
    """Whether an opened JPEG has so many scans that decoding would take minutes."""
    pixels = picture.width * picture.height
    # The file's length limits the number of scans, so most files need no search.
    if picture.format not in ("JPEG", "MPO") or len(data) // _MIN_SCAN_BYTES * pixels <= MAX_SCANNED_PIXELS:
        return False
    scans = data.count(b"\xff\xda")
    return scans > MAX_SCANS and scans * pixels > MAX_SCANNED_PIXELS
