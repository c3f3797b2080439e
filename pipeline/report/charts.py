"""The small drawings of the report, as inline SVG: bars with whiskers, boxes, stacked bars, swatches.

Lengths along the axis are percentages, so a drawing is as wide as its cell, on a screen and on paper. Fills are SVG's
and not backgrounds, which browsers leave out in print.
"""

import html
from collections.abc import Sequence
from typing import Any

from pipeline.core.wording import interval_text, printable, score_text, share_text

_GRID = "".join(f'<line class="grid" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>' for x in (25, 50, 75))


def escaped(value: object) -> str:
    """Text from outside as harmless HTML, for elements and for quoted attributes alike."""
    return html.escape(printable(value), quote=True)


def swatch(color: str) -> str:
    """A small square in a class's colour (`#rrggbb`)."""
    return (
        '<svg class="swatch" width="12" height="12" aria-hidden="true">'
        f'<rect x=".5" y=".5" width="11" height="11" rx="2.5" fill="{escaped(color)}"/></svg>'
    )


def score_bar(score: float | None, interval: Sequence[float] | None) -> str:
    """A bar from 0 to a score on a scale that ends at 1, with the interval as a whisker.

    Args:
        score: 0 to 1; None draws an empty track.
        interval: low and high end, or None.
    """
    label = score_text(score) + (f", 95 % interval {interval_text(interval)}" if interval else "")
    parts = ['<rect class="track" width="100%" height="8" y="4" rx="1.5"/>', _GRID]
    if score is not None:
        parts.append(f'<rect class="bar" width="{_percent(score)}" height="8" y="4" rx="1.5"/>')
    if interval is not None:
        low, high = _percent(interval[0]), _percent(interval[1])
        parts.append(f'<line class="whisker" x1="{low}" x2="{high}" y1="8" y2="8"/>')
        parts += [f'<line class="whisker" x1="{end}" x2="{end}" y1="3.5" y2="12.5"/>' for end in (low, high)]
    return _drawing("score", 16, label, parts)


def area_box(area: dict[str, Any]) -> str:
    """A class's share over the pictures: whiskers to the ends, a box of the middle 90 %, the median.

    Args:
        area: `area` of a class in `summary.json`.
    """
    track = ['<rect class="track" width="100%" height="18" y="0" rx="1.5"/>', _GRID]
    if area["fraction_p50"] is None:
        return _drawing("box", 18, "no picture", track)
    low, p05, p50, p95, high = (area[f"fraction_{key}"] for key in ("min", "p05", "p50", "p95", "max"))
    label = f"from {share_text(low)} to {share_text(high)}, median {share_text(p50)}"
    box_width = max(100 * (p95 - p05), 0.4)
    parts = [
        *track,
        f'<line class="range" x1="{_percent(low)}" x2="{_percent(high)}" y1="9" y2="9"/>',
        *(f'<line class="range" x1="{_percent(x)}" x2="{_percent(x)}" y1="6" y2="12"/>' for x in (low, high)),
        f'<rect class="middle" x="{_percent(p05)}" width="{box_width:.2f}%" y="3.5" height="11" rx="1.5"/>',
        f'<line class="median" x1="{_percent(p50)}" x2="{_percent(p50)}" y1="2" y2="16"/>',
    ]
    return _drawing("box", 18, label, parts)


def stacked_bar(parts: Sequence[tuple[float, str, str]], height_px: int = 18) -> str:
    """A bar whose parts lie side by side.

    Args:
        parts: a share (0 to 1), a colour (`#rrggbb`) and a label each; labels show on hovering.
        height_px: the bar's height.
    """
    rects, left = [], 0.0
    for share, color, label in parts:
        if share > 0:
            rects.append(
                f'<rect class="part" x="{_percent(left)}" width="{_percent(share)}" height="{height_px}" '
                f'fill="{escaped(color)}"><title>{escaped(label)}: {share_text(share)}</title></rect>'
            )
            left += share
    return _drawing("stack", height_px, "shares", rects)


def _drawing(kind: str, height_px: int, label: str, parts: Sequence[str]) -> str:
    attributes = f'class="{kind}" width="100%" height="{height_px}" role="img" aria-label="{escaped(label)}"'
    return f"<svg {attributes}>{''.join(parts)}</svg>"


def _percent(fraction: float) -> str:
    return f"{100 * min(max(fraction, 0.0), 1.0):.2f}%"
