"""Tiles at full resolution: every pixel once, blended as computed on the whole picture, in memory that has a bound."""

import io
import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from segmented import CountedBudget, PassingEngine, file_ref, written_mask
from small_archive import run_job

from pipeline.core.errors import OptionError
from pipeline.core.labels import LabelMap
from pipeline.core.raster import ArrayRaster, RasterInfo
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, Located, PictureRecord
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import Window
from pipeline.engines.base import Batch, Logits
from pipeline.output.outputs import Destination
from pipeline.output.registry import requested_outputs
from pipeline.segmenting.modes import make_mode
from pipeline.segmenting.segmentation import Model, load_model
from pipeline.segmenting.segmenter import Segmenter
from pipeline.segmenting.tile_axis import TileAxis
from pipeline.segmenting.tta import TTA
from pipeline.segmenting.whole import segment_raster

TILE = 32
"""The tiny model's input, px."""
SIZES = st.integers(1, 20) | st.integers(21, 110)
OVERLAPS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.8, 0.9])
ODD_SIZES = [(1, 1), (1, 20), (20, 1), (3, 7), (32, 32), (33, 32), (3, 5000), (5000, 3), (31, 200)]


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


class BoxEngine:
    """Logits are means over 5x5 pixels; beyond a tile's edge there are zeros, as with a network's padding."""

    radius = 2

    def logits(self, batch: Batch) -> Logits:
        return np.stack([box(picture) for picture in batch])


def box(picture: npt.NDArray[np.uint8] | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    side = 2 * BoxEngine.radius + 1
    values = np.ascontiguousarray(picture).astype(np.float32) / np.float32(16)
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32)


def blended_on_the_whole(pixels: npt.NDArray[np.uint8], rows: TileAxis, columns: TileAxis) -> npt.NDArray[np.float64]:
    """What tiles give, in float64 on the padded picture: weighted sums divided by the sum of weights."""
    tops = [rows.start(index) for index in range(rows.count)]
    lefts = [columns.start(index) for index in range(columns.count)]
    pads = ((-tops[0], tops[-1] + TILE - rows.length), (-lefts[0], lefts[-1] + TILE - columns.length), (0, 0))
    padded = np.pad(pixels, pads, "symmetric")
    u = (2 * np.arange(TILE) + 1) / TILE - 1
    weight = np.outer((1 - u**2) ** 2, (1 - u**2) ** 2)[..., None]
    total, weights = np.zeros(padded.shape), np.zeros((*padded.shape[:2], 1))
    for top in tops:
        for left in lefts:
            tile = np.s_[top - tops[0] : top - tops[0] + TILE, left - lefts[0] : left - lefts[0] + TILE]
            total[tile] += weight * box(padded[tile])
            weights[tile] += weight
    height, width = pixels.shape[:2]
    return (total / weights)[-tops[0] : height - tops[0], -lefts[0] : width - lefts[0]]


@settings(max_examples=200, deadline=None)
@given(length=SIZES, tile=st.integers(1, 64), overlap=OVERLAPS)
def test_tiles_cover_a_side_with_as_few_as_can(length: int, tile: int, overlap: float) -> None:
    axis = TileAxis.of(length, tile, overlap)
    assert 1 <= axis.step <= tile
    assert abs(tile - axis.step - tile * overlap) <= 1
    starts = [axis.start(index) for index in range(axis.count)]
    assert {second - first for first, second in pairwise(starts)} <= {axis.step}
    before, beyond = -starts[0], starts[-1] + tile - length
    assert 0 <= before <= beyond <= before + 1
    assert axis.count == 1 or before + beyond < axis.step
    weights, sums = axis.weights(), np.zeros(length)
    for index, start in enumerate(starts):
        first, end = axis.inside(index)
        sums[first:end] += weights[index, first - start : end - start]
    assert weights.min() > 0
    np.testing.assert_allclose(sums, 1, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(height=SIZES, width=SIZES, overlap=OVERLAPS, tta=st.sampled_from(list(TTA)))
def test_an_engine_that_passes_pixels_gives_their_argmax(
    height: int, width: int, overlap: float, tta: str, tiny_model_spec: ModelSpec
) -> None:
    pixels, engine = noise(height, width), PassingEngine()
    found = Model(tiny_model_spec, engine).segment(pixels, mode="tile", tile_overlap=overlap, tta=tta)
    np.testing.assert_array_equal(found.mask, pixels.argmax(axis=2))
    tiles = TileAxis.of(height, TILE, overlap).count * TileAxis.of(width, TILE, overlap).count
    assert len(engine.seen) == tiles * len(TTA[tta])


@pytest.mark.parametrize(("height", "width"), ODD_SIZES)
def test_pictures_of_odd_sizes(height: int, width: int, tiny_model_spec: ModelSpec) -> None:
    pixels = noise(height, width)
    found = Model(tiny_model_spec, PassingEngine()).segment(pixels, mode="tile")
    np.testing.assert_array_equal(found.mask, pixels.argmax(axis=2))


@settings(max_examples=40, deadline=None)
@given(height=SIZES, width=SIZES, overlap=OVERLAPS, tta=st.sampled_from(list(TTA)))
def test_blending_equals_a_computation_on_the_whole_picture(
    height: int, width: int, overlap: float, tta: str, tiny_model_spec: ModelSpec
) -> None:
    pixels = noise(height, width)
    found = Model(tiny_model_spec, BoxEngine()).segment(
        pixels, mode="tile", tile_overlap=overlap, tta=tta, probabilities=True
    )
    axes = TileAxis.of(height, TILE, overlap), TileAxis.of(width, TILE, overlap)
    # A box is symmetric, so turns change nothing.
    logits = blended_on_the_whole(pixels, *axes)
    exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
    expected = exponentials / exponentials.sum(axis=2, keepdims=True) * 255
    assert found.probabilities is not None
    assert np.abs(found.probabilities - expected.transpose(2, 0, 1)).max() < 0.51
    in_order = np.sort(logits, axis=2)
    is_clear = in_order[..., 2] - in_order[..., 1] > 1e-4
    np.testing.assert_array_equal(found.mask[is_clear], logits.argmax(axis=2)[is_clear])


@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_where_no_tile_ends_nearby_the_answer_is_that_of_the_whole_picture(
    overlap: float, tiny_model_spec: ModelSpec
) -> None:
    pixels = noise(150, 140)
    found = Model(tiny_model_spec, BoxEngine()).segment(pixels, mode="tile", tile_overlap=overlap)
    whole = box(np.pad(pixels, ((2, 2), (2, 2), (0, 0)), "symmetric"))[2:-2, 2:-2].argmax(axis=2)
    equal = found.mask == whole
    far = np.ones(equal.shape, bool)
    for axis, length in enumerate(equal.shape):
        tiles = TileAxis.of(length, TILE, overlap)
        for index in range(tiles.count):
            for edge in (tiles.start(index), tiles.start(index) + TILE):
                near = slice(max(0, edge - BoxEngine.radius), max(0, edge + BoxEngine.radius))
                far[near if axis == 0 else np.s_[:, near]] = False
    assert 0.2 < far.mean() < 0.9
    assert equal[far].all()
    # Near a tile's end its weight is small, so that its zeros beyond the end decide few pixels.
    assert equal[~far].mean() > 0.97
    plain = Model(tiny_model_spec, BoxEngine()).segment(pixels, mode="tile", tile_overlap=0.0)
    assert (plain.mask == whole).mean() < equal.mean()


def test_the_widest_jpeg(tiny_model_spec: ModelSpec) -> None:
    blocks = np.kron(noise(1, 8188), np.ones((8, 8, 1), np.uint8))[:, :65_500]
    file = io.BytesIO()
    Image.fromarray(blocks).save(file, "JPEG", quality=95, subsampling=0)
    engine = PassingEngine()
    found = Model(tiny_model_spec, engine).segment(file.getvalue(), mode="tile")
    assert found.mask.shape == (8, 65_500)
    np.testing.assert_array_equal(found.mask, found.pixels.argmax(axis=2))
    assert len(engine.seen) == 1 + -(-(65_500 - TILE) // 24)


def test_mirrored_margins_repeat_the_edge(tiny_model_spec: ModelSpec) -> None:
    pixels, engine = noise(3, 40), PassingEngine()
    Model(tiny_model_spec, engine).segment(pixels, mode="tile")
    rows = [2, 1, 0, 0, 1, 2] * 6  # three rows, mirrored again and again; the picture begins at row 14
    left, right = (np.pad(pixels, ((0, 0), (8, 8), (0, 0)), "symmetric")[:, start : start + TILE] for start in (0, 24))
    np.testing.assert_array_equal(engine.seen[0], left[[rows[(row - 14 + 36) % 6 + 3] for row in range(TILE)]])
    np.testing.assert_array_equal(engine.seen[1], right[[rows[(row - 14 + 36) % 6 + 3] for row in range(TILE)]])


def test_the_turns_are_all_different_and_undone(tiny_model_spec: ModelSpec) -> None:
    pixels = noise(TILE, TILE)
    for name, number in (("none", 1), ("flip", 2), ("d4", 8)):
        engine = PassingEngine()
        Model(tiny_model_spec, engine).segment(pixels, mode="tile", tta=name)
        assert len({np.ascontiguousarray(each).tobytes() for each in engine.seen}) == number
        assert all(np.array_equal(turn.undo(turn.apply(pixels)), pixels) for turn in TTA[name])
    np.testing.assert_array_equal(TTA["flip"][1].apply(pixels), pixels[:, ::-1])


class OneSided:
    """Logits that depend on the place in the input: the first class on the left half, the second on the right."""

    def logits(self, batch: Batch) -> Logits:
        logits = np.zeros((*batch.shape[:3], 3), np.float32)
        logits[:, :, : TILE // 2, 0] = 1
        logits[:, :, TILE // 2 :, 1] = 2
        return logits


@pytest.mark.parametrize("mode", ["resize", "tile"])
def test_averaging_is_over_the_turned_back_answers(mode: str, tiny_model_spec: ModelSpec) -> None:
    model, pixels = Model(tiny_model_spec, OneSided()), noise(TILE, TILE)
    plain = model.segment(pixels, mode=mode).mask
    assert set(plain[:, :12].flat) == {0}
    assert set(plain[:, 20:].flat) == {1}
    # Of both halves the mean is 0.5 for the first class and 1 for the second.
    assert set(model.segment(pixels, mode=mode, tta="flip").mask.flat) == {1}


def test_turns_by_right_angles_need_a_square_model(tiny_model_spec: ModelSpec) -> None:
    wide = replace(tiny_model_spec, width=48)
    make_mode("tile", wide, tta="flip")
    for mode in ("tile", "resize"):
        with pytest.raises(OptionError, match="--tta d4 needs a model of square input; this one takes 48x32 px"):
            make_mode(mode, wide, tta="d4")
    with pytest.raises(OptionError, match="--tta turn is not one of"):
        make_mode("tile", wide, tta="turn")
    for overlap in (-0.1, 0.95, float("nan")):
        with pytest.raises(OptionError, match=r"is not between 0 and 0\.9"):
            make_mode("tile", wide, tile_overlap=overlap)


def test_a_wide_model_is_given_wide_tiles(tiny_model_spec: ModelSpec) -> None:
    pixels, engine = noise(70, 90), PassingEngine()
    found = Model(replace(tiny_model_spec, width=48), engine).segment(pixels, mode="tile", tta="flip")
    assert {each.shape for each in engine.seen} == {(32, 48, 3)}
    np.testing.assert_array_equal(found.mask, pixels.argmax(axis=2))


class Halved(PassingEngine):
    """Logits of half the input's size."""

    def logits(self, batch: Batch) -> Logits:
        whole = super().logits(batch)
        return np.ascontiguousarray(
            whole[:, ::2, ::2] + whole[:, 1::2, ::2] + whole[:, ::2, 1::2] + whole[:, 1::2, 1::2]
        )


def test_smaller_logits_are_enlarged_to_the_tile(tiny_model_spec: ModelSpec) -> None:
    steps = np.kron(noise(12, 12), np.ones((8, 8, 1), np.uint8))
    found = Model(tiny_model_spec, Halved()).segment(steps, mode="tile", tile_overlap=0.5)
    expected = steps.argmax(axis=2)
    # Inside of each square of equal pixels bilinear values are those of the square.
    inside = np.s_[2::8, 2::8]
    np.testing.assert_array_equal(found.mask[inside], expected[inside])
    assert (found.mask == expected).mean() > 0.8


class Endless:
    """A raster whose pixels are made when they are read."""

    decoded_bytes = 0

    def __init__(self, height: int, width: int) -> None:
        self.info = RasterInfo(height, width, 3)

    def read(self, window: Window) -> npt.NDArray[np.uint8]:
        return np.full((window.height, window.width, 3), window.top % 256, np.uint8)

    def close(self) -> None:
        pass


class Silent:
    def logits(self, batch: Batch) -> Logits:
        return np.zeros((*batch.shape[:3], 3), np.float32)


def test_memory_does_not_grow_with_the_height(tiny_model_spec: ModelSpec) -> None:
    peaks, mode = [], make_mode("tile", tiny_model_spec, tile_overlap=0.5, tta="flip")
    for height in (200, 4000):
        tracemalloc.start()
        rows = [len(each.mask) for each in segment_raster(Endless(height, 600), Silent(), tiny_model_spec, mode)]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(rows) == height
    band_bytes = mode.assembler_bytes(RasterInfo(4000, 600, 3), tiny_model_spec)
    assert band_bytes == 4 * 3 * TILE * 600
    assert peaks[1] < peaks[0] + 200_000
    assert band_bytes < peaks[1] < 2 * band_bytes + 1_000_000


def test_a_window_is_read_once_for_all_turns(tiny_model_spec: ModelSpec) -> None:
    reads: list[Window] = []

    class Counting(Endless):
        def read(self, window: Window) -> npt.NDArray[np.uint8]:
            reads.append(window)
            return super().read(window)

    for _ in segment_raster(Counting(60, 60), Silent(), tiny_model_spec, make_mode("tile", tiny_model_spec, tta="d4")):
        pass
    assert len(reads) == len(set(reads)) == 9


def recipe_of(spec: ModelSpec, tta: str = "none") -> Recipe:
    return Recipe(spec, "digest", LabelMap.identity(3), None, 1_000_000, mode="tile", tile_overlap=0.25, tta=tta)


def drawn(folder: Path) -> list[Located]:
    pictures = []
    for place, (height, width) in enumerate(((70, 100), (5, 5), (33, 90), (64, 64))):
        path = folder / f"{place}.png"
        Image.fromarray(noise(height, width)).save(path)
        pictures.append(Located(path.name, file_ref(path), overlay=True))
    return pictures


def written(recipe: Recipe, pictures: list[Located], folder: Path, batch: int | None) -> Iterator[object]:
    options = {"mask_format": "png", "overlays": 9, "probabilities": True}
    destination = Destination(str(folder), requested_outputs(options, recipe))
    outcomes, _ = Segmenter(recipe, destination, BoxEngine(), engine_batch=batch).segment(pictures)
    yield from outcomes
    yield from (path.read_bytes() for path in sorted(folder.rglob("*.png")))


@pytest.mark.parametrize("tta", list(TTA))
def test_batches_change_no_byte(tiny_model_spec: ModelSpec, tmp_path: Path, tta: str) -> None:
    pictures, recipe = drawn(tmp_path), recipe_of(tiny_model_spec, tta)
    results = [list(written(recipe, pictures, tmp_path / str(batch), batch)) for batch in (1, 5, 64, None)]
    assert len(results[0]) == 4 + 3 * 4
    assert all(isinstance(outcome, PictureRecord) for outcome in results[0][:4])
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize("batch", [1, 4, None])
def test_a_tile_that_the_engine_refuses_costs_its_picture_alone(
    tiny_model_spec: ModelSpec, tmp_path: Path, batch: int | None
) -> None:
    pictures, recipe = drawn(tmp_path), recipe_of(tiny_model_spec)
    pixels = noise(33, 90)
    pixels[16, 80] = 7
    Image.fromarray(pixels).save(pictures[2].image.uri)

    class Refusing(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            if any((picture == 7).all(axis=2).any() for picture in batch):
                raise RuntimeError("refused")
            return super().logits(batch)

    destination = Destination(str(tmp_path / "out"), requested_outputs({"mask_format": "png"}, recipe))
    outcomes, _ = Segmenter(recipe, destination, Refusing(), engine_batch=batch).segment(pictures)
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, False, True, False]
    for picture in (pictures[0], pictures[1], pictures[3]):
        expected = np.asarray(Image.open(picture.image.uri)).argmax(axis=2)
        assert np.array_equal(written_mask(destination, picture.image_id), expected)


def test_the_budget_counts_the_band(tiny_model_spec: ModelSpec, tmp_path: Path) -> None:
    budget, recipe = CountedBudget(), recipe_of(tiny_model_spec)
    picture = drawn(tmp_path)[0]
    Segmenter(recipe, Destination(str(tmp_path / "out"), ()), PassingEngine(), decoding=budget).segment([picture])
    held, most = 0, 0
    for _, size_bytes in budget.shares:
        held += size_bytes
        most = max(most, held)
    band_bytes = 4 * 3 * TILE * 100
    assert most == 70 * 100 * 10 + band_bytes
    assert held == 0


def test_what_changes_tiles_is_done_again(tmp_path: Path) -> None:
    drawn(tmp_path)

    def resumed(*options: object) -> int:
        done = run_job(tmp_path / "out", "--input", tmp_path / "*.png", "--prune", *options)
        assert done.status == 0, done.err
        return int(done.summary["run"]["resumed"])

    assert resumed("--mode", "tile") == 0
    assert resumed("--mode", "tile", "--tile_overlap", 0.25) == 4
    assert resumed("--mode", "tile", "--tile_overlap", 0.5) == 0
    assert resumed("--mode", "tile", "--tile_overlap", 0.5, "--tta", "flip") == 0
    assert resumed("--mode", "tile", "--tile_overlap", 0.5, "--tta", "flip", "--batch_size", 3) == 4
    assert resumed("--mode", "resize", "--tta", "flip") == 0
    assert resumed("--tta", "flip") == 4


@pytest.mark.parametrize(
    ("usage", "options", "expected"),
    [
        (None, (), ("resize", 0.0)),
        ({"mode": "resize"}, (), ("resize", 0.0)),
        ({"mode": "tile", "tile_overlap": 0.5}, (), ("tile", 0.5)),
        ({"mode": "tile", "tile_overlap": 0.5}, ("--tile_overlap", 0.1), ("tile", 0.1)),
        ({"mode": "tile", "tile_overlap": 0.5}, ("--mode", "tile"), ("tile", 0.5)),
        ({"mode": "tile", "tile_overlap": 0.5}, ("--mode", "resize"), ("resize", 0.0)),
        (None, ("--mode", "tile"), ("tile", 0.25)),
    ],
)
def test_auto_follows_the_models_metadata(
    tmp_path: Path, tiny_model: Path, usage: object, options: tuple[object, ...], expected: tuple[str, float]
) -> None:
    pictures = drawn(tmp_path)
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    document = json.loads((model / "metadata.json").read_text("utf-8"))
    if usage is not None:
        document["usage"] = usage
    (model / "metadata.json").write_text(json.dumps(document), "utf-8")
    done = run_job(tmp_path / "out", "--input", tmp_path / "*.png", *options, model=model)
    assert done.summary["run"]["inference"] == {"mode": expected[0], "tile_overlap": expected[1], "tta": "none"}
    loaded, words = load_model(model), [str(word).removeprefix("--") for word in options]
    chosen = {words[0]: float(words[1]) if words[0] == "tile_overlap" else words[1]} if words else {}
    for picture in pictures:
        found = loaded.segment(picture.image.uri, **chosen).mask  # type: ignore[arg-type]
        assert np.array_equal(Image.open(tmp_path / f"out/masks/{picture.image_id}.png"), found)
    # Tiled, the tiny model gives the argmax of the pixels; resized, it does so of no picture of this size.
    is_tiled = np.array_equal(
        Image.open(tmp_path / "out/masks/0.png.png"), np.asarray(Image.open(tmp_path / "0.png")).argmax(axis=2)
    )
    assert is_tiled == (expected[0] == "tile")


def test_an_overlap_without_tiles_is_refused(tmp_path: Path) -> None:
    drawn(tmp_path)
    for mode in ("resize", "auto"):
        done = run_job(tmp_path / "out", "--input", tmp_path / "*.png", "--mode", mode, "--tile_overlap", 0.5)
        assert (done.status, "--tile_overlap needs --mode tile" in done.err) == (2, True)


def test_an_array_and_a_file_are_tiled_alike(tiny_model_spec: ModelSpec, tmp_path: Path) -> None:
    pictures, recipe = drawn(tmp_path), recipe_of(tiny_model_spec)
    destination = Destination(str(tmp_path / "out"), requested_outputs({"mask_format": "png"}, recipe))
    Segmenter(recipe, destination, BoxEngine()).segment(pictures)
    for picture in pictures:
        pixels = np.asarray(Image.open(picture.image.uri))
        rows = segment_raster(ArrayRaster(pixels), BoxEngine(), recipe.spec, make_mode("tile", recipe.spec))
        assert np.array_equal(written_mask(destination, picture.image_id), np.concatenate([each.mask for each in rows]))
