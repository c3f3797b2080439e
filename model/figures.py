"""The two figures of a training: loss and scores by epoch, and masks of pictures that it was not trained on."""

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.core.labels import ClassIds
from pipeline.core.palette import rgb_from_hex
from pipeline.core.spec import ClassSpec
from pipeline.core.wording import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UInt8Array = npt.NDArray[np.uint8]

_DPI = 100
_PANEL_PX, _TITLE_PX = 256, 34
_CHARTS_PX = (760, 600)
_MAX_LINES = 12
_MAX_TITLE = 90
_IGNORED = (128, 128, 128)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the examples.

    Attributes:
        title: shown above it.
        image: (H, W, C) uint8.
        truth: (H, W) class ids, `num_classes` where ignored.
        prediction: (H, W) class ids.
    """

    title: str
    image: UInt8Array
    truth: ClassIds
    prediction: ClassIds


def can_draw() -> bool:
    """Whether matplotlib, of the extra `train`, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def examples_figure(examples: Sequence[Example], classes: Sequence[ClassSpec]) -> "Figure":
    """Image, true mask and predicted mask side by side, one row per example, with a legend of the classes.

    Args:
        examples: at least one.
        classes: by id, with names and colours; ignored pixels are grey.
    """
    from matplotlib.patches import Patch

    colors = np.array([*(rgb_from_hex(one.color) for one in classes), _IGNORED], np.uint8)
    height_px = len(examples) * (_PANEL_PX + _TITLE_PX) + 2 * _TITLE_PX
    # Titles are wider than the first column and not part of the layout; their height is reserved here.
    figure = _new_figure(3.1 * _PANEL_PX, height_px, row_gap_px=_TITLE_PX / 2)
    rows = figure.subplots(len(examples), 3, squeeze=False)
    for axes, example in zip(rows, examples, strict=True):
        title = _shortened(f"{example.title}: image, true mask, predicted mask")
        axes[0].set_title(title, loc="left", **_PLAIN).set_in_layout(False)
        rgb = np.broadcast_to(example.image, (*example.image.shape[:2], 3)).astype(np.uint8)
        # Masks are never interpolated.
        axes[0].imshow(_thumbnail(rgb, Image.Resampling.BILINEAR))
        for ax, mask in zip(axes[1:], (example.truth, example.prediction), strict=True):
            ax.imshow(_thumbnail(colors[mask], Image.Resampling.NEAREST), interpolation="nearest")
        for ax in axes:
            ax.set_axis_off()
    handles = [Patch(facecolor=one.color, edgecolor="black") for one in classes[:_MAX_LINES]]
    _add_legend(figure, handles, [one.name for one in classes[:_MAX_LINES]], loc="outside upper left")
    return figure


def curves_figure(log: Sequence[dict[str, float]], best_epoch: int, classes: Sequence[ClassSpec]) -> "Figure":
    """The loss above, the validation scores below, by epoch.

    Args:
        log: a row per epoch, as `model.fit` writes it; at least one.
        best_epoch: the epoch whose weights were kept, from 1.
        classes: by id; the first ones get a line each.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(*_CHARTS_PX)
    loss, scores = figure.subplots(2, 1, sharex=True)
    epochs = [row["epoch"] for row in log]
    style: dict[str, Any] = {"marker": "o", "markersize": 3}
    loss.plot(epochs, [row["loss"] for row in log], color="black", **style)
    loss.set_ylabel("training loss")
    loss.set_ylim(0.0, max(1.05 * max(row["loss"] for row in log), 1e-9))
    shown = classes[: _MAX_LINES - 1]
    handles = scores.plot(epochs, [row["val_global_mean_iou"] for row in log], "k--", linewidth=2, **style)
    for one in shown:
        values = [row.get(f"val_iou_{one.class_id}", np.nan) for row in log]
        handles += scores.plot(epochs, values, color=one.color, **style)
    scores.set_ylabel("validation")
    scores.set_ylim(0.0, 1.0)
    scores.set_xlabel(f"epoch (dotted: {best_epoch}, whose weights are kept)")
    scores.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (loss, scores):
        ax.grid(alpha=0.3)
        ax.axvline(best_epoch, color="grey", linestyle=":")
    _add_legend(scores, handles, ["global_mean_iou", *(f"IoU {one.name}" for one in shown)], fontsize="small")
    return figure


def png_of(figure: "Figure") -> bytes:
    """Renders a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


_PLAIN: dict[str, Any] = {"parse_math": False, "fontsize": "small"}
"""Names are shown as they are: a dollar sign does not start a formula."""


def _new_figure(width_px: float, height_px: float, row_gap_px: float = 4.0) -> "Figure":
    """A figure that is not registered with pyplot, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(h_pad=row_gap_px / _DPI)
    figure = Figure(figsize=(width_px / _DPI, height_px / _DPI), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _add_legend(parent: Any, handles: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    # Matplotlib omits names that begin with an underscore.
    labels = [_shortened(f" {name}" if name.startswith("_") else name) for name in names]
    legend = parent.legend(handles, labels, ncols=min(4, len(labels)), **options)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _thumbnail(pixels: UInt8Array, resampling: Image.Resampling) -> UInt8Array:
    """Shrinks to a panel, so that a large picture takes little memory in the figure."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_PANEL_PX, _PANEL_PX), resampling)
    return np.asarray(picture)


def _shortened(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MAX_TITLE else f"{text[: _MAX_TITLE // 2]}…{text[-_MAX_TITLE // 2 :]}"
