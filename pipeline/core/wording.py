"""Formatting of numbers and external text for the report, the terminal and the log."""

import math
import unicodedata
from collections.abc import Mapping, Sequence

NOTHING = "–"
"""Shown in place of a missing value."""

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_HECTARE_M2, _SQUARE_KILOMETRE_M2 = 1e4, 1e6


def count_text(value: int | None) -> str:
    """A whole number with separators at the thousands: `1,234`."""
    return NOTHING if value is None else f"{value:,}"


def pictures_text(value: int) -> str:
    """A number of pictures with its noun: `1 picture`, `1,234 pictures`."""
    return f"{value:,} {'picture' if value == 1 else 'pictures'}"


def score_text(value: float | None) -> str:
    """A score between 0 and 1 with three decimals: `0.883`."""
    return NOTHING if value is None else f"{value:.3f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """An interval of scores: `0.871–0.894`."""
    return NOTHING if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def share_text(fraction: float | None) -> str:
    """A share as a percentage with one decimal, in which only nothing is `0.0 %` and only all is `100.0 %`.

    Args:
        fraction: 0 to 1, or None.

    Returns:
        For example `12.3 %`, `<0.1 %` or `>99.9 %`.
    """
    if fraction is None:
        return NOTHING
    rounded = f"{100 * fraction:.1f}"
    if rounded == "0.0" and fraction > 0:
        return "<0.1 %"
    if rounded == "100.0" and fraction < 1:
        return ">99.9 %"
    return f"{rounded} %"


def bytes_text(size_bytes: float) -> str:
    """A size in decimal units with three digits: `812 B`, `3.40 MB`, `12.6 GB`."""
    value, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:#.3g} {unit}".replace(". ", " ")


def rate_text(per_second: float) -> str:
    """Pictures per second with two or three significant digits: `127`, `27.3`, `0.042`."""
    if per_second >= 100:
        return f"{per_second:,.0f}"
    if per_second >= 1:
        return f"{per_second:.1f}"
    return f"{per_second:.2g}"


def duration_text(seconds: float | None) -> str:
    """A time span in the two largest units that matter: `4.2 s`, `5 min 22 s`, `3 h 04 min`, `2 d 5 h`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02d} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02d} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def endings_text(by_ending: Mapping[str, int], shown: int = 3) -> str:
    """Numbers of files by their endings, the most frequent first: `6 .txt, 2 without ending, 1 .xml, …`.

    Args:
        by_ending: endings with their dot, "" for none, and how many files have each.
        shown: how many endings are named.
    """
    in_order = sorted(by_ending.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count:,} {printable(ending) or 'without ending'}" for ending, count in in_order[:shown]]
    return ", ".join([*named, "…"] if len(in_order) > shown else named)


def ignored_text(by_ending: Mapping[str, int]) -> str:
    """How many files are ignored, and their most frequent endings: `8 other files are ignored: 6 .txt, 2 .xml`.

    Args:
        by_ending: as `endings_text` takes it, not empty.
    """
    files = sum(by_ending.values())
    return f"{files:,} other {'file is' if files == 1 else 'files are'} ignored: {endings_text(by_ending)}"


def area_m2_text(area_m2: float | None) -> str:
    """A physical area in m², from a hectare in ha, from a square kilometre in km²; three digits."""
    if area_m2 is None:
        return NOTHING
    for unit, name in ((_SQUARE_KILOMETRE_M2, "km²"), (_HECTARE_M2, "ha")):
        if area_m2 >= unit:
            return f"{_three_digits(area_m2 / unit)} {name}"
    return f"{_three_digits(area_m2)} m²"


def printable(value: object) -> str:
    """External text without characters that control a terminal or can't be encoded as UTF-8.

    Args:
        value: a name, path or message from outside.

    Returns:
        One line: control, format and surrogate characters as their escapes (`\\x1b`), everything else as it is.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(char if unicodedata.category(char) not in _ESCAPED_CATEGORIES else _escaped(char) for char in text)


_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _three_digits(value: float) -> str:
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
