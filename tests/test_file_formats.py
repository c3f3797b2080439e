"""What can't be read is called by its name, and what of a file is not used is reported."""

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.core.decode import decode_image, decode_mask
from pipeline.core.errors import PictureError
from pipeline.core.file_formats import UNUSED_TEXTS, Unused, has_sixteen_bits, unsupported_format, unused_lines

HEIGHT, WIDTH = 12, 9
GREY = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)


def saved(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff(
    bands: int,
    dtype: str,
    *,
    planar: bool,
    photometric: int = 1,
    extra: tuple[int, ...] = (),
    changed: dict[int, list[int]] | None = None,
) -> bytes:
    """An uncompressed TIFF (revision 6.0) of ascending numbers, one strip a plane or one for all bands.

    Tags are as `changed` says, and left out where it has no value for them.
    """
    numbers = np.dtype(dtype)
    planes = [np.full((HEIGHT, WIDTH), 7 * (band + 1)).astype(numbers).tobytes() for band in range(bands)]
    pieces = planes if planar else [b"".join(planes)]
    offsets = np.cumsum([8, *map(len, pieces)])[:-1].tolist()
    kind = {"u": 1, "i": 2, "f": 3}[numbers.kind]
    tags: dict[int, list[int]] = {
        256: [WIDTH], 257: [HEIGHT], 258: [8 * numbers.itemsize] * bands, 259: [1], 262: [photometric],
        273: offsets, 277: [bands], 278: [HEIGHT], 279: list(map(len, pieces)), 284: [1 + planar], 339: [kind] * bands,
    }  # fmt: skip
    if extra:
        tags[338] = list(extra)
    tags = {tag: values for tag, values in (tags | (changed or {})).items() if values}
    data = b"".join(pieces)
    begin = 8 + len(data)
    rest_begin = begin + 2 + 12 * len(tags) + 4
    entries, rest = b"", b""
    for tag, values in sorted(tags.items()):
        body = struct.pack(f"<{len(values)}L", *values)
        entries += struct.pack("<HHL", tag, 4, len(values))
        entries += body if len(values) == 1 else struct.pack("<L", rest_begin + len(rest))
        rest += body if len(values) > 1 else b""
    return b"II*\0" + struct.pack("<L", begin) + data + struct.pack("<H", len(tags)) + entries + bytes(4) + rest


def fault(data: bytes, decode: Callable[..., Any] = decode_image) -> tuple[str, str]:
    with pytest.raises(PictureError) as caught:
        decode(data)
    return caught.value.error_type, caught.value.message


@pytest.mark.parametrize("decode", [decode_image, decode_mask])
@pytest.mark.parametrize(
    ("bands", "dtype", "planar"),
    [
        (13, "u2", True), (13, "u2", False), (13, "u1", True), (5, "f8", False), (5, "f8", True), (1, "f8", False),
        (4, "u1", True), (3, "f4", False), (3, "u4", True),
    ],
)  # fmt: skip
def test_bands_and_numbers_that_are_not_supported_are_named(
    decode: Callable[..., Any], bands: int, dtype: str, planar: bool
) -> None:
    numbers = np.dtype(dtype).name
    assert fault(tiff(bands, dtype, planar=planar), decode) == (
        "UnsupportedFormat",
        f"{bands}-band {numbers} TIFF is not supported",
    )


@pytest.mark.parametrize(("stage", "decode"), [("decode", decode_image), ("truth", decode_mask)])
@pytest.mark.parametrize(("bands", "dtype"), [(2, "u2"), (3, "u2"), (5, "f4")])
def test_planes_of_which_pillow_would_read_the_first_are_refused(
    stage: str, decode: Callable[..., Any], bands: int, dtype: str
) -> None:
    data = tiff(bands, dtype, planar=True, extra=(0,) * (bands - 1))
    assert Image.open(io.BytesIO(data)).getbands() in (("I",), ("F",))
    with pytest.raises(PictureError) as caught:
        decode(data)
    expected = (stage, "UnsupportedFormat", f"{bands}-band {np.dtype(dtype).name} TIFF is not supported")
    assert (caught.value.stage, caught.value.error_type, caught.value.message) == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # Beside one, only grey with alpha has several bands under a grey photometric interpretation.
        ("2-band uint8", tiff(2, "u1", planar=False)),
        ("2-band uint8", tiff(2, "u1", planar=False, extra=(0,))),
        ("3-band uint8", tiff(3, "u1", planar=False, extra=(1,))),
        ("3-band uint8", tiff(3, "u1", planar=False, extra=(1, 0))),
        ("3-band uint8", tiff(3, "u1", planar=False, changed={262: [0]})),
        (None, tiff(1, "u1", planar=False)),
        (None, tiff(2, "u1", planar=False, extra=(1,))),
        (None, tiff(2, "u1", planar=False, extra=(2,))),
        (None, tiff(3, "u1", planar=False, photometric=2)),
        (None, tiff(4, "u1", planar=False, photometric=2, extra=(1,))),
        ("5-band uint8", tiff(5, "u1", planar=False, photometric=2)),
        # Numbers.
        ("2-band uint32", tiff(2, "u4", planar=False, photometric=2)),
        ("1-band float16", tiff(1, "f2", planar=False)),
        ("1-band uint33", tiff(1, "u4", planar=False, changed={258: [33]})),
        ("1-band complex int16", tiff(1, "u2", planar=False, changed={339: [5]})),
        ("1-band complex float32", tiff(1, "u4", planar=False, changed={339: [6]})),
        (None, tiff(1, "u4", planar=False)),
        (None, tiff(1, "i4", planar=False)),
        (None, tiff(1, "f4", planar=False)),
        # A tag that is missing has the value of the specification.
        ("13-band uint16", tiff(13, "u2", planar=False, changed={339: []})),
        ("13-band uint16", tiff(13, "u2", planar=False, changed={339: [9]})),
        ("3-band uint8", tiff(3, "u1", planar=False, changed={262: []})),
        ("5-band uint1", tiff(5, "u1", planar=False, changed={258: []})),
        (None, tiff(5, "u1", planar=False, changed={277: []})),
    ],
)
def test_which_tiffs_are_not_supported(name: str | None, data: bytes) -> None:
    assert unsupported_format(data) == (None if name is None else f"{name} TIFF")


def test_files_of_64_bit_offsets_are_named_too() -> None:
    def big_tiff(bands: int) -> bytes:
        tags = {256: WIDTH, 257: HEIGHT, 258: 16, 262: 2, 277: bands, 339: 1}
        entries = b"".join(struct.pack("<HHQH6x", tag, 3, 1, value) for tag, value in sorted(tags.items()))
        return b"II\x2b\0" + struct.pack("<HHQQ", 8, 0, 16, len(tags)) + entries + bytes(8)

    assert unsupported_format(big_tiff(13)) == "13-band uint16 TIFF"
    assert unsupported_format(big_tiff(3)) is None


@pytest.mark.parametrize("planar", [False, True])
def test_pictures_of_three_bands_are_read_from_planes_too(planar: bool) -> None:
    pixels = np.stack([GREY, GREY + 40, GREY + 80], axis=-1)
    data = tiff(3, "u1", planar=planar, photometric=2)
    decoded = decode_image(data)
    assert decoded.pixels.shape == (HEIGHT, WIDTH, 3)
    if planar:
        assert [int(value) for value in decoded.pixels[0, 0]] == [7, 14, 21]
    assert decode_image(saved(Image.fromarray(pixels), "TIFF")).unused == ()


def test_a_grey_picture_of_32_bit_floats_is_read() -> None:
    assert decode_image(saved(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF")).unused == ()


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_is_reported_as_heic_under_any_name(brand: bytes) -> None:
    data = struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1heic" + bytes(400)
    assert fault(data) == ("UnsupportedFormat", "HEIC is not supported")


def test_avif_is_still_a_picture() -> None:
    assert decode_image(saved(Image.fromarray(GREY), "AVIF")).pixels.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("data", "error_type", "name"),
    [
        (b"\xff\x0a" + bytes(60), "UnsupportedFormat", "JPEG XL is not supported"),
        (bytes(128) + b"DICM" + bytes(60), "UnsupportedFormat", "DICOM is not supported"),
        (b"8BPS\0\x01" + bytes(60), "UnsupportedFormat", "Photoshop is not supported"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "NotAPicture", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "NotAPicture", "an HTML page"),
        (struct.pack(">I", 24) + b"ftypisom" + bytes(60), "NotAPicture", "an MP4 or QuickTime file"),
        (b"\x1f\x8b\x08" + bytes(60), "NotAPicture", "gzip data"),
        (b"RIFF" + bytes(4) + b"AVI LIST" + bytes(60), "NotAPicture", "an AVI video"),
        (b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(60), "NotAPicture", "not a picture format that can be read"),
        (bytes(8) + b"AVI LIST" + bytes(60), "NotAPicture", "not a picture format that can be read"),
        (b"no picture at all, just words", "NotAPicture", "not a picture format that can be read"),
    ],
)
def test_other_files_are_called_by_their_names(data: bytes, error_type: str, name: str) -> None:
    found_type, message = fault(data)
    assert found_type == error_type
    assert re.search(rf"(^| ){re.escape(name)}", message)


PAGES = [Image.fromarray(GREY + 20 * page) for page in range(10)]


@pytest.mark.parametrize("file_format", ["TIFF", "GIF", "PNG", "WEBP", "AVIF"])
def test_further_pages_and_frames_are_reported(file_format: str) -> None:
    pages = [page.convert("RGB") for page in PAGES]
    data = saved(pages[0], file_format, save_all=True, append_images=pages[1:])
    assert Unused.PAGES in decode_image(data).unused
    assert decode_image(saved(pages[0], file_format)).unused == ()


def test_overviews_and_masks_of_a_page_are_no_pages() -> None:
    kinds = (0, 1, 4)
    pages = [Image.fromarray(GREY[:: 1 + kind, :: 1 + kind]) for kind in kinds]
    for page, kind in zip(pages, kinds, strict=True):
        page.encoderinfo = {"tiffinfo": {254: kind}}
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode_image(data).unused == ()
    for page in pages:
        page.encoderinfo = {"tiffinfo": {254: 0}}
    assert decode_image(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])).unused == (Unused.PAGES,)


def test_pages_of_files_with_64_bit_offsets_are_found() -> None:
    data = saved(PAGES[0], "TIFF", save_all=True, append_images=PAGES[1:], big_tiff=True)
    assert data[2] == 43
    assert decode_image(data).unused == (Unused.PAGES,)


def test_directories_that_follow_one_another_in_a_circle_end() -> None:
    data = bytearray(saved(PAGES[0], "TIFF", save_all=True, append_images=[PAGES[1]]))
    begin = struct.unpack_from("<L", data, 4)[0]
    count = struct.unpack_from("<H", data, begin)[0]
    second = struct.unpack_from("<L", data, begin + 2 + 12 * count)[0]
    count = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<L", data, second + 2 + 12 * count, begin)
    assert decode_image(bytes(data)).unused == (Unused.PAGES,)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_reported_where_something_is_transparent(file_format: str) -> None:
    pixels = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    options = {"lossless": True} if file_format == "WEBP" else {}
    assert decode_image(saved(Image.fromarray(pixels), file_format, **options)).unused == ()
    pixels[3, 3, 3] = 254
    assert decode_image(saved(Image.fromarray(pixels), file_format, **options)).unused == (Unused.ALPHA,)


def test_transparency_of_a_palette_is_reported() -> None:
    picture = Image.fromarray(GREY).convert("P")
    assert decode_image(saved(picture, "PNG")).unused == ()
    assert decode_image(saved(picture, "PNG", transparency=3)).unused == (Unused.ALPHA,)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    ("highest", "unused"),
    [
        (1_023, (Unused.DEPTH, Unused.LOW_VALUES)),
        (4_095, (Unused.DEPTH, Unused.LOW_VALUES)),
        (65_535, (Unused.DEPTH,)),
        (8_000, (Unused.DEPTH,)),
    ],
)
def test_ten_and_twelve_bits_in_sixteen_are_reported(
    file_format: str, highest: int, unused: tuple[Unused, ...]
) -> None:
    values = np.linspace(0, highest, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    assert decode_image(saved(Image.fromarray(values), file_format)).unused == unused


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_of_colour_are_reported(file_format: str) -> None:
    colour = np.full((HEIGHT, WIDTH, 3), 50_000, np.uint16)
    done, encoded = cv2.imencode(f".{file_format.lower()}", colour)
    assert done
    assert Unused.DEPTH in decode_image(encoded.tobytes()).unused
    done, encoded = cv2.imencode(f".{file_format.lower()}", (colour >> 8).astype(np.uint8))
    assert decode_image(encoded.tobytes()).unused == ()


def test_a_picture_in_memory_has_sixteen_bits_by_its_mode() -> None:
    found = {mode: has_sixteen_bits(Image.new(mode, (2, 2))) for mode in ("1", "L", "P", "RGB", "I;16", "I", "F")}
    assert found == {"1": False, "L": False, "P": False, "RGB": False, "I;16": True, "I": True, "F": False}


def test_a_jpeg_has_nothing_unused() -> None:
    assert decode_image(saved(Image.fromarray(GREY), "JPEG")).unused == ()


def test_each_kind_has_a_text() -> None:
    assert set(UNUSED_TEXTS) == set(Unused)
    assert unused_lines({}) == []
    assert unused_lines({"depth": 1, "pages": 1_200}) == [
        "1 picture with 16 bits a channel: the upper 8 are used",
        "1,200 pictures with several pages or frames: the first is used",
    ]
