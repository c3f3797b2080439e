"""The two figures of a training: how it went, and what it came to on pictures it never saw."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.core.labels import ClassIds
from pipeline.core.palette import rgb_from_hex
from pipeline.core.spec import ModelSpec

UInt8Array = npt.NDArray[np.uint8]

_BILINEAR, _NEAREST = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
_CELL_PX, _GAP_PX, _TEXT_PX = 256, 12, 16
_CHART_PX = (760, 300)
_MARGIN_PX = 52
_INK, _FAINT, _PAPER, _IGNORED = "#1e1e28", "#d5d5dc", "#ffffff", (128, 128, 128)
_LINES = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#475569")


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the examples.

    Attributes:
        title: what stands above it.
        image: (H, W, C) uint8.
        truth: (H, W) class ids, `num_classes` where ignored.
        prediction: (H, W) class ids.
    """

    title: str
    image: UInt8Array
    truth: ClassIds
    prediction: ClassIds


def draw_examples(examples: Sequence[Example], spec: ModelSpec) -> bytes:
    """Draws image, true mask and predicted mask side by side, a row an example, with a legend of the classes.

    Returns:
        A PNG.
    """
    colors = np.array([*(rgb_from_hex(one.color) for one in spec.classes), _IGNORED], np.uint8)
    rows = [_panels(example, colors) for example in examples]
    tops = [2 * _GAP_PX + _TEXT_PX]
    for panels in rows:
        tops.append(tops[-1] + panels[0].height + _TEXT_PX + 2 * _GAP_PX)
    sheet = Image.new("RGB", (3 * _CELL_PX + 4 * _GAP_PX, tops[-1]), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_PX)
    _draw_legend(pen, spec)
    for example, panels, top in zip(examples, rows, tops, strict=False):
        pen.text((_GAP_PX, top), f"{example.title}: image, true mask, predicted mask", _INK, font)
        for column, panel in enumerate(panels):
            sheet.paste(panel, (_GAP_PX + column * (_CELL_PX + _GAP_PX), top + _TEXT_PX + 6))
    return _png(sheet)


def _panels(example: Example, colors: UInt8Array) -> list[Image.Image]:
    """Image, true and predicted mask, none larger than a cell."""
    rgb = np.broadcast_to(example.image, (*example.image.shape[:2], 3)).astype(np.uint8)
    panels = [Image.fromarray(pixels) for pixels in (rgb, colors[example.truth], colors[example.prediction])]
    for panel in panels:
        # A mask is never interpolated, not even for show.
        panel.thumbnail((_CELL_PX, _CELL_PX), _BILINEAR if panel is panels[0] else _NEAREST)
    return panels


def _draw_legend(pen: ImageDraw.ImageDraw, spec: ModelSpec) -> None:
    left, font = _GAP_PX, ImageFont.load_default(_TEXT_PX)
    for one in spec.classes:
        pen.rectangle((left, _GAP_PX, left + _TEXT_PX, _GAP_PX + _TEXT_PX), fill=one.color, outline=_INK)
        pen.text((left + _TEXT_PX + 6, _GAP_PX), one.name, _INK, font)
        left += _TEXT_PX + 6 + round(pen.textlength(one.name, font)) + 2 * _GAP_PX


def draw_curves(log: Sequence[dict[str, float]], class_names: Sequence[str]) -> bytes:
    """Draws the loss above, the validation scores below, over the epochs.

    Args:
        log: a row an epoch, as `model.fit` writes it.
        class_names: by id.

    Returns:
        A PNG.
    """
    scores = {"global_mean_iou": [row["val_global_mean_iou"] for row in log]}
    for class_id, name in enumerate(class_names[: len(_LINES) - 1]):
        scores[f"IoU {name}"] = [row.get(f"val_iou_{class_id}", float("nan")) for row in log]
    charts = [({"training loss": [row["loss"] for row in log]}, None), (scores, 1.0)]
    width, height = _CHART_PX
    sheet = Image.new("RGB", (width, height * len(charts)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, (lines, limit) in enumerate(charts):
        _draw_chart(pen, number * height, lines, limit)
    return _png(sheet)


def _draw_chart(pen: ImageDraw.ImageDraw, top: int, lines: dict[str, list[float]], limit: float | None) -> None:
    """One chart: a grid with numbers, a line a name, the names above in the lines' colours."""
    font = ImageFont.load_default(12)
    width, height = _CHART_PX
    known = [value for values in lines.values() for value in values if np.isfinite(value)]
    highest = limit or max([*known, 1e-9])
    epochs = max(len(values) for values in lines.values())
    right, bottom = width - _GAP_PX, top + height - 24

    def place(epoch: float, value: float) -> tuple[float, float]:
        x = _MARGIN_PX + (right - _MARGIN_PX) * (epoch / max(1, epochs - 1))
        return x, bottom - (bottom - top - 28) * value / highest

    for step in range(5):
        value = highest * step / 4
        y = place(0, value)[1]
        pen.line((_MARGIN_PX, y, right, y), _FAINT)
        pen.text((6, y - 7), f"{value:.3g}", _INK, font)
    for epoch in sorted({0, (epochs - 1) // 2, epochs - 1}):
        pen.text((place(epoch, 0)[0], bottom + 5), str(epoch + 1), _INK, font, anchor="ra" if epoch else "la")
    left = float(_MARGIN_PX)
    for color, (name, values) in zip(_LINES, lines.items(), strict=False):
        pen.text((left, top + 6), name, color, font)
        left += pen.textlength(name, font) + 16
        for segment in _segments(values):
            points = [place(epoch, value) for epoch, value in segment]
            pen.line(points, color, 2) if len(points) > 1 else pen.circle(points[0], 2, color)


def _segments(values: Sequence[float]) -> Iterator[list[tuple[int, float]]]:
    """The runs of epochs whose value is a number."""
    run: list[tuple[int, float]] = []
    for epoch, value in enumerate(values):
        if np.isfinite(value):
            run.append((epoch, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
