"""Overlays: colours half transparent, edges opaque, the background as it is."""

import numpy as np
import pytest

from pipeline.core.overlay import background_id, overlay
from pipeline.core.spec import ClassSpec

CLASSES = (ClassSpec(0, "Pet", "#ff0000"), ClassSpec(1, "BackGround", "#00ff00"), ClassSpec(2, "sky", "#0000ff"))
RED, BLUE = [255, 0, 0], [0, 0, 255]


def test_the_background_is_the_class_of_that_name_else_the_first() -> None:
    assert background_id(["pet", "BackGround", "sky"]) == 1
    assert background_id(["pet", "sky"]) == 0
    assert background_id(["background", "background"]) == 0


def test_colours_edges_and_background() -> None:
    mask = np.zeros((5, 9), np.uint8)
    mask[:, 3:6] = 1  # the background
    mask[:, 6:] = 2
    image = np.full((5, 9, 3), (100, 200, 40), np.uint8)
    before = image.copy()
    drawn = overlay(image, mask, CLASSES)
    assert drawn.shape == (5, 9, 3)
    assert drawn.dtype == np.uint8
    # 0.55 of the picture and 0.45 of the colour, away from the edges.
    expected = [[170, 110, 22]] * 2 + [RED] + [[100, 200, 40]] * 3 + [BLUE] + [[55, 110, 137]] * 2
    assert np.abs(drawn.astype(int) - np.array(expected)).max() <= 1
    assert drawn[:, 2].tolist() == [RED] * 5
    assert drawn[:, 6].tolist() == [BLUE] * 5
    np.testing.assert_array_equal(drawn[:, 3:6], image[:, 3:6])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("axis", [0, 1])
def test_both_sides_of_an_edge_are_opaque(axis: int) -> None:
    mask = np.zeros((6, 6), np.uint8)
    mask[3:] = 2
    mask = mask if axis == 0 else mask.T
    drawn = overlay(np.zeros((6, 6, 3), np.uint8), mask, (CLASSES[0], ClassSpec(1, "x", "#00ff00"), CLASSES[2]))
    lines = drawn if axis == 0 else drawn.transpose(1, 0, 2)
    assert lines[:3].tolist() == [[[0, 0, 0]] * 6] * 3  # class 0 is the background here
    assert lines[3].tolist() == [BLUE] * 6
    assert lines[4:].tolist() == [[[0, 0, 115]] * 6] * 2


def test_a_grey_picture_is_drawn_in_colour() -> None:
    drawn = overlay(np.full((2, 2, 1), 80, np.uint8), np.array([[0, 1], [0, 1]], np.uint8), CLASSES)
    assert drawn[:, 1].tolist() == [[80, 80, 80]] * 2
    assert drawn[:, 0].tolist() == [RED] * 2


def test_rows_cut_from_a_picture_have_the_edges_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    mask = rng.integers(0, 3, (6, 5)).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    image = rng.integers(0, 256, (24, 20, 3)).astype(np.uint8)
    whole = overlay(image, mask, CLASSES)
    for top, end in ((0, 8), (8, 9), (9, 24)):
        above = mask[top - 1] if top else None
        below = mask[end] if end < 24 else None
        part = overlay(image[top:end], mask[top:end], CLASSES, above=above, below=below)
        np.testing.assert_array_equal(part, whole[top:end])
    # A row alone misses the edges to its neighbours.
    assert (overlay(image[8:9], mask[8:9], CLASSES) != whole[8:9]).any()
