"""TIFF that are read by window: the pixels of the whole decoding, of which no more than needed is read."""

import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import tar_of
from PIL import Image
from segmented import PassingEngine, file_ref
from small_archive import run_job

from pipeline.core import tiff_windows
from pipeline.core.decode import decode_image
from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.labels import LabelMap
from pipeline.core.ranged_file import RangedFile
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, Located, PictureRecord
from pipeline.core.spec import ModelSpec
from pipeline.core.split_digests import picture_digest
from pipeline.core.strips import Window
from pipeline.core.tiff_windows import TiffWindows
from pipeline.output import mask_output
from pipeline.output.encode import decode_mask_file
from pipeline.output.outputs import Destination
from pipeline.output.png_stream import PngStream
from pipeline.output.registry import requested_outputs
from pipeline.segmenting import fetcher, preparing
from pipeline.segmenting.segmenter import Segmenter

HEIGHT, WIDTH = 150, 130


def noise(height: int = HEIGHT, width: int = WIDTH, bands: int = 3) -> npt.NDArray[np.uint8]:
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return pixels if bands > 1 else pixels[..., 0]


def striped(pixels: npt.NDArray[np.uint8], compression: str | None, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", compression=compression, strip_size=4096, **options)
    return file.getvalue()


def tiled(
    pixels: npt.NDArray[np.uint8], side: int = 64, *, is_big: bool = False, left_out: frozenset[int] = frozenset()
) -> bytes:
    """An uncompressed tiled TIFF, classic or BigTIFF, by the letter of the specification."""
    height, width, bands = pixels.shape
    rows, columns = -(-height // side), -(-width // side)
    padded = np.zeros((rows * side, columns * side, bands), np.uint8)
    padded[:height, :width] = pixels
    tiles = [
        b"" if row * columns + column in left_out
        else padded[row * side : (row + 1) * side, column * side : (column + 1) * side].tobytes()
        for row in range(rows)
        for column in range(columns)
    ]  # fmt: skip
    count, entry, number = ("<Q", "<HHQ", "Q") if is_big else ("<H", "<HHI", "I")
    width_of_value = 8 if is_big else 4
    tags = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8] * bands), 259: (3, [1]), 262: (3, [2]),
        277: (3, [bands]), 284: (3, [1]), 322: (3, [side]), 323: (3, [side]),
        324: (16 if is_big else 4, list[int]()), 325: (4, list[int]()),
    }  # fmt: skip
    head = 16 if is_big else 8
    begin = head + struct.calcsize(count) + len(tags) * (struct.calcsize(entry) + width_of_value) + width_of_value
    data_begin = begin + 8 * 2 * len(tiles) + 64
    ends = np.cumsum([data_begin, *map(len, tiles)]).tolist()
    tags[324] = (tags[324][0], [0 if not tile else at for at, tile in zip(ends, tiles, strict=False)])
    tags[325] = (4, [len(tile) for tile in tiles])
    directory, beyond = struct.pack(count, len(tags)), b""
    for tag, (kind, values) in tags.items():
        packed = struct.pack("<" + {3: "H", 4: "I", 16: "Q"}[kind] * len(values), *values)
        directory += struct.pack(entry, tag, kind, len(values))
        if len(packed) <= width_of_value:
            directory += packed.ljust(width_of_value, b"\0")
        else:
            directory += struct.pack("<" + number, begin + len(beyond))
            beyond += packed
    directory += bytes(width_of_value)
    first = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if is_big else struct.pack("<2sHI", b"II", 42, 8)
    return (first + directory + beyond).ljust(data_begin, b"\0") + b"".join(tiles)


FILES = {
    "tiled": tiled(noise()),
    "BigTIFF": tiled(noise(), is_big=True),
    "raw": striped(noise(), None),
    "deflate": striped(noise(), "tiff_adobe_deflate"),
    "lzw": striped(noise(), "tiff_lzw"),
    "packbits": striped(noise(), "packbits"),
    "jpeg": striped(noise(), "jpeg"),
    "predictor": striped(noise(), "tiff_lzw", tiffinfo={317: 2}),
    "grey": striped(noise(bands=1), "tiff_adobe_deflate"),
    "grey, white is 0": striped(noise(bands=1), None, tiffinfo={262: 0}),
}


def windows_of(data: bytes, channels: int = 3) -> TiffWindows:
    windows = TiffWindows.open(RangedFile.of_bytes(data), channels)
    assert windows is not None
    return windows


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
def test_all_windows_are_those_of_the_whole_decoding(name: str, channels: int) -> None:
    whole = decode_image(FILES[name], channels=channels).pixels
    raster = windows_of(FILES[name], channels)
    assert (raster.info.height, raster.info.width, raster.info.bands, raster.info.unused) == (
        HEIGHT,
        WIDTH,
        channels,
        (),
    )
    assert np.array_equal(raster.read(raster.info.whole), whole)
    for window in (Window(0, 0, 1, 1), Window(149, 129, 1, 1), Window(60, 60, 10, 70), Window(3, 0, 140, 2)):
        part = whole[window.top : window.top + window.height, window.left : window.left + window.width]
        assert np.array_equal(raster.read(window), part)


@settings(max_examples=60, deadline=None)
@given(
    top=st.integers(0, HEIGHT - 1), left=st.integers(0, WIDTH - 1), height=st.integers(1, HEIGHT),
    width=st.integers(1, WIDTH), name=st.sampled_from(["tiled", "lzw", "jpeg"]),
)  # fmt: skip
def test_any_window(top: int, left: int, height: int, width: int, name: str) -> None:
    window = Window(top, left, min(height, HEIGHT - top), min(width, WIDTH - left))
    whole = decode_image(FILES[name]).pixels
    expected = whole[top : top + window.height, left : left + window.width]
    assert np.array_equal(windows_of(FILES[name]).read(window), expected)


def test_only_what_a_window_meets_is_read_and_decoded_once() -> None:
    data, reads = FILES["tiled"], list[tuple[int, int]]()

    def read_range(offset: int, length: int) -> bytes:
        reads.append((offset, length))
        return data[offset : offset + length]

    raster = TiffWindows.open(RangedFile(read_range, len(data)), 3)
    assert raster is not None
    assert sum(length for _, length in reads) <= 2 << 16
    reads.clear()
    raster.read(Window(70, 10, 20, 40))
    assert [length for _, length in reads] == [64 * 64 * 3]
    raster.read(Window(80, 0, 40, 64))
    assert len(reads) == 1
    raster.read(Window(100, 0, 40, 64))
    assert len(reads) == 2
    raster.read(Window(130, 0, 5, 5))  # below the first row of tiles that was kept
    raster.read(Window(70, 0, 5, 5))
    assert len(reads) == 3


def test_what_is_decoded_is_forgotten_below() -> None:
    raster = windows_of(tiled(noise(1000, 64)))
    for top in range(0, 968, 32):
        raster.read(Window(top, 0, 32, 64))
        assert len(raster._decoded) <= 2


def test_tiles_that_are_left_out_are_black() -> None:
    pixels = noise()
    read = windows_of(tiled(pixels, left_out=frozenset((0, 4)))).read(Window(0, 0, HEIGHT, WIDTH))
    pixels[:64, :64] = pixels[64:128, 64:128] = 0
    assert np.array_equal(read, pixels)


def test_several_pages_are_reported() -> None:
    file = io.BytesIO()
    pages = [Image.fromarray(noise()) for _ in range(2)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert windows_of(file.getvalue()).info.unused == ("pages",)


def encoded(mode: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (40, 30)).save(file, "TIFF", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded("RGBA"), encoded("P"), encoded("1"), encoded("I;16"), encoded("F"), encoded("CMYK"), encoded("LA"),
        encoded("RGB", tiffinfo={274: 6}), b"", b"II*\0", b"no TIFF at all", FILES["tiled"][:60],
        tiled(noise()).replace(struct.pack("<HHII", 322, 3, 1, 64), struct.pack("<HHII", 322, 3, 1, 0)),
        tiled(noise()).replace(struct.pack("<HHII", 322, 3, 1, 64), struct.pack("<HHII", 322, 3, 1, 32)),
    ],
)  # fmt: skip
def test_other_layouts_are_decoded_whole(data: bytes) -> None:
    assert TiffWindows.open(RangedFile.of_bytes(data), 3) is None


def test_a_width_whose_rows_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = windows_of(FILES["tiled"]).decoded_bytes
    assert needed == HEIGHT * 3 * 64 * 3  # all rows, because there are few, of three tiles
    monkeypatch.setattr(tiff_windows, "MAX_DECODED_BYTES", needed)
    windows_of(FILES["tiled"])
    monkeypatch.setattr(tiff_windows, "MAX_DECODED_BYTES", needed - 1)
    assert TiffWindows.open(RangedFile.of_bytes(FILES["tiled"]), 3) is None


def test_a_file_that_is_cut_off_or_broken_fails() -> None:
    raster = windows_of(FILES["tiled"][:-10])
    raster.read(Window(0, 0, 10, 10))
    with pytest.raises(PictureError) as caught:
        raster.read(Window(140, 120, 10, 10))
    assert (caught.value.stage, caught.value.error_type) == ("decode", ErrorType.TRUNCATED)
    broken = bytearray(FILES["deflate"])
    broken[200:3000] = bytes(2800)
    with pytest.raises(PictureError):
        windows_of(bytes(broken)).read(Window(0, 0, HEIGHT, WIDTH))
    huge = tiled(noise()).replace(struct.pack("<I", 64 * 64 * 3), struct.pack("<I", 1 << 31))
    with pytest.raises(PictureError, match="claims 2,147,483,648 bytes"):
        windows_of(huge).read(Window(0, 0, 10, 10))


def test_a_ranged_file_reads_as_a_file() -> None:
    data = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
    file, plain = RangedFile.of_bytes(data), io.BytesIO(data)
    random = np.random.default_rng(1)
    for _ in range(300):
        if random.random() < 0.5:
            place = int(random.integers(0, 310_000))
            assert file.seek(place) == plain.seek(place)
        length = int(random.choice([0, 1, 7, 1000, 40_000, 100_000]))
        assert file.read(length) == plain.read(length)
        assert file.tell() == plain.tell()
    assert file.seek(0, io.SEEK_END) == len(data)
    assert file.read_at(299_990, 100) == data[-10:]
    assert file.read_at(400_000, 5) == b""
    assert picture_digest(file) == picture_digest(data)


@pytest.mark.parametrize(("classes", "dtype"), [(3, np.uint8), (300, np.uint16)])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_a_streamed_png_holds_the_mask(classes: int, dtype: type, rows: int) -> None:
    mask = np.random.default_rng(0).integers(0, classes, (1000, 1300)).astype(dtype)
    palette = bytes(range(9)) if dtype == np.uint8 else None
    streams = PngStream(*mask.shape, palette), PngStream(*mask.shape, palette)
    for top in range(0, 1000, rows):
        streams[0].add(mask[top : top + rows])
    streams[1].add(mask)
    data = streams[0].finish()
    assert data == streams[1].finish()
    assert np.array_equal(decode_mask_file(data), mask)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode == ("P" if palette else "I;16")
        assert palette is None or bytes(picture.getpalette() or ())[:9] == palette


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every TIFF is read by range and window, and every mask is written by strips."""
    monkeypatch.setattr(preparing, "MIN_WINDOWED_PIXELS", 1)
    monkeypatch.setattr(fetcher, "RANGED_FILE_BYTES", 1)
    monkeypatch.setattr(mask_output, "MAX_WHOLE_PIXELS", 1)
    return


@pytest.mark.parametrize("packed", ["files", "tar", "zip"])
def test_a_job_gives_the_masks_of_whole_decoding(
    packed: str, tmp_path: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{name.replace(', ', '_').replace(' ', '_')}.tif": data for name, data in FILES.items()}
    files["other.png"] = _png(noise())
    source = tmp_path / "in"
    if packed == "tar":
        source = tmp_path / "in.tar"
        source.write_bytes(tar_of(files))
    elif packed == "zip":
        source = tmp_path / "in.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        source.mkdir()
        for name, data in files.items():
            (source / name).write_bytes(data)
    opened: list[int] = []
    read = TiffWindows.read
    monkeypatch.setattr(TiffWindows, "read", lambda self, window: opened.append(1) or read(self, window))
    # Of other files the limit holds.
    done = run_job(tmp_path / "out", "--input", source, "--mode", "tile", "--max_pixels", HEIGHT * WIDTH - 1)
    assert (done.status, done.summary["images"]["segmented"]) == (3, len(FILES))
    assert done.summary["run"]["failures_by_type"] == {"TooLarge": 1}
    assert opened
    for name, data in files.items():
        if name.endswith(".tif"):
            mask = np.asarray(Image.open(tmp_path / f"out/masks/{name}.png"))
            assert np.array_equal(mask, decode_image(data).pixels.argmax(axis=2)), name
    again = run_job(tmp_path / "out", "--input", source, "--mode", "tile", "--max_pixels", HEIGHT * WIDTH - 1)
    assert again.summary["run"]["resumed"] == len(FILES)


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_file_that_breaks_while_it_is_read_costs_its_picture_alone(
    tmp_path: Path, tiny_model_spec: ModelSpec, small_limits: None
) -> None:
    paths = [tmp_path / f"{name}.tif" for name in "abc"]
    for path in paths:
        path.write_bytes(FILES["tiled"])
    pictures = [Located(path.name, file_ref(path)) for path in paths]
    recipe = Recipe(tiny_model_spec, "digest", LabelMap.identity(3), None, 10**6, mode="tile", tile_overlap=0.25)
    destination = Destination(str(tmp_path / "out"), requested_outputs({"mask_format": "png"}, recipe))
    paths[1].write_bytes(FILES["tiled"][:-10])
    outcomes, _ = Segmenter(recipe, destination, PassingEngine(), engine_batch=4).segment(pictures)
    first, second, third = outcomes
    assert isinstance(first, PictureRecord)
    assert isinstance(third, PictureRecord)
    assert first.source_bytes == len(FILES["tiled"])
    assert isinstance(second, Failure)
    assert (second.stage, second.error_type) == ("decode", "Truncated")


def test_outputs_of_the_picture_are_made_from_windows(tmp_path: Path, small_limits: None) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(FILES["tiled"])
    (tmp_path / "in/b.png").write_bytes(_png(noise()))
    whole, later = tmp_path / "whole", tmp_path / "later"
    run_job(whole, "--input", tmp_path / "in", "--mode", "tile", "--overlays", 2)
    run_job(later, "--input", tmp_path / "in", "--mode", "tile")
    updated = run_job(later, "--input", tmp_path / "in", "--mode", "tile", "--overlays", 2)
    assert updated.summary["run"]["resumed"] == 2
    overlays = [
        (folder / "overlays" / name).read_bytes() for folder in (whole, later) for name in ("a.tif.png", "b.png.png")
    ]
    assert len(set(overlays)) == 1
