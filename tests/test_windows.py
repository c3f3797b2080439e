"""The seam between pictures and engine batches: windows of any pictures in, strips of each picture out."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from segmented import PassingEngine, file_ref, written_mask
from small_archive import run_job
from tiling import PlainTiles

from pipeline.core import strips
from pipeline.core.errors import ErrorType, OptionError, PictureError
from pipeline.core.labels import LabelMap
from pipeline.core.raster import ArrayRaster, Raster, RasterInfo
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, Located, PictureRecord
from pipeline.core.scores import confusion_matrix, matrix_of
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import Window
from pipeline.engines.base import Batch, Logits
from pipeline.output.outputs import Destination
from pipeline.output.registry import requested_outputs
from pipeline.segmenting import preparing
from pipeline.segmenting.mode import Assembler, FinishedRows, View
from pipeline.segmenting.modes import MODES
from pipeline.segmenting.segmenter import Segmenter

SIZES = ((64, 96), (32, 32), (96, 64), (64, 32))
"""Multiples of the tiny model's 32, so that tiles are not resized and the mask is known to the pixel."""
MARK = (123, 45, 67)


def draw(folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES) -> list[Located]:
    """Noise with a truth of noise, named by their place."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for place, (height, width) in enumerate(sizes):
        random = np.random.default_rng(place)
        paths = folder / f"{place}.png", folder / f"{place}_truth.png"
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[0])
        Image.fromarray(random.integers(0, 3, (height, width), dtype=np.uint8)).save(paths[1])
        pictures.append(Located(paths[0].name, *map(file_ref, paths), overlay=True))
    return pictures


def pixels_of(picture: Located) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(picture.image.uri))


def whole_reference(picture: Located) -> npt.NDArray[np.intp]:
    """The mask of an engine that gives the pixels back, from the whole picture at once."""
    return pixels_of(picture).argmax(axis=2)


@pytest.fixture
def recipe(tiny_model_spec: ModelSpec) -> Recipe:
    return Recipe(tiny_model_spec, "digest", LabelMap.identity(3), None, 1_000_000)


@pytest.fixture
def tiles(recipe: Recipe) -> Iterator[Recipe]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODES, "plain_tiles", lambda _: PlainTiles())  # type: ignore[arg-type]
        yield replace(recipe, mode="plain_tiles")


def all_outputs(recipe: Recipe, folder: Path) -> Destination:
    options = {"mask_format": "png", "overlays": 9, "probabilities": True}
    return Destination(str(folder), requested_outputs(options, recipe))


@pytest.mark.parametrize(("engine_batch", "sizes"), [(4, [4, 4, 4, 3]), (1, [1] * 15), (None, [15]), (50, [15])])
def test_windows_of_several_pictures_share_engine_batches(
    tiles: Recipe, tmp_path: Path, engine_batch: int | None, sizes: list[int]
) -> None:
    pictures, engine = draw(tmp_path / "in"), PassingEngine()
    destination = all_outputs(tiles, tmp_path / "out")
    outcomes, _ = Segmenter(tiles, destination, engine, engine_batch=engine_batch).segment(pictures)
    assert engine.batch_sizes == sizes
    for picture, outcome in zip(pictures, outcomes, strict=True):
        assert isinstance(outcome, PictureRecord)
        mask = written_mask(destination, picture.image_id)
        assert np.array_equal(mask, whole_reference(picture))
        assert outcome.value("area_px") == tuple(np.bincount(mask.ravel(), minlength=3).tolist())
        truth = np.asarray(Image.open(picture.truth.uri if picture.truth else ""))
        assert np.array_equal(matrix_of(outcome.value("confusion") or (), 3), confusion_matrix(truth, mask, 3))
        planes = np.asarray(Image.open(tmp_path / "out/probabilities" / f"{picture.image_id}.png"))
        planes = planes.reshape(3, *mask.shape)
        assert np.array_equal(np.take_along_axis(planes, mask[None], 0)[0], planes.max(axis=0))


def test_the_recipes_mode_decides_what_the_engine_sees(recipe: Recipe, tiles: Recipe, tmp_path: Path) -> None:
    (picture,) = draw(tmp_path / "in", ((64, 96),))

    tiled, resized = PassingEngine(), PassingEngine()
    Segmenter(tiles, all_outputs(tiles, tmp_path / "tiled"), tiled).segment([picture])
    Segmenter(recipe, all_outputs(recipe, tmp_path / "resized"), resized).segment([picture])
    pixels = pixels_of(picture)
    expected = [pixels[top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32, 64)]
    assert np.array_equal(tiled.seen, expected)
    assert len(resized.seen) == 1
    with pytest.raises(OptionError, match="--mode stretch is not one of"):
        Segmenter(replace(recipe, mode="stretch"), all_outputs(recipe, tmp_path / "out"), tiled)


@settings(max_examples=25, deadline=None)
@given(max_pixels=st.integers(1, 64 * 96), batch=st.sampled_from([None, 1, 3]), mode=st.sampled_from(list("rt")))
def test_any_division_into_strips_gives_the_same_records_and_files(
    max_pixels: int, batch: int | None, mode: str, tiny_model_spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("strips")
    pictures = draw(folder / "in", ((64, 96), (37, 51)))
    recipe = Recipe(tiny_model_spec, "digest", LabelMap.identity(3), None, 1_000_000)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODES, "plain_tiles", lambda _: PlainTiles())  # type: ignore[arg-type]
        recipe = replace(recipe, mode="plain_tiles" if mode == "t" else "resize")
        for name, strip_pixels, engine_batch in (("whole", 1 << 22, None), ("strips", max_pixels, batch)):
            patch.setattr(strips, "MAX_STRIP_PIXELS", strip_pixels)
            destination = all_outputs(recipe, folder / name)
            segmenter = Segmenter(recipe, destination, PassingEngine(), engine_batch=engine_batch)
            records, _ = segmenter.segment(pictures)
            files = {str(path.relative_to(folder / name)): path.read_bytes() for path in sorted(folder.rglob("*.png"))
                     if path.is_relative_to(folder / name)}  # fmt: skip
            assert len(files) == 6
            results.append((records, files))
    assert results[0] == results[1]


@pytest.mark.parametrize("engine_batch", [1, 4, None])
def test_a_bad_window_costs_its_picture_alone(tiles: Recipe, tmp_path: Path, engine_batch: int | None) -> None:
    pictures = draw(tmp_path / "in")
    pixels = pixels_of(pictures[2]).copy()
    pixels[:32, 32:64] = MARK
    Image.fromarray(pixels).save(pictures[2].image.uri)

    class Refusing(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            if any((window == MARK).all() for window in batch):
                raise RuntimeError("marked")
            return super().logits(batch)

    engine = Refusing()
    destination = all_outputs(tiles, tmp_path / "out")
    outcomes, _ = Segmenter(tiles, destination, engine, engine_batch=engine_batch).segment(pictures)
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, False, True, False]
    if engine_batch == 1:
        # Of the bad picture's six windows the first is inferred, and none after the second, which is refused.
        assert engine.batch_sizes == [1] * (6 + 1 + 1 + 2)
    for picture in (pictures[0], pictures[1], pictures[3]):
        assert np.array_equal(written_mask(destination, picture.image_id), whole_reference(picture))
    assert not (tmp_path / "out/masks/2.png.png").exists()


class FailingRaster(ArrayRaster):
    """A file that is broken behind its first window."""

    def __init__(self, raster: Raster) -> None:
        super().__init__(raster.read(raster.info.whole))
        self.reads = 0

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        self.reads += 1
        if self.reads > 1:
            raise PictureError("decode", ErrorType.TRUNCATED, "no more of it")
        return super().read(window)


def test_windows_of_a_picture_that_breaks_later_are_not_inferred(
    tiles: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, engine = draw(tmp_path / "in"), PassingEngine()
    opened, bad = preparing.open_raster, Path(pictures[2].image.uri).read_bytes()

    def breaking(data: bytes, *, channels: int, max_pixels: int | None) -> Raster:
        raster = opened(data, channels=channels, max_pixels=max_pixels)
        return FailingRaster(raster) if data == bad else raster

    monkeypatch.setattr(preparing, "open_raster", breaking)
    outcomes, _ = Segmenter(tiles, all_outputs(tiles, tmp_path / "out"), engine).segment(pictures)
    assert [getattr(outcome, "error_type", "") for outcome in outcomes] == ["", "", "Truncated", ""]
    assert engine.batch_sizes == [6 + 1 + 2]


def test_the_engine_runs_as_soon_as_a_batch_is_full(
    tiles: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[int | str] = []
    opened = preparing.open_raster

    def noting(data: bytes, *, channels: int, max_pixels: int | None) -> Raster:
        events.append("open")
        return opened(data, channels=channels, max_pixels=max_pixels)

    class Noting(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            events.append(len(batch))
            return super().logits(batch)

    monkeypatch.setattr(preparing, "open_raster", noting)
    destination = all_outputs(tiles, tmp_path / "out")
    Segmenter(tiles, destination, Noting(), engine_batch=4).segment(draw(tmp_path / "in"))
    assert events == ["open", 4, "open", "open", 4, 4, "open", 3]


def test_what_the_raster_knows_of_its_pixels_is_recorded(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = preparing.open_raster

    def of_fields(data: bytes, *, channels: int, max_pixels: int | None) -> Raster:
        raster = opened(data, channels=channels, max_pixels=max_pixels)
        fields = ArrayRaster(raster.read(raster.info.whole), unused=("pages",))
        fields.info = replace(fields.info, pixel_area_m2=0.25)
        return fields

    monkeypatch.setattr(preparing, "open_raster", of_fields)
    outcomes, _ = Segmenter(recipe, Destination(str(tmp_path / "out"), ()), PassingEngine()).segment(
        draw(tmp_path / "in")
    )
    assert [(getattr(outcome, "pixel_area_m2", None), getattr(outcome, "unused", ())) for outcome in outcomes] == [
        (0.25, ("pages",))
    ] * len(SIZES)


def test_a_mode_that_leaves_rows_out_is_a_defect(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(PlainTiles):
        def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
            whole = super().assembler(info, spec)

            class AllButOne:
                def add(self, view: View, logits: Logits) -> Iterator[FinishedRows]:
                    return (rows for rows in whole.add(view, logits) if rows.top)

            return AllButOne()

    monkeypatch.setitem(MODES, "forgetful", lambda _: Forgetful())  # type: ignore[arg-type]
    recipe = replace(recipe, mode="forgetful")
    segmenter = Segmenter(recipe, all_outputs(recipe, tmp_path / "out"), PassingEngine())
    with pytest.raises(AssertionError, match="has not finished all rows"):
        segmenter.segment(draw(tmp_path / "in"))


@pytest.mark.parametrize("overlay", [False, True])
def test_pixels_are_freed_before_the_engine_runs_unless_an_output_needs_them(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: bool
) -> None:
    rasters: list[Raster] = []
    opened = preparing.open_raster

    def remembering(data: bytes, *, channels: int, max_pixels: int | None) -> Raster:
        rasters.append(opened(data, channels=channels, max_pixels=max_pixels))
        return rasters[-1]

    def can_be_read(raster: Raster) -> bool:
        try:
            return raster.read(Window(0, 0, 1, 1)).size > 0
        except ValueError:
            return False

    class Looking(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            assert [can_be_read(raster) for raster in rasters] == [overlay] * len(rasters)
            return super().logits(batch)

    monkeypatch.setattr(preparing, "open_raster", remembering)
    pictures = [replace(picture, overlay=overlay) for picture in draw(tmp_path / "in")]
    outcomes, _ = Segmenter(recipe, all_outputs(recipe, tmp_path / "out"), Looking()).segment(pictures)
    assert all(isinstance(outcome, PictureRecord) for outcome in outcomes)
    assert len(rasters) == len(pictures)
    assert not any(map(can_be_read, rasters))


def test_the_option_decides_the_mode_of_a_job(tiles: Recipe, tmp_path: Path) -> None:
    pictures = draw(tmp_path / "in")
    for picture in pictures:
        assert picture.truth is not None
        Path(picture.truth.uri).unlink()
    done = {mode: run_job(tmp_path / mode, "--input", tmp_path / "in", "--mode", mode) for mode in MODES}
    assert {mode: job.summary["images"]["segmented"] for mode, job in done.items()} == dict.fromkeys(MODES, 4)
    equal = {
        mode: np.array_equal(Image.open(tmp_path / mode / "masks/0.png.png"), whole_reference(pictures[0]))
        for mode in MODES
    }
    assert equal == {"resize": False, "tile": True, tiles.mode: True}
