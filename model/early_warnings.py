"""Signs in a training's first epochs that its data or options are wrong.

All are functions of the log and of confusion matrices, so that a resumed training warns of the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.scores import iou_per_class, mean_of_present
from pipeline.core.wording import pictures_text

ClassPair = tuple[int, int]
Log = Sequence[Mapping[str, float]]

_MIN_EPOCHS = 3
_MIN_STEPS = 30
"""With fewer weight updates the loss says nothing yet."""
_MIN_FALL = 0.03
"""A loss that has fallen by a smaller share than this since the first epoch counts as not falling."""
_RISING = 1.2
_NEVER_IOU = 1e-3
_CONSTANT_MARGIN = 0.01
_SWAPPED_IOU, _UNSWAPPED_IOU = 0.5, 0.25
_MIN_SWAPPED, _MIN_SWAPPED_SHARE = 2, 0.02
_MIN_SCORE_OF_OTHERS = 0.65
"""A network that predicts the other pictures worse may mistake the classes itself."""
_SWAPPED_EPOCHS = 3
"""In its first epochs a network may mistake classes for one another; only what stays is reported."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Watched:
    """What a training's log is judged by.

    Attributes:
        class_names: by id.
        epochs: that the training has at most.
        steps: weight updates in an epoch.
        warmup_epochs: over which the learning rate rises.
        truth_px: (num_classes,) pixels of each class in the validation masks.
    """

    class_names: tuple[str, ...]
    epochs: int
    steps: int
    warmup_epochs: float
    truth_px: npt.NDArray[np.int64]


def log_warnings(log: Log, watched: Watched) -> list[str]:
    """Warnings about a loss that does not fall, classes that are never found, and masks that say nothing.

    Args:
        log: a row an epoch, as `model.fit` writes it.
        watched: the training.

    Returns:
        A line for each warning; nothing in the first quarter of the training, nor before the third epoch, because a
        healthy training may look like that, too.
    """
    done = len(log)
    is_last = done >= watched.epochs
    if done < min(watched.epochs, max(_MIN_EPOCHS, math.ceil(watched.epochs / 4))):
        return []
    return [
        *_loss_warnings([row["loss"] for row in log], watched),
        *(_class_warnings(log, watched) if is_last or done * watched.steps >= _MIN_STEPS else ()),
    ]


def _loss_warnings(losses: Sequence[float], watched: Watched) -> list[str]:
    done = len(losses)
    if done < _MIN_EPOCHS or (done - watched.warmup_epochs) * watched.steps < _MIN_STEPS:
        return []
    # Means of three epochs: a single one of few pictures may differ by several percent.
    means = [float(np.mean(losses[end - _MIN_EPOCHS : end])) for end in range(_MIN_EPOCHS, done + 1)]
    if (latest := float(np.mean(losses[-_MIN_EPOCHS + (done == _MIN_EPOCHS) :]))) > (1.0 - _MIN_FALL) * losses[0]:
        return [
            f"the loss does not fall: {losses[0]:.4f} in the first epoch, {latest:.4f} in the last ones:"
            " try another --learning_rate, and check that masks and pictures belong together"
        ]
    if means[-1] > _RISING * min(means):
        return ["the loss rises again: try a lower --learning_rate"]
    return []


def _class_warnings(log: Log, watched: Watched) -> list[str]:
    found: list[str] = []
    best = max(row["val_global_mean_iou"] for row in log)
    present = np.flatnonzero(watched.truth_px)
    constant = float(watched.truth_px.max() / watched.truth_px.sum() / len(present)) if len(present) else math.nan
    if len(present) > 1 and best <= constant + _CONSTANT_MARGIN:
        updates = len(log) * watched.steps
        advice = "check that masks and pictures belong together"
        if updates < _MIN_STEPS:
            advice = f"{updates} weight updates are few, raise --epochs"
        return [
            f"no epoch is better than a mask of one class everywhere (validation global_mean_iou {best:.3f}, one class:"
            f" {constant:.3f}): {advice}"
        ]
    for class_id in present:
        if max(row[f"val_iou_{class_id}"] for row in log) < _NEVER_IOU:
            found.append(
                f"class {class_id} ({watched.class_names[class_id]}) is in the validation masks and was never"
                " predicted there so far: try --class_weights balanced"
            )
    return found


def swapped_classes(matrix: npt.NDArray[np.int64]) -> ClassPair | None:
    """Two classes whose exchange in one picture's truth would make a bad prediction a good one.

    Args:
        matrix: (C, C) int64 [truth, prediction] of one picture.

    Returns:
        The two ids, the lower first, if both classes have an IoU of at most 0.25 as labelled, and of at least 0.5 with
        the labels exchanged; None if no two have.
    """
    right, truth, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    as_labelled = iou_per_class(matrix)
    mistaken = matrix > right[:, None]
    best, best_score = None, 0.0
    for one, other in np.argwhere(np.triu(mistaken & mistaken.T, 1)):
        exchanged = [matrix[a, b] / (truth[a] + predicted[b] - matrix[a, b]) for a, b in ((one, other), (other, one))]
        is_bad = max(as_labelled[one], as_labelled[other]) <= _UNSWAPPED_IOU
        if is_bad and min(exchanged) >= _SWAPPED_IOU and sum(exchanged) > best_score:
            best, best_score = (int(one), int(other)), sum(exchanged)
    return best


def swapped_pictures(matrices: Mapping[str, npt.NDArray[np.int64]]) -> tuple[dict[str, ClassPair], float]:
    """The pictures whose labels look swapped, and how well the others are predicted.

    Args:
        matrices: of each picture, (C, C) int64 [truth, prediction].

    Returns:
        The ids of such pictures with the two classes, and the `global_mean_iou` of the others, NaN if there are none.
    """
    found = {picture: pair for picture, matrix in matrices.items() if (pair := swapped_classes(matrix)) is not None}
    others = [matrix for picture, matrix in matrices.items() if picture not in found]
    score = float(mean_of_present(iou_per_class(np.stack(others).sum(axis=0)))) if others else math.nan
    return found, score


def swap_warnings(
    swapped: Mapping[str, ClassPair], score_of_others: float, pictures: int, class_names: Sequence[str], which: str
) -> list[str]:
    """Warnings about pictures whose labels look swapped.

    Args:
        swapped: the ids of such pictures, with the two classes.
        score_of_others: the `global_mean_iou` of pictures whose labels don't look swapped.
        pictures: how many were looked at.
        class_names: by id.
        which: what the pictures are: `validation`, `kept`.

    Returns:
        A line for each pair of classes that is swapped in at least 2 pictures and 2 % of them; none if the network
        predicts the others badly, too.
    """
    if not score_of_others >= _MIN_SCORE_OF_OTHERS:
        return []
    by_pair: dict[ClassPair, list[str]] = {}
    for picture_id, pair in swapped.items():
        by_pair.setdefault(pair, []).append(picture_id)
    found = []
    for (one, other), ids in sorted(by_pair.items()):
        if len(ids) < max(_MIN_SWAPPED, _MIN_SWAPPED_SHARE * pictures):
            continue
        named = ", ".join(sorted(ids)[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
        found.append(
            f"in {len(ids):,} of {pictures_text(pictures)} ({which}) the labels {class_names[one]} and"
            f" {class_names[other]} look swapped: {named}"
        )
    return found


class SwapHistory:
    """The pictures that looked swapped in each of the last epochs."""

    def __init__(self) -> None:
        """Starts without any epoch."""
        self._epochs: list[dict[str, ClassPair]] = []

    def add(self, swapped: Mapping[str, ClassPair]) -> dict[str, ClassPair]:
        """Adds an epoch.

        Args:
            swapped: the pictures that look swapped in it, with the two classes.

        Returns:
            Those that looked so, with the same classes, in each of the last three epochs.
        """
        self._epochs = [*self._epochs[1 - _SWAPPED_EPOCHS :], dict(swapped)]
        if len(self._epochs) < _SWAPPED_EPOCHS:
            return {}
        return {
            picture_id: pair
            for picture_id, pair in swapped.items()
            if all(epoch.get(picture_id) == pair for epoch in self._epochs)
        }


def background_warning(
    frame_px: npt.NDArray[np.int64], class_px: npt.NDArray[np.int64], class_names: Sequence[str]
) -> str | None:
    """A warning if the class named background looks like another: the background usually meets the pictures' edges.

    Args:
        frame_px: (num_classes,) pixels of each class in the outermost rows and columns of the masks.
        class_px: (num_classes,) pixels of each class in the masks.
        class_names: by id.

    Returns:
        A line if the class named background is rarer at the edges than elsewhere by half while another class fills most
        of the edges and is commoner there than elsewhere; None if not, or if no class is named background.
    """
    lower = [name.lower() for name in class_names]
    if "background" not in lower or not frame_px.sum():
        return None
    named = lower.index("background")
    frame, overall = frame_px / frame_px.sum(), class_px / class_px.sum()
    other = int(np.argmax(frame))
    if other == named or frame[named] > overall[named] / 2 or frame[other] < max(0.5, overall[other]):
        return None
    return (
        f"the labels {class_names[named]} and {class_names[other]} look swapped: {class_names[other]} fills"
        f" {frame[other]:.0%} of the masks' edges, {class_names[named]} {frame[named]:.0%}"
    )
