"""Decoding within a budget of bytes, known from a picture's header before anything is decoded."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from segmented import CountedBudget, PassingEngine, file_ref

from pipeline.core.errors import EngineError
from pipeline.core.labels import LabelMap
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, Located
from pipeline.core.spec import ModelSpec
from pipeline.engines.base import Batch, Logits
from pipeline.output.outputs import Destination
from pipeline.output.overlay_output import OverlayOutput
from pipeline.segmenting.byte_budget import ByteBudget
from pipeline.segmenting.segmenter import Segmenter


@pytest.fixture
def recipe(tiny_model_spec: ModelSpec) -> Recipe:
    return Recipe(tiny_model_spec, "digest", LabelMap.identity(3), None, 1_000_000)


def large_flat(folder: Path, count: int) -> list[Located]:
    """Pictures of 500×400 px of which each file has less than a hundredth of its pixels' bytes."""
    folder.mkdir()
    pictures = []
    for place in range(count):
        path = folder / f"{place}.png"
        Image.new("RGB", (500, 400), (place, 2, 3)).save(path)
        assert path.stat().st_size < 500 * 400 * 3 / 100
        pictures.append(Located(path.name, file_ref(path)))
    return pictures


DECODED_BYTES = 500 * 400 * 10
"""Four bytes a pixel for Pillow, three for the array, three for the parts that it is joined of."""
LEFT_BYTES = 500 * 400
"""What stays of a picture without truth and overlay until its mask is made: the mask's own bytes."""


def test_the_budget_counts_decoded_bytes_and_knows_them_from_the_header(recipe: Recipe, tmp_path: Path) -> None:
    decoding = CountedBudget()
    destination = Destination(str(tmp_path / "out"), ())
    Segmenter(recipe, destination, PassingEngine(), decoding=decoding).segment(large_flat(tmp_path / "in", 2))
    assert decoding.shares == [
        (1, DECODED_BYTES), (0, LEFT_BYTES - DECODED_BYTES), (1, DECODED_BYTES), (0, LEFT_BYTES - DECODED_BYTES),
        (-1, -LEFT_BYTES), (-1, -LEFT_BYTES),
    ]  # fmt: skip


def test_pixels_that_an_overlay_needs_count_until_it_is_made(recipe: Recipe, tmp_path: Path) -> None:
    decoding = CountedBudget()
    destination = Destination(str(tmp_path / "out"), (OverlayOutput(recipe),))
    pictures = [replace(picture, overlay=True) for picture in large_flat(tmp_path / "in", 2)]
    Segmenter(recipe, destination, PassingEngine(), decoding=decoding).segment(pictures)
    assert decoding.shares == [(1, DECODED_BYTES), (1, DECODED_BYTES), (-1, -DECODED_BYTES), (-1, -DECODED_BYTES)]


def test_an_engine_batch_ends_where_the_budget_has_no_room_for_more_pixels(recipe: Recipe, tmp_path: Path) -> None:
    engine, decoding = PassingEngine(), ByteBudget(DECODED_BYTES + 4 * LEFT_BYTES)
    destination = Destination(str(tmp_path / "out"), ())
    outcomes, _ = Segmenter(recipe, destination, engine, decoding=decoding).segment(large_flat(tmp_path / "in", 12))
    assert engine.batch_sizes == [5, 5, 2]
    assert not any(isinstance(outcome, Failure) for outcome in outcomes)


class Peak(ByteBudget):
    """A budget that remembers how much was held at most, and by how many."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.peak_bytes = self.peak_holders = 0

    def _change(self, holders: int, size_bytes: int) -> None:
        super()._change(holders, size_bytes)
        self.peak_bytes = max(self.peak_bytes, self._held_bytes)
        self.peak_holders = max(self.peak_holders, self._holders)


@pytest.mark.parametrize("max_bytes", [1, 2 * DECODED_BYTES, 100 * DECODED_BYTES])
def test_threads_decode_together_no_more_than_the_budget_allows(recipe: Recipe, tmp_path: Path, max_bytes: int) -> None:
    decoding = Peak(max_bytes)
    barrier = threading.Barrier(4)
    segmenter = Segmenter(
        recipe, Destination(str(tmp_path / "out"), ()), PassingEngine(), decoding=decoding, engine_batch=2
    )
    pictures = large_flat(tmp_path / "in", 24)
    done: list[object] = []

    def work(part: list[Located]) -> None:
        barrier.wait(20)
        done.extend(segmenter.segment(part)[0])

    threads = [threading.Thread(target=work, args=(pictures[n::4],), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert len(done) == 24
    assert decoding.peak_bytes <= max(max_bytes, DECODED_BYTES)
    if max_bytes == 1:
        assert decoding.peak_holders == 1
    assert (decoding._holders, decoding._held_bytes) == (0, 0)


def test_an_engine_that_is_broken_gives_the_room_for_pixels_back(recipe: Recipe, tmp_path: Path) -> None:
    class Broken(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            raise EngineError("no engine at all")

    decoding = CountedBudget()
    segmenter = Segmenter(recipe, Destination(str(tmp_path / "out"), ()), Broken(), decoding=decoding)
    with pytest.raises(EngineError):
        segmenter.segment(large_flat(tmp_path / "in", 3))
    assert len(decoding.shares) >= 3
    assert tuple(map(sum, zip(*decoding.shares, strict=True))) == (0, 0)
