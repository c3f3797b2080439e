"""Early warnings of a training: each appears where its cause is made, and none appears on healthy data."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.early_warnings import (  # noqa: E402
    SwapHistory,
    Watched,
    background_warning,
    log_warnings,
    swap_warnings,
    swapped_classes,
    swapped_pictures,
)
from model.options import TrainOptions  # noqa: E402
from model.samples.sample import CLASS_NAMES, write_sample  # noqa: E402
from model.train import train  # noqa: E402

WATCHED = Watched(("background", "object", "border"), 12, 20, 1.0, np.array([700, 200, 100]))


def _log(losses: list[float], ious: list[tuple[float, float, float]] | None = None) -> list[dict[str, float]]:
    rows = []
    for loss, scores in zip(losses, ious or [(0.9, 0.6, 0.3)] * len(losses), strict=True):
        named = {f"val_iou_{class_id}": score for class_id, score in enumerate(scores)}
        rows.append({"loss": loss, "val_global_mean_iou": float(np.nanmean(scores)), **named})
    return rows


@given(
    st.lists(st.floats(0.9, 0.97), min_size=11, max_size=11),
    st.lists(st.tuples(*[st.floats(0.4, 1.0)] * 3), min_size=12, max_size=12),
)
def test_a_falling_loss_and_found_classes_are_silent(
    falls: list[float], ious: list[tuple[float, float, float]]
) -> None:
    losses = [2.0, *(2.0 * np.cumprod(falls)).tolist()]
    for done in range(1, 13):
        assert log_warnings(_log(losses[:done], ious[:done]), WATCHED) == []


def test_a_loss_that_does_not_fall_is_reported_from_the_third_epoch() -> None:
    losses = [1.4, 1.41, 1.39, 1.40, 1.38]
    assert log_warnings(_log(losses[:2]), WATCHED) == []
    (line,) = log_warnings(_log(losses[:3]), WATCHED)
    assert line.startswith("the loss does not fall: 1.4000 in the first epoch, 1.4000 in the last ones")
    # A few weight updates, or those of the warm-up alone, are no reason to warn.
    assert log_warnings(_log(losses[:4]), replace(WATCHED, steps=2)) == []
    assert log_warnings(_log(losses[:4]), replace(WATCHED, warmup_epochs=4.0)) == []


def test_a_loss_that_rises_again_is_reported() -> None:
    losses = [2.0, 1.0, 0.9, 0.9, 0.9, 1.0]
    assert log_warnings(_log(losses), WATCHED) == []
    (line,) = log_warnings(_log([*losses, 1.3, 1.5]), WATCHED)
    assert line.startswith("the loss rises again")


def test_a_class_that_is_never_predicted_is_reported() -> None:
    losses, never = [2.0, 1.5, 1.2], [(0.9, 0.6, 0.0)] * 3
    (line,) = log_warnings(_log(losses, never), WATCHED)
    assert line.startswith("class 2 (border) is in the validation masks and was never predicted")
    # Once found it counts as found; a class without truth can't be.
    assert log_warnings(_log(losses, [*never[:2], (0.9, 0.6, 0.1)]), WATCHED) == []
    absent = replace(WATCHED, truth_px=np.array([700, 200, 0]))
    assert log_warnings(_log(losses, [(0.9, 0.6, float("nan"))] * 3), absent) == []


def test_no_better_than_one_class_everywhere_is_reported() -> None:
    (line,) = log_warnings(_log([2.0, 1.5, 1.2], [(0.7, 0.0, 0.0)] * 3), WATCHED)
    assert line.startswith("no epoch is better than a mask of one class everywhere (validation global_mean_iou 0.233")


def test_classes_that_are_mistaken_for_one_another_look_swapped() -> None:
    matrix = np.array([[50, 2, 1], [3, 0, 30], [2, 20, 1]])
    assert swapped_classes(matrix) == (1, 2)
    assert swapped_classes(matrix[[0, 2, 1]]) is None


@given(st.data())
def test_a_prediction_that_is_right_where_it_counts_never_looks_swapped(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 5))
    counts = data.draw(st.lists(st.integers(0, 1000), min_size=classes**2, max_size=classes**2))
    matrix = np.array(counts, np.int64).reshape(classes, classes)
    matrix[np.diag_indices(classes)] += matrix.sum(axis=1)
    assert swapped_classes(matrix) is None


@given(st.permutations(range(4)), st.integers(0, 1000))
def test_the_exchanged_rows_of_a_good_matrix_are_found(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    good = rng.integers(0, 20, (4, 4)) + np.diag(rng.integers(300, 900, 4))
    one, other = sorted(order[:2])
    swapped = good.copy()
    swapped[[one, other]] = good[[other, one]]
    assert swapped_classes(good) is None
    assert swapped_classes(swapped) == (one, other)


def test_swapped_pictures_are_named_if_they_are_not_single_ones() -> None:
    names = ("a", "b", "c")
    assert swap_warnings({"x": (0, 1)}, 0.7, 20, names, "kept") == []
    assert swap_warnings({"x": (0, 1), "y": (0, 2)}, 0.7, 20, names, "kept") == []
    (line,) = swap_warnings({"y": (0, 1), "x": (0, 1)}, 0.7, 20, names, "kept")
    assert line == "in 2 of 20 pictures (kept) the labels a and b look swapped: x, y"
    assert swap_warnings({str(one): (0, 1) for one in range(19)}, 0.7, 1000, names, "kept") == []
    # A network that is no better on the others mistakes the classes itself.
    assert swap_warnings({"y": (0, 1), "x": (0, 1)}, 0.5, 20, names, "kept") == []
    assert swap_warnings({"y": (0, 1), "x": (0, 1)}, float("nan"), 20, names, "kept") == []


def test_the_score_of_the_others_leaves_out_what_looks_swapped() -> None:
    right, swapped = np.array([[80, 0], [0, 20]]), np.array([[0, 30], [70, 0]])
    assert swapped_pictures({"a": right, "b": swapped}) == ({"b": (0, 1)}, 1.0)
    found, score = swapped_pictures({"b": swapped})
    assert found == {"b": (0, 1)}
    assert np.isnan(score)


def test_only_what_looks_swapped_in_three_epochs_on_end_is_reported() -> None:
    history = SwapHistory()
    assert history.add({"x": (0, 1), "y": (0, 1)}) == {}
    assert history.add({"x": (0, 1), "y": (0, 2)}) == {}
    assert history.add({"x": (0, 1), "y": (0, 2)}) == {"x": (0, 1)}
    assert history.add({"x": (0, 1), "y": (0, 2)}) == {"x": (0, 1), "y": (0, 2)}
    assert history.add({}) == {}


def test_a_background_that_avoids_the_edges_looks_like_another_class() -> None:
    names = ("pet", "background", "border")
    overall, frame = np.array([300, 580, 120]), np.array([60, 910, 30])
    assert background_warning(frame, overall, names) is None
    line = background_warning(frame[[0, 2, 1]], overall[[0, 2, 1]], names)
    assert line is not None
    assert line.startswith("the labels background and border look swapped: border fills 91% of the masks' edges")
    assert background_warning(frame[[0, 2, 1]], overall[[0, 2, 1]], ("pet", "x", "border")) is None


# The same in whole trainings.


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 60, 3)
    return folder


def _options(data: Path, output: Path, **changes: object) -> TrainOptions:
    plain = TrainOptions(
        str(data),
        str(output),
        preset="residual",
        width=8,
        depth=2,
        image_size=(48, 64),
        epochs=8,
        batch_size=6,
        learning_rate=5e-3,
        warmup_epochs=0.5,
        augment="flip",
        seed=1,
        class_names=CLASS_NAMES,
        val_fraction=0.4,
        test_fraction=0.1,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def _warnings(options: TrainOptions) -> list[str]:
    said: list[str] = []
    train(options, said.append)
    return [line.removeprefix("warning: ") for line in said if line.startswith("warning: ")]


def _changed(sample: Path, folder: Path, every: int, values: dict[int, int]) -> Path:
    """A copy of the sample in whose every n-th mask values are exchanged for others."""
    shutil.copytree(sample, folder)
    for path in sorted((folder / "masks").iterdir())[::every]:
        mask = np.array(Image.open(path))
        new = mask.copy()
        for before, after in values.items():
            new[mask == before] = after
        Image.fromarray(new).save(path)
    return folder


def test_a_healthy_training_warns_of_nothing(sample: Path, tmp_path: Path) -> None:
    assert _warnings(_options(sample, tmp_path / "out")) == []


def test_a_loss_that_does_not_fall_is_warned_of(sample: Path, tmp_path: Path) -> None:
    options = _options(sample, tmp_path / "out", learning_rate=1e-9, schedule="constant", epochs=6, batch_size=3)
    assert any(line.startswith("the loss does not fall") for line in _warnings(options))


def test_masks_of_other_pictures_are_warned_of(sample: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(sample, data)
    rng = np.random.default_rng(0)
    for path in sorted((data / "masks").iterdir()):
        shape = np.array(Image.open(path)).shape
        Image.fromarray((rng.random(shape) < 0.1).astype(np.uint8)).save(path)
    options = _options(data, tmp_path / "out", class_names=("a", "b"), loss="ce")
    assert any(line.startswith("no epoch is better than a mask of one class") for line in _warnings(options))


def test_some_masks_with_swapped_labels_are_warned_of(sample: Path, tmp_path: Path) -> None:
    data = _changed(sample, tmp_path / "data", 5, {0: 1, 1: 0})
    warned = _warnings(_options(data, tmp_path / "out", epochs=30, batch_size=3, test_fraction=0.0))
    assert any("(validation) the labels background and object look swapped" in line for line in warned)


def test_a_test_dataset_with_swapped_labels_is_warned_of(sample: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    write_sample(kept, 6, 8)
    swapped = _changed(kept, tmp_path / "swapped", 1, {0: 1, 1: 0})
    warned = _warnings(_options(sample, tmp_path / "out", test_dataset=str(swapped), epochs=20, batch_size=3))
    assert any("(kept) the labels background and object look swapped" in line for line in warned)


def test_class_names_in_the_wrong_order_are_warned_of_before_the_first_epoch(sample: Path, tmp_path: Path) -> None:
    said: list[str] = []
    train(_options(sample, tmp_path / "out", epochs=1, class_names=("object", "background", "border")), said.append)
    warned = next(number for number, line in enumerate(said) if "the labels background and object look swapped" in line)
    assert warned < next(number for number, line in enumerate(said) if line.startswith("epoch"))
