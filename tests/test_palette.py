"""Class colours."""

import numpy as np
import pytest

from pipeline.core.errors import OptionError
from pipeline.core.palette import default_colors, hex_from_rgb, rgb_from_hex


def test_round_trip() -> None:
    assert rgb_from_hex("#Ff0a00") == (255, 10, 0)
    for color in default_colors(20):
        assert hex_from_rgb(rgb_from_hex(color)) == color


@pytest.mark.parametrize("color", ["", "ff0000", "#ff000", "#ff00000", "#gg0000", "red", "#ff0000\n"])
def test_what_is_no_colour(color: str) -> None:
    with pytest.raises(OptionError, match="#rrggbb"):
        rgb_from_hex(color)


def test_default_colours_are_the_same_in_every_version() -> None:
    # Masks of earlier runs have them; a change would colour an archive in two ways.
    assert default_colors(1) == ["#1e1e28"]
    assert default_colors(6) == ["#1e1e28", "#29cc6c", "#873fa6", "#f2f130", "#4ea8cc", "#a62159"]


def test_default_colours_are_apart() -> None:
    assert len(set(default_colors(256))) == 256
    assert default_colors(3) == default_colors(8)[:3]
    colors = np.array([rgb_from_hex(color) for color in default_colors(8)])
    distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(8)
    assert distances.min() > 60
