"""Limits that are checked in a file's headers: the exact bytes at which each begins."""

import io
import struct
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin

from pipeline.core import limits
from pipeline.core.limits import (
    MetadataTooLargeError,
    check_metadata,
    has_too_many_scans,
    max_file_bytes,
    sizes_before_opening,
    tile_size,
)

BYTE, SHORT, LONG, RATIONAL, DOUBLE, IFD, LONG8 = 1, 3, 4, 5, 12, 13, 16


def test_a_file_may_have_16_bytes_a_pixel_and_64_mib() -> None:
    assert max_file_bytes(0) == 67_108_864
    assert max_file_bytes(1_000) == 67_108_864 + 16_000


# TIFF directories.


def _directory(entries: list[tuple[int, int]], order: str = "<", *, is_big: bool = False) -> bytes:
    """A directory of entries of (type, count), which refer to nothing."""
    count = struct.pack(order + ("Q" if is_big else "H"), len(entries))
    form = "HHQ8x" if is_big else "HHL4x"
    return count + b"".join(struct.pack(order + form, 700, kind, values) for kind, values in entries)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("entry", "claimed"),
    [
        ((BYTE, 4), 0),
        ((BYTE, 5), 5),
        ((2, 1_000), 1_000),
        ((SHORT, 2), 0),
        ((SHORT, 3), 6),
        ((LONG, 1), 0),
        ((LONG, 2), 8),
        ((RATIONAL, 1), 8),
        ((6, 7), 7),
        ((7, 9), 9),
        ((8, 5), 10),
        ((9, 3), 12),
        ((10, 2), 16),
        ((11, 3), 12),
        ((DOUBLE, 3), 24),
        ((IFD, 3), 12),
        ((LONG8, 2), 16),
        ((17, 2), 16),
        ((18, 2), 16),
        ((0, 1_000), 0),
        ((19, 1_000), 0),
    ],
)
def test_an_entry_claims_what_does_not_fit_into_it(order: str, entry: tuple[int, int], claimed: int) -> None:
    file = io.BytesIO(_directory([entry, (BYTE, 100)], order))
    assert limits._claimed_bytes(file, order, False) == claimed + 100


def test_an_entry_of_a_large_file_has_room_for_eight_bytes() -> None:
    entries = [(BYTE, 8), (BYTE, 9), (LONG8, 1), (LONG8, 2)]
    assert limits._claimed_bytes(io.BytesIO(_directory(entries, is_big=True)), "<", True) == 9 + 16


def test_a_directory_that_is_cut_off_claims_what_is_there() -> None:
    whole = _directory([(BYTE, 10), (BYTE, 20), (BYTE, 40)])
    claimed = [limits._claimed_bytes(io.BytesIO(whole[:length]), "<", False) for length in range(len(whole) + 1)]
    assert claimed == [0] * 14 + [10] * 12 + [30] * 12 + [70]


def test_no_more_entries_are_read_than_the_directory_has() -> None:
    entries = _directory([(BYTE, 100)] * 40_001)[2:]
    assert limits._claimed_bytes(io.BytesIO(struct.pack("<H", 40_000) + entries), "<", False) == 4_000_000


@pytest.mark.parametrize("count", [65_537, 2**63 + 1])
def test_at_most_65536_entries_are_read(count: int) -> None:
    entries = _directory([(BYTE, 100)] * 65_537, is_big=True)[8:]
    assert limits._claimed_bytes(io.BytesIO(struct.pack("<Q", count) + entries), "<", True) == 6_553_600


def test_a_directory_is_read_where_it_is() -> None:
    content = b"\xff" * 7 + _directory([(BYTE, 10)])
    file = io.BytesIO(content)
    file.seek(7)
    assert limits._claimed_bytes(file, "<", False) == 10


@dataclass
class _Directory:
    """What is asked of Pillow's directory."""

    prefix: bytes
    _bigtiff: bool = False


@pytest.mark.parametrize(
    ("prefix", "order", "is_big"),
    [(b"II*\0", "<", False), (b"MM\0*", ">", False), (b"II+\0", "<", True), (b"MM\0+", ">", True)],
)
def test_a_directory_may_claim_four_times_the_file_and_64_kib(
    monkeypatch: pytest.MonkeyPatch, prefix: bytes, order: str, is_big: bool
) -> None:
    loaded: list[int] = []
    monkeypatch.setattr(limits, "_load_any_directory", lambda directory, file: loaded.append(file.tell()))
    length = 8 + len(_directory([(BYTE, 0)], order, is_big=is_big)) + 100
    for over in (0, 1):
        body = _directory([(BYTE, 4 * length + 65_536 + over)], order, is_big=is_big)
        file = io.BytesIO(b"\0" * 8 + body + b"\0" * 100)
        file.seek(8)
        if over:
            with pytest.raises(
                MetadataTooLargeError, match=f"the directory of {length} bytes claims {4 * length + 65_537}"
            ):
                limits._load_checked_directory(_Directory(prefix, is_big), file)  # type: ignore[arg-type]
        else:
            limits._load_checked_directory(_Directory(prefix, is_big), file)  # type: ignore[arg-type]
    assert loaded == [8]


def test_pillow_loads_checked_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TiffImagePlugin.ImageFileDirectory_v2, "load", limits._load_any_directory)
    limits.check_directories()
    assert TiffImagePlugin.ImageFileDirectory_v2.load is limits._load_checked_directory


# GIF comments.


def _gif(*blocks: bytes, flags: int = 0, palette: bytes = b"") -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, flags, 0, 0) + palette + b"".join(blocks)


def _extension(label: int, parts: int, length: int = 255) -> bytes:
    return bytes((0x21, label)) + (bytes((length,)) + b"," * length) * parts + b"\0"


COMMENT, OTHER = 0xFE, 0xF9
FRAME = b",\0\0\0\0\1\0\1\0\0"


@pytest.mark.parametrize(
    "content",
    [
        _gif(_extension(COMMENT, 4_096)),
        _gif(_extension(COMMENT, 4_095), _extension(COMMENT, 1, 253)),
        _gif(_extension(OTHER, 4_200), _extension(0xFF, 4_200)),
        _gif(FRAME, _extension(COMMENT, 4_200)),
        b"GIF88a" + _gif(_extension(COMMENT, 4_200))[6:],
        _gif(_extension(COMMENT, 2))[:-1],
        b"GIF89a",
        b"GIF89a\1\0\1\0",
        b"GIF89a\1\0\1\0\x80",
        _gif(b"!"),
        _gif(b"!\xfe"),
    ],
    ids=range(11),
)
def test_a_gif_s_comments_of_a_mebibyte_are_accepted(content: bytes) -> None:
    check_metadata(content)


@pytest.mark.parametrize(
    "content",
    [
        _gif(_extension(COMMENT, 4_096), _extension(COMMENT, 1, 1)),
        _gif(_extension(COMMENT, 4_097)),
        # Each end of a comment counts.
        _gif(_extension(COMMENT, 4_095), _extension(COMMENT, 1, 254), _extension(COMMENT, 1, 1)),
        # Each length counts: 524,289 parts of a byte.
        _gif(_extension(COMMENT, 524_289, 1)),
        _gif(_extension(OTHER, 3), b"\1\2\3", _extension(COMMENT, 4_097)),
        b"GIF87a" + _gif(_extension(COMMENT, 4_097))[6:],
        # The palette looks like a frame.
        _gif(_extension(COMMENT, 4_097), flags=0x80, palette=b"," * 6),
        _gif(_extension(COMMENT, 4_097), flags=0x87, palette=b"," * 768),
        _gif(_extension(COMMENT, 4_097), flags=0x07),
    ],
    ids=range(9),
)
def test_a_gif_s_longer_comments_are_refused(content: bytes) -> None:
    with pytest.raises(MetadataTooLargeError, match="the comments take more than 1048576 bytes"):
        check_metadata(content)


# JPEG segments.


def _segment(marker: int, length: int) -> bytes:
    """A segment whose length, which counts itself, is as given."""
    return bytes((0xFF, marker)) + length.to_bytes(2, "big") + b"\0" * (length - 2)


APP1, SCAN = 0xE1, b"\xff\xda\0\2"
FULL = b"\xff\xd8" + _segment(APP1, 65_535) * 512


def test_a_jpeg_s_segments_of_32_mib_are_accepted() -> None:
    check_metadata(FULL + _segment(0xEE, 512) + SCAN)
    # What comes after the first scan is read by the decoder.
    check_metadata(FULL + SCAN + _segment(APP1, 65_535))
    # Pillow skips what is no segment.
    check_metadata(FULL + b"\xff\x01" + (b"\0\0\xff\0") * 200_000 + SCAN)
    # What looks like a segment within another is none.
    inner = b"\xff\xe1\xff\xff" * 16_383
    check_metadata(b"\xff\xd8" + (b"\xff\xe1" + (2 + len(inner)).to_bytes(2, "big") + inner) * 512 + SCAN)
    for end in (b"", b"\xff", b"\xff\xe1", b"\xff\xe1\0"):
        check_metadata(b"\xff\xd8" + end)


@pytest.mark.parametrize(
    "content",
    [
        FULL + _segment(0xEE, 513) + SCAN,
        FULL + b"junk" + _segment(APP1, 65_535),
        FULL + _segment(0xFE, 513),
        FULL + b"\xff" + _segment(APP1, 65_535),
    ],
)
def test_a_jpeg_s_longer_segments_are_refused(content: bytes) -> None:
    with pytest.raises(MetadataTooLargeError, match="the segments before the pixels take more than 33554432 bytes"):
        check_metadata(content)


def test_other_formats_have_no_such_limit() -> None:
    check_metadata(b"\x89PNG" + FULL + _segment(APP1, 65_535))
    check_metadata(b"")


# Sizes before opening.


def _icon(*pictures: bytes) -> bytes:
    """An icon whose directory has wrong sizes."""
    start, entries = 6 + 16 * len(pictures), b""
    for picture in pictures:
        entries += struct.pack("<BBBBHHII", 1, 1, 0, 0, 1, 32, len(picture), start)
        start += len(picture)
    return struct.pack("<HHH", 0, 1, len(pictures)) + entries + b"".join(pictures)


def _png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + b"\0" * 8


def _bitmap_header(width: int, height: int) -> bytes:
    return struct.pack("<Iii", 40, width, height) + b"\0" * 28


def test_an_icon_has_the_sizes_of_its_pictures() -> None:
    pictures = [_png_header(70_000, 3), _bitmap_header(300, 500), _bitmap_header(-7, -10), _bitmap_header(5, 1)]
    assert sizes_before_opening(_icon(*pictures)) == [(70_000, 3), (300, 250), (7, 5)]
    assert sizes_before_opening(_icon(_bitmap_header(0, 500))) == []
    assert sizes_before_opening(_icon(*[_bitmap_header(2, 4)] * 5)) == [(2, 2)] * 5


def test_an_icon_s_entries_may_share_a_picture() -> None:
    entry = struct.pack("<BBBBHHII", 1, 1, 0, 0, 1, 32, 40, 6 + 16 * 1_000)
    icon = struct.pack("<HHH", 0, 1, 1_000) + entry * 1_000 + _bitmap_header(300, 500)
    assert sizes_before_opening(icon) == [(300, 250)] * 1_000
    assert sizes_before_opening(_icon(_png_header(2**31 + 1, 2**32 - 1))) == [(2**31 + 1, 2**32 - 1)]


def test_an_icon_that_is_cut_off_or_has_a_wrong_count() -> None:
    whole = _icon(_bitmap_header(300, 500))
    assert sizes_before_opening(whole[: 22 + 12]) == [(300, 250)]
    assert sizes_before_opening(whole[: 22 + 11]) == []
    # The rest of the sizes of a PNG that is cut off counts as large.
    cut = _icon(_png_header(70_000, 3))[: 22 + 20]
    assert sizes_before_opening(cut) == [(70_000, 0x01010101)]
    # A directory of 65,535 entries is followed as far as the file may hold pictures.
    many = struct.pack("<HHH", 0, 1, 65_535) + whole[6:]
    assert sizes_before_opening(many)[0] == (300, 250)
    assert len(sizes_before_opening(many)) <= len(many) // 16


def _webp(kind: bytes, body: bytes) -> bytes:
    return b"RIFF\0\0\0\0WEBP" + kind + b"\0\0\0\0" + body


def test_a_webp_has_the_size_of_its_canvas_or_picture() -> None:
    canvas = b"\0\0\0\0" + (70_000 - 1).to_bytes(3, "little") + (3 - 1).to_bytes(3, "little")
    assert sizes_before_opening(_webp(b"VP8X", canvas)) == [(70_000, 3)]
    assert sizes_before_opening(_webp(b"VP8X", canvas)[:-1]) == []
    packed = (16_384 - 1) | (5_000 - 1) << 14 | 0xF << 28
    lossless = b"\x2f" + packed.to_bytes(4, "little")
    assert sizes_before_opening(_webp(b"VP8L", lossless)) == [(16_384, 5_000)]
    assert sizes_before_opening(_webp(b"VP8L", lossless)[:-1]) == []
    # The two highest bits of each side are a scale.
    lossy = b"\0" * 6 + struct.pack("<HH", 16_383 | 0xC000, 77 | 0x4000)
    assert sizes_before_opening(_webp(b"VP8 ", lossy)) == [(16_383, 77)]
    assert sizes_before_opening(_webp(b"VP8 ", lossy)[:-1]) == []
    assert sizes_before_opening(_webp(b"VP8Y", lossy + canvas)) == []
    assert sizes_before_opening(_webp(b"VP8X", canvas).replace(b"WEBP", b"WAVE")) == []
    assert sizes_before_opening(b"RIFX" + _webp(b"VP8X", canvas)[4:]) == []


@pytest.mark.parametrize("options", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
def test_the_sizes_are_those_that_pillow_opens(options: dict[str, Any]) -> None:
    content = io.BytesIO()
    Image.new("RGB", (301, 77)).save(content, "WEBP", **options)
    assert sizes_before_opening(content.getvalue()) == [(301, 77)]
    icon = io.BytesIO()
    Image.new("RGB", (64, 64)).save(icon, "ICO", sizes=[(16, 16), (64, 64)])
    assert sorted(sizes_before_opening(icon.getvalue())) == [(16, 16), (64, 64)]


# Tiles and scans.


def test_the_size_of_a_tiff_s_tiles() -> None:
    assert tile_size(SimpleNamespace(tag_v2={322: 256, 323: 128})) == (256, 128)  # type: ignore[arg-type]
    for tags in ({}, {322: 256}, {323: 128}, {322: 256, 323: (128, 128)}, {322: "256", 323: 128}):
        assert tile_size(SimpleNamespace(tag_v2=tags)) is None  # type: ignore[arg-type]
    assert tile_size(SimpleNamespace()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "height", "scans", "is_refused"),
    [
        # 64 scans are never too many; above, scans × pixels may be 2**32.
        (8_192, 8_192, 64, False),
        (8_192, 8_192, 65, True),
        (16_384, 16_384, 64, False),
        (8_192, 4_096, 128, False),
        (8_192, 4_096, 129, True),
        (4_096, 4_096, 200, False),
    ],
)
def test_scans_are_limited_by_their_number_and_pixels(width: int, height: int, scans: int, is_refused: bool) -> None:
    # A scan takes at least ten bytes.
    content = b"\xff\xda\0\0\0\0\0\0\0\0" * scans
    for name, expected in (("JPEG", is_refused), ("MPO", is_refused), ("PNG", False), (None, False)):
        picture = SimpleNamespace(width=width, height=height, format=name)
        assert has_too_many_scans(picture, content) == expected  # type: ignore[arg-type]
        assert has_too_many_scans(picture, content + bytes(1_000)) == expected  # type: ignore[arg-type]


def test_bytes_alone_are_no_scans() -> None:
    picture = SimpleNamespace(width=8_192, height=8_192, format="JPEG")
    assert not has_too_many_scans(picture, b"\xff\xd9" * 1_000_000)  # type: ignore[arg-type]
