"""A mode decides what the model sees of a picture, and the finished rows are the whole picture once."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segmented import PassingEngine
from tiling import PlainTiles

from pipeline.core import strips
from pipeline.core.errors import OptionError
from pipeline.core.model_input import model_input
from pipeline.core.raster import ArrayRaster, RasterInfo
from pipeline.core.resize import mask_from_logits, probabilities_from_logits
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import Window
from pipeline.segmenting.mode import View
from pipeline.segmenting.modes import MODES, make_mode
from pipeline.segmenting.segmentation import Model
from pipeline.segmenting.whole import segment_raster


@pytest.fixture
def tiles() -> Iterator[str]:
    """The name under which the plain tiles can be chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODES, "plain_tiles", lambda _: PlainTiles())  # type: ignore[arg-type]
        yield "plain_tiles"


def random_pixels(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_an_unknown_mode_is_refused(tiny_model_spec: ModelSpec) -> None:
    with pytest.raises(OptionError, match="--mode stretch is not one of resize, tile"):
        make_mode("stretch", tiny_model_spec)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90))
def test_resize_shows_the_model_the_whole_picture(height: int, width: int, tiny_model_spec: ModelSpec) -> None:
    mode, info = make_mode("resize", tiny_model_spec), RasterInfo(height, width, 3)
    assert list(mode.views(info, tiny_model_spec)) == [View(Window(0, 0, height, width))]
    pixels, engine = random_pixels(height, width), PassingEngine()
    mask = Model(tiny_model_spec, engine).segment(pixels).mask
    (seen,) = engine.seen
    np.testing.assert_array_equal(seen, model_input(pixels, tiny_model_spec.input))
    np.testing.assert_array_equal(mask, mask_from_logits(seen / np.float32(255), height, width))


@pytest.mark.parametrize("max_pixels", [1, 50, 90 * 70 - 1, 90 * 70])
def test_strips_of_any_height_are_the_whole(
    monkeypatch: pytest.MonkeyPatch, tiny_model_spec: ModelSpec, max_pixels: int
) -> None:
    monkeypatch.setattr(strips, "MAX_STRIP_PIXELS", max_pixels)
    logits = np.random.default_rng(0).normal(size=(32, 32, 3)).astype(np.float32)
    assembler = make_mode("resize", tiny_model_spec).assembler(RasterInfo(90, 70, 3), tiny_model_spec)
    rows = list(assembler.add(View(Window(0, 0, 90, 70)), logits))
    assert [each.top for each in rows] == list(range(0, 90, max(1, max_pixels // 70)))
    np.testing.assert_array_equal(np.concatenate([each.mask for each in rows]), mask_from_logits(logits, 90, 70))
    probabilities = np.concatenate([each.probabilities() for each in rows], axis=1)
    np.testing.assert_array_equal(probabilities, probabilities_from_logits(logits, 90, 70))


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 100), width=st.integers(1, 100))
def test_another_mode_divides_it_into_windows(height: int, width: int, tiny_model_spec: ModelSpec) -> None:
    pixels, engine = random_pixels(height, width), PassingEngine()
    rows = list(segment_raster(ArrayRaster(pixels), engine, tiny_model_spec, PlainTiles()))
    assert len(engine.seen) == -(-height // 32) * -(-width // 32)
    mask = np.concatenate([each.mask for each in rows])
    assert mask.shape == (height, width)
    # Tiles of the model's size are not resized, so there the logits are the pixels themselves.
    whole = np.s_[: height // 32 * 32, : width // 32 * 32]
    np.testing.assert_array_equal(mask[whole], pixels.argmax(axis=2)[whole])


def test_a_grey_model_sees_grey(tiny_model_spec: ModelSpec, tiles: str) -> None:
    spec = replace(tiny_model_spec, channels=1)
    engine = PassingEngine()
    mask = Model(spec, engine).segment(random_pixels(64, 32)[..., :1], mode=tiles).mask
    assert [each.shape for each in engine.seen] == [(32, 32, 1)] * 2
    assert not mask.any()
