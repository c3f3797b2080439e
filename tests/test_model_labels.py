"""Masks that don't fit the classes: the training stops once, for all files, with the option that would help."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.classes import resolve_classes
from model.data.dataset import PairStore, PreparedData, prepare
from model.data.encoded_pairs import open_source
from model.data.label_faults import ValueCounts, describe_faults
from model.options import TrainOptions
from pipeline.core.errors import OptionError


def _write(folder: Path, name: str, *values: object) -> None:
    """A picture and a mask of a row a value; a value is a number or an RGB triple."""
    mask = np.repeat(np.array([values], np.uint8), 12, axis=0).swapaxes(0, 1)
    for kind, pixels in (("images", np.zeros((*mask.shape[:2], 3), np.uint8)), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def _options(folder: Path, text: str) -> TrainOptions:
    """`--label_map …`, `--ignore_label …` and `--class_names …` as on the command line."""
    from model.cli import build_parser

    arguments = build_parser().parse_args(["train", "--dataset", str(folder), "--output", "out", *shlex.split(text)])
    return TrainOptions(**{name: getattr(arguments, name) for name in TrainOptions.__dataclass_fields__})


def _read(folder: Path, text: str) -> PreparedData:
    labels, _ = resolve_classes(_options(folder, text))
    return prepare(open_source(str(folder), None), labels, PairStore(4, 4, 3), 3)


def _said(folder: Path, text: str, map_text: str | None = None) -> str:
    """What the training says of the masks with these options."""
    labels, _ = resolve_classes(_options(folder, text))
    data = _read(folder, text)
    seen = np.flatnonzero(data.store.class_px(np.arange(len(data.store)), labels.num_classes)).tolist()
    return describe_faults(data.truth_faults, data.masks, map_text, labels.num_classes, seen)


def _assert_advice_works(folder: Path, said: str) -> None:
    """Takes the first option that a message names and trains by it."""
    advice = said[said.index("add --") + len("add ") :].partition(" if ")[0].partition(", or ")[0]
    assert _read(folder, advice).truth_faults == []


def test_masks_of_0_and_255_name_the_label_map_that_works(tmp_path: Path) -> None:
    _write(tmp_path, "a", 0, 255)
    _write(tmp_path, "b", 0)
    with pytest.raises(OptionError) as caught:
        resolve_classes(_options(tmp_path, ""))
    assert str(caught.value) == "the 2 masks hold 0, 255: no class ids; add --label_map 0=0,255=1"
    _assert_advice_works(tmp_path, str(caught.value))


def test_the_advice_for_class_names_works(tmp_path: Path) -> None:
    for number in range(5):
        _write(tmp_path, f"p{number}", *((0, 255) if number > 1 else (0,)))
    said = _said(tmp_path, "--class_names background,nucleus")
    assert said == ("3 of 5 masks hold values that have no class (255 in 3; first p2.png): add --label_map 0=0,255=1")
    _assert_advice_works(tmp_path, said)


def test_a_void_value_above_the_class_ids_may_be_ignored(tmp_path: Path) -> None:
    _write(tmp_path, "a", 0, 1, 255)
    _write(tmp_path, "b", 2, 1)
    with pytest.raises(OptionError, match="or --ignore_label 255 if its pixels are to be ignored") as caught:
        resolve_classes(_options(tmp_path, ""))
    assert "--label_map 0=0,1=1,2=2,255=3" in str(caught.value)
    assert _read(tmp_path, "--ignore_label 255").truth_faults == []
    said = _said(tmp_path, "--class_names a,b,c")
    assert said.endswith(": add --ignore_label 255 if its pixels are to be ignored, or add a class name")
    _assert_advice_works(tmp_path, said)


def test_colour_masks_name_their_colours(tmp_path: Path) -> None:
    _write(tmp_path, "a", (0, 0, 0), (255, 0, 0))
    _write(tmp_path, "b", (0, 0, 0), (0, 0, 0))
    with pytest.raises(OptionError) as caught:
        resolve_classes(_options(tmp_path, ""))
    assert str(caught.value).endswith("add --label_map '#000000=0,#ff0000=1'")
    _assert_advice_works(tmp_path, str(caught.value))
    said = _said(tmp_path, "--class_names a,b")
    assert said == (
        "1 of 2 masks hold values that have no class (#000000 in 1, #ff0000 in 1; first a.png):"
        " add --label_map '#000000=0,#ff0000=1'"
    )
    _assert_advice_works(tmp_path, said)


def test_grey_masks_saved_as_rgb_hold_numbers(tmp_path: Path) -> None:
    _write(tmp_path, "a", (0, 0, 0), (255, 255, 255))
    with pytest.raises(OptionError, match="add --label_map 0=0,255=1") as caught:
        resolve_classes(_options(tmp_path, ""))
    _assert_advice_works(tmp_path, str(caught.value))
    _write(tmp_path, "b", (1, 1, 1), (2, 2, 2))
    _, names = resolve_classes(_options(tmp_path, "--ignore_label 255"))
    assert len(names) == 3


def test_values_missing_from_the_label_map_are_counted_over_all_files(tmp_path: Path) -> None:
    _write(tmp_path, "a", 0, 1)
    _write(tmp_path, "b", 0, 9)
    _write(tmp_path, "c", 0, 7, 9)
    said = _said(tmp_path, "--label_map 0=0,1=1", "0=0,1=1")
    assert said == (
        "2 of 3 masks hold values that have no class (7 in 1, 9 in 2; first b.png): map them as in"
        " --label_map 0=0,1=1,7=CLASS_ID, or ignore their pixels with --ignore_label"
    )


def test_more_values_than_names_are_listed(tmp_path: Path) -> None:
    _write(tmp_path, "a", 0, 50, 100, 150)
    said = _said(tmp_path, "--class_names a,b")
    assert "4 values, 0, 50, 100, 150, for 2 class names; map each value to its class by --label_map" in said


def test_pictures_in_place_of_masks_are_suspected(tmp_path: Path) -> None:
    _write(tmp_path, "a", *range(0, 200, 2))
    with pytest.raises(OptionError, match="100 values are too many for classes: are they pictures or JPEG files"):
        resolve_classes(_options(tmp_path, ""))


def test_masks_of_the_ignore_label_alone_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a", 255)
    with pytest.raises(OptionError, match="no value other than the ignore label 255"):
        resolve_classes(_options(tmp_path, "--ignore_label 255"))


def test_an_ignored_colour_or_negative_value_is_no_class(tmp_path: Path) -> None:
    _write(tmp_path / "colored", "a", (0, 0, 0), (1, 1, 1), (9, 8, 7))
    assert _read(tmp_path / "colored", "--ignore_label '#090807'").truth_faults == []
    _write(tmp_path / "signed", "a", 0, 1, 2)
    signed = np.repeat(np.array([[0, 1, -1]], np.int32), 12, axis=0).T
    Image.fromarray(signed).save(tmp_path / "signed" / "masks" / "a.tif")
    (tmp_path / "signed" / "masks" / "a.png").unlink()
    assert _read(tmp_path / "signed", "--ignore_label -1").truth_faults == []
    for options, map_text in (("--class_names a,b", None), ("--label_map 0=0,1=1", "0=0,1=1")):
        said = _said(tmp_path / "signed", options, map_text)
        assert "hold values that have no class (-1 in 1; first a.png): " in said
        assert "--ignore_label -1" in said
        assert "--label_map" not in said
    # Without any option the masks' values are taken for class ids.
    _, names = resolve_classes(_options(tmp_path / "signed", "--ignore_label -1"))
    assert len(names) == 2


def test_all_masks_of_another_size_are_counted(tmp_path: Path) -> None:
    for number in range(5):
        _write(tmp_path, f"p{number}", 0, 1)
        Image.new("L", (3, 3)).save(tmp_path / "masks" / f"p{number}.png")
    said = _said(tmp_path, "--class_names a,b")
    assert said.startswith("5 of 5 masks can't be used: p0.png: the mask is 3x3 px")
    assert said.endswith("; and 2 more")


@pytest.mark.parametrize(("highest", "is_class"), [(63, True), (64, False)])
def test_class_ids_go_to_63_where_nothing_names_them(tmp_path: Path, highest: int, is_class: bool) -> None:
    _write(tmp_path, "a", 0, highest)
    if is_class:
        _, names = resolve_classes(_options(tmp_path, ""))
        assert len(names) == 64
    else:
        with pytest.raises(OptionError, match="add --label_map 0=0,64=1"):
            resolve_classes(_options(tmp_path, ""))


@pytest.mark.parametrize(("count", "words"), [(64, "add --label_map 1=0,2=1"), (65, "65 values are too many")])
def test_a_label_map_is_offered_for_64_values_at_most(tmp_path: Path, count: int, words: str) -> None:
    _write(tmp_path, "a", *range(1, count + 1))
    with pytest.raises(OptionError, match=words) as caught:
        resolve_classes(_options(tmp_path, ""))
    # Twelve values are shown.
    assert "hold 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 …: no class ids" in str(caught.value)


def test_grey_of_usable_masks_is_a_colour_beside_colours(tmp_path: Path) -> None:
    _write(tmp_path, "a", (0, 0, 0), (1, 1, 1))
    _write(tmp_path, "b", (0, 0, 0), (255, 0, 0))
    said = _said(tmp_path, "--class_names a,b,c")
    assert said.endswith("add --label_map '#000000=0,#010101=1,#ff0000=2'")
    _assert_advice_works(tmp_path, said)


def test_a_label_map_of_colours_reads_grey_as_a_colour(tmp_path: Path) -> None:
    _write(tmp_path, "a", (0, 0, 0), (7, 7, 7))
    map_text = "#000000=0,#ff0000=1"
    said = _said(tmp_path, f"--label_map '{map_text}'", map_text)
    assert "(#070707 in 1; first a.png)" in said
    assert f"map them as in --label_map '{map_text},#070707=CLASS_ID'" in said


@pytest.mark.parametrize("values", [(0, 5, 255), (0, 1, 2, 255)])
def test_no_option_is_offered_where_none_can_be_known(tmp_path: Path, values: tuple[int, ...]) -> None:
    _write(tmp_path, "a", *values)
    said = _said(tmp_path, "--class_names a,b")
    listed = ", ".join(map(str, values))
    assert (
        f"{len(values)} values, {listed}, for 2 class names; map each value to its class by --label_map RAW=CLASS_ID,…"
        in said
    )
    assert "add --" not in said


def test_label_faults_and_others_are_both_said(tmp_path: Path) -> None:
    for number in range(9):
        _write(tmp_path, f"p{number}", 0, 1)
        if number < 7:
            Image.new("L", (3, 3)).save(tmp_path / "masks" / f"p{number}.png")
    _write(tmp_path, "p8", 0, 1, *range(20, 40))
    said = _said(tmp_path, "--class_names a,b")
    assert "; and 4 more; 1 of 9 masks hold values that have no class (20 in 1, 21 in 1, " in said
    assert ", 31 in 1 …; first p8.png)" in said


def test_values_ascend_numbers_before_colours() -> None:
    counts = ValueCounts()
    counts.add(("10", "#ff0000", "3", "-1", "#0000ff"))
    assert counts.ascending() == ["-1", "3", "10", "#0000ff", "#ff0000"]
