"""The figures of a training: every curve and mask is what the log and the model say, and names are only text."""

import io
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="the extra `train` is not installed")

from model.figures import Example, curves_figure, examples_figure, png_of
from pipeline.core.palette import default_colors, rgb_from_hex
from pipeline.core.spec import ClassSpec, ModelSpec

ROOT = Path(__file__).parent.parent


def _spec(*names: str) -> ModelSpec:
    colors = default_colors(len(names))
    classes = tuple(ClassSpec(class_id, name, colors[class_id]) for class_id, name in enumerate(names))
    return ModelSpec("m", 8, 8, 3, classes)


def _colors(pixels: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(int(value) for value in color[:3]) for color in pixels.reshape(-1, pixels.shape[-1])}


def test_a_row_shows_image_true_mask_and_predicted_mask() -> None:
    spec = _spec("a", "b", "c")
    image = np.full((40, 60, 1), 90, np.uint8)
    truth, prediction = np.zeros((40, 60), np.uint8), np.zeros((40, 60), np.uint8)
    truth[:5], truth[20:], prediction[:, 30:] = 3, 1, 2
    figure = examples_figure([Example("best", image, truth, prediction)] * 2, spec.classes)
    a, b, c = (rgb_from_hex(one.color) for one in spec.classes)
    for row in range(2):
        shown = [ax.get_images()[0].get_array() for ax in figure.axes[3 * row : 3 * row + 3]]
        assert [pixels.shape[:2] for pixels in shown] == [(40, 60)] * 3
        assert [_colors(pixels) for pixels in shown] == [{(90, 90, 90)}, {a, b, (128, 128, 128)}, {a, c}]
        assert figure.axes[3 * row].get_title(loc="left") == "best: image, true mask, predicted mask"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    rendered = np.asarray(Image.open(io.BytesIO(png_of(figure))).convert("RGB"))
    assert {a, b, c, (90, 90, 90), (128, 128, 128)} <= _colors(rendered)


def test_large_pictures_are_shrunk_and_masks_keep_their_colours() -> None:
    spec = _spec("a", "b")
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, (900, 1400)).astype(np.uint8)
    figure = examples_figure([Example("worst", np.zeros((900, 1400, 3), np.uint8), mask, mask)], spec.classes)
    shown = figure.axes[1].get_images()[0].get_array()
    assert max(shown.shape) == 256
    assert _colors(shown) == {rgb_from_hex(one.color) for one in spec.classes}


def test_the_curves_are_those_of_the_log() -> None:
    log = [
        {"epoch": n, "loss": 1.0 / n, "val_global_mean_iou": 0.1 * n, "val_iou_0": np.nan, "val_iou_1": 0.2 * n}
        for n in (1, 2, 3)
    ]
    figure = curves_figure(log, 2, _spec("a", "b").classes)
    loss, scores = figure.axes
    assert list(loss.lines[0].get_ydata()) == [1.0, 0.5, 1.0 / 3]
    mean, first, second = (list(line.get_ydata()) for line in scores.lines[:3])
    assert mean == pytest.approx([0.1, 0.2, 0.3])
    assert np.isnan(first).all()
    assert second == pytest.approx([0.2, 0.4, 0.6])
    assert list(scores.lines[0].get_xdata()) == [1, 2, 3]
    assert scores.lines[3].get_xdata() == [2, 2]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["global_mean_iou", "IoU a", "IoU b"]
    assert Image.open(io.BytesIO(png_of(figure))).size == (760, 600)
    assert png_of(curves_figure(log[:1], 1, _spec("a", "b").classes))


@pytest.mark.parametrize("name", ["$\\frac{1$", "_void", "a\x1b[31m\nb", "x" * 300])
def test_names_are_text_and_no_formulas(name: str) -> None:
    spec = _spec(name, "b")
    pixels = np.zeros((8, 8), np.uint8)
    figure = examples_figure([Example(f"best, {name}", pixels[..., None], pixels, pixels)], spec.classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png_of(figure)
    label, title = figure.legends[0].get_texts()[0].get_text(), figure.axes[0].get_title(loc="left")
    for text in (label, title):
        assert text.isprintable()
        assert len(text) < 100
    assert label.strip() == {"_void": "_void", "$\\frac{1$": "$\\frac{1$"}.get(name, label.strip())


def test_drawing_leaves_pyplot_alone() -> None:
    program = (
        "import sys; from model.figures import curves_figure, png_of; from pipeline.core.spec import ClassSpec\n"
        "log = [{'epoch': 1, 'loss': 1.0, 'val_global_mean_iou': 0.5, 'val_iou_0': 0.5}]\n"
        "png_of(curves_figure(log, 1, [ClassSpec(0, 'a', '#112233')])); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
