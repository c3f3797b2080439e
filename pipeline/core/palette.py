"""Class colours: hex strings, RGB triples and a default palette."""

import colorsys
import re

from pipeline.core.errors import OptionError

_HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def rgb_from_hex(color: str) -> tuple[int, int, int]:
    """Parses `#rrggbb`.

    Args:
        color: six hexadecimal digits after a `#`.

    Returns:
        Red, green and blue, 0 to 255.

    Raises:
        OptionError: the text is not of that form.
    """
    if not _HEX_COLOR.fullmatch(color):
        raise OptionError(f"not a colour of the form #rrggbb: {color!r}")
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def hex_from_rgb(rgb: tuple[int, int, int]) -> str:
    """Formats red, green and blue (0 to 255) as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def default_colors(num_classes: int) -> list[str]:
    """Distinct colours for classes without one: class 0 nearly black, the rest spread by the golden angle.

    Args:
        num_classes: how many colours, at least 1.

    Returns:
        `#rrggbb` of each class, by class id.
    """
    colors = ["#1e1e28"]
    for index in range(1, num_classes):
        hue = (0.02 + index * 0.38196601125) % 1.0
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.62 + 0.18 * (index % 2), 0.95 - 0.15 * (index % 3))
        colors.append(hex_from_rgb((round(red * 255), round(green * 255), round(blue * 255))))
    return colors
