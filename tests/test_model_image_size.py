"""`--image_size auto`: the rule, what perfect masks keep, and the choice for data whose detail is known."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.cli import main  # noqa: E402
from model.data.encoded_pairs import EncodedPair, open_source  # noqa: E402
from model.data.image_size import (  # noqa: E402
    MAX_COST,
    MIN_KEPT,
    SizeScore,
    best_size,
    candidate_sizes,
    choose_image_size,
    cost_of,
    kept_score,
    sample_by_hash,
    typical_size,
)
from model.options import TrainOptions, parse_image_size  # noqa: E402
from model.preparation import prepare_job  # noqa: E402
from pipeline.core.errors import OptionError  # noqa: E402
from pipeline.core.labels import LabelMap  # noqa: E402
from pipeline.core.truth import Labels  # noqa: E402

SIDES = st.integers(1, 40).map(lambda steps: 16 * steps)
SCORES = st.builds(SizeScore, st.tuples(SIDES, SIDES), st.floats(0.0, 1.0))
LABELS = Labels(LabelMap.identity(2), 2, None)


@given(st.lists(SCORES, min_size=1, max_size=30), st.randoms())
def test_the_cheapest_size_that_keeps_enough_is_chosen(scores: list[SizeScore], random: object) -> None:
    chosen = best_size(scores)
    enough = [one for one in scores if one.kept >= MIN_KEPT]
    if enough:
        assert chosen.kept >= MIN_KEPT
    else:
        best = max(one.kept for one in scores)
        enough = [one for one in scores if one.kept >= best - 0.005]
        assert chosen.kept >= best - 0.005
    cheapest = min(one.cost for one in enough)
    assert chosen.cost <= 1.1 * cheapest
    assert all(one.kept <= chosen.kept for one in enough if one.cost <= 1.1 * cheapest)
    shuffled = list(scores)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert best_size(shuffled) == chosen


@given(st.integers(1, 30_000), st.integers(1, 30_000), st.sampled_from((2, 16, 32, 64)))
def test_candidates_are_multiples_within_the_bound_and_the_pictures(height: int, width: int, step: int) -> None:
    sizes = candidate_sizes((height, width), step, 128)
    assert sizes
    costs = [cost_of(size) for size in sizes]
    assert costs == sorted(costs)
    assert len(sizes) == 1 or costs[-1] <= MAX_COST
    for size in sizes:
        assert all(side > 0 and side % step == 0 for side in size)
        assert size[0] < height + step or size[1] < width + step


def test_candidates_are_square_and_in_the_pictures_proportions() -> None:
    street = candidate_sizes((720, 960), 16, 128)
    assert street[:4] == [(112, 144), (128, 128), (160, 160), (144, 192)]
    assert (384, 512) in street
    assert candidate_sizes((48, 40), 16, 128) == [(48, 48)]
    # A preset that needs more has larger ones; at steps of 32 px not all proportions are possible.
    assert candidate_sizes((720, 960), 32, 160)[:2] == [(160, 160), (160, 224)]


@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), min_size=1, max_size=9))
def test_the_typical_size_lies_between_the_pictures(sizes: list[tuple[int, int]]) -> None:
    height, width = typical_size(sizes)
    pixels, ratios = [h * w for h, w in sizes], [h / w for h, w in sizes]
    assert min(pixels) * 0.5 - 1 <= height * width + height + width
    assert height * width <= (max(pixels) + height + width) * 1.5
    assert min(ratios) <= (height + 1) / max(width - 1, 0.5)
    assert max(ratios) >= (height - 1) / (width + 1)


def _bars(height: int, width: int, thickness: int, vertical: bool = True) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    if vertical:
        for start in range(0, width, 8 * thickness):
            mask[:, start : start + thickness] = 1
    else:
        for start in range(0, height, 8 * thickness):
            mask[start : start + thickness] = 1
    return mask


def test_what_is_kept_is_counted_after_the_way_there_and_back() -> None:
    mask = _bars(64, 64, 8)
    assert kept_score([mask], [(1.0, 1.0)], 2, (64, 64)) == 1.0
    # A bar of 3 px is less than half of what a logit covers at an eighth of the size.
    assert 0.4 < kept_score([_bars(64, 64, 3)], [(1.0, 1.0)], 2, (8, 8)) < 0.9
    # A mask of one class can't lose anything, and one of ignored pixels can't be scored.
    assert kept_score([np.ones((32, 32), np.uint8)], [(1.0, 1.0)], 2, (2, 2)) == 1.0
    assert np.isnan(kept_score([np.full((32, 32), 2, np.uint8)], [(1.0, 1.0)], 2, (2, 2)))
    ignored = mask.copy()
    ignored[:, 32:] = 2
    assert kept_score([ignored], [(1.0, 1.0)], 2, (64, 64)) == 1.0


def test_a_part_of_a_mask_is_measured_at_the_scale_of_the_whole() -> None:
    mask = _bars(512, 512, 8)
    whole = kept_score([mask], [(1.0, 1.0)], 2, (128, 128))
    part = kept_score([mask[:128, :128]], [(0.25, 0.25)], 2, (128, 128))
    assert part == pytest.approx(whole, abs=0.01)


def _write(folder: Path, masks: list[np.ndarray]) -> Path:
    for number, mask in enumerate(masks):
        for kind, pixels in (("images", np.zeros((*mask.shape, 3), np.uint8)), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / kind / f"p{number:02d}.png")
    return folder


def _choose(folder: Path, labels: Labels = LABELS, kept: str = "") -> tuple[tuple[int, int], list[str]]:
    pairs = open_source(str(folder), None)
    chosen = choose_image_size(pairs, labels, 3, 16, (128, 128), lambda pair_id: bool(kept) and pair_id in kept)
    return chosen.size, list(chosen.lines)


def test_coarse_masks_take_the_smallest_size_and_thin_ones_a_larger(tmp_path: Path) -> None:
    sizes = []
    for thickness in (64, 5, 3):
        size, lines = _choose(_write(tmp_path / str(thickness), [_bars(512, 512, thickness)] * 3))
        sizes.append(cost_of(size))
        assert lines[0].startswith(
            f"input size {size[0]}x{size[1]} px (--image_size auto): the cheapest that keeps 0.985"
        )
        assert "3 of 3 pictures measured, typically 512x512 px" in lines[0]
        assert sum(line.endswith("<- chosen") for line in lines) == 1
    assert sizes[0] == 1.0
    assert sizes == sorted(set(sizes))


def test_the_size_is_wide_where_the_pictures_are(tmp_path: Path) -> None:
    (height, width), _ = _choose(_write(tmp_path, [_bars(256, 1024, 12)] * 2))
    assert width >= 2 * height


def test_what_no_size_within_the_bound_keeps_is_warned_of(tmp_path: Path) -> None:
    size, lines = _choose(_write(tmp_path, [_bars(2048, 2048, 2)] * 2))
    assert cost_of(size) <= MAX_COST
    assert "none up to cost 12.5 keeps 0.985" in lines[0]
    assert lines[-1].startswith("warning: at ")
    assert "thin or small objects are lost" in lines[-1]


def test_broken_pictures_and_masks_are_named(tmp_path: Path) -> None:
    folder = _write(tmp_path, [_bars(256, 256, 64)] * 4)
    (folder / "masks" / "p01.png").write_bytes(b"no mask")
    (folder / "images" / "p02.png").write_bytes(b"")
    Image.fromarray(np.full((256, 256), 9, np.uint8)).save(folder / "masks" / "p03.png")
    _, lines = _choose(folder)
    assert lines[0].startswith("warning: --image_size auto: 3 of 4 pictures can't be used (p0")
    assert "1 of 4 pictures measured" in lines[1]
    for number in range(4):
        (folder / "masks" / f"p{number:02d}.png").write_bytes(b"no mask")
    size, lines = _choose(folder)
    assert size == (128, 128)
    assert lines[-1] == "warning: --image_size auto: nothing to measure, so 128x128"


def test_ignored_pixels_alone_are_said(tmp_path: Path) -> None:
    labels = Labels(LabelMap.identity(2), 2, 7)
    size, lines = _choose(_write(tmp_path, [np.full((64, 64), 7, np.uint8)] * 2), labels)
    assert size == (128, 128)
    assert lines == ["warning: --image_size auto: all pixels are ignored, so 128x128"]


def test_kept_pictures_decide_nothing(tmp_path: Path) -> None:
    folder = _write(tmp_path, [_bars(512, 512, 64), _bars(512, 512, 3)])
    assert cost_of(_choose(folder, kept="p01.png")[0]) == 1.0
    assert cost_of(_choose(folder, kept="p00.png")[0]) > 1.0
    # With nothing else to measure they are taken.
    assert "2 of 2 pictures measured" in _choose(folder, kept="p00.png p01.png")[1][0]


def _pairs(count: int) -> Iterator[EncodedPair]:
    def read() -> tuple[bytes, bytes]:
        raise AssertionError("nothing is read to draw the sample")

    return (EncodedPair(f"id{number}", read) for number in range(count))


def test_the_sample_of_a_hundred_thousand_is_a_hundred_whatever_the_order() -> None:
    sampled, count = sample_by_hash(_pairs(100_000), lambda pair_id: False)
    assert (len(sampled), count) == (100, 100_000)
    other, _ = sample_by_hash(iter(reversed(list(_pairs(100_000)))), lambda pair_id: False)
    assert {pair.pair_id for pair in sampled} == {pair.pair_id for pair in other}
    # Pictures that are added replace few of the sample.
    more, _ = sample_by_hash(_pairs(110_000), lambda pair_id: False)
    assert len({pair.pair_id for pair in sampled} & {pair.pair_id for pair in more}) > 75


@pytest.mark.parametrize(("text", "size"), [("auto", None), ("64", (64, 64)), ("48x64", (48, 64))])
def test_the_option(text: str, size: tuple[int, int] | None) -> None:
    assert parse_image_size(text) == size


def test_a_training_chooses_by_default_and_takes_an_explicit_size_as_given(tmp_path: Path) -> None:
    folder = _write(tmp_path / "data", [_bars(160, 640, 6)] * 12)
    said: list[str] = []
    options = TrainOptions(str(folder), str(tmp_path / "out"), preset="residual", depth=3)
    config = prepare_job(options, said.append).config
    assert config.image_width >= 2 * config.image_height
    assert config.image_height % 8 == config.image_width % 8 == 0
    chosen = next(line for line in said if line.startswith("input size"))
    assert chosen.startswith(f"input size {config.image_height}x{config.image_width} px")
    said.clear()
    explicit = prepare_job(TrainOptions(str(folder), str(tmp_path / "out"), image_size=(64, 32)), said.append)
    assert (explicit.config.image_height, explicit.config.image_width) == (64, 32)
    assert not any("auto" in line for line in said)


def test_wrong_masks_still_end_the_training_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _write(tmp_path / "data", [_bars(64, 64, 8) * 255] * 4)
    status = main(["train", "--dataset", str(folder), "--output", str(tmp_path / "out"), "--class_names", "a,b"])
    assert status == 2
    assert "add --label_map 0=0,255=1" in capsys.readouterr().err.splitlines()[-1]
    shutil.rmtree(folder / "masks")
    with pytest.raises(OptionError):
        prepare_job(TrainOptions(str(folder), str(tmp_path / "out")), lambda line: None)
