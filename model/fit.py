"""The training loop: a checkpoint after each epoch, and the weights of the best epoch.

A checkpoint is one file with everything that the next epoch depends on: the weights, the optimizer, the random states
of the layers, the best weights so far and the log. Batches depend on seed and epoch only, so a training that was
killed and resumed has the result of an uninterrupted one.
"""

import csv
import io
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model.data.batches import TrainingPictures, epoch_batches
from model.data.dataset import TrainingStore
from model.early_warnings import ClassPair, swapped_pictures
from pipeline.core.errors import OptionError
from pipeline.core.scores import confusion_matrix, iou_per_class, mean_of_present
from pipeline.storage import filesystem

CHECKPOINT_FILE = "checkpoint.npz"
LOG_FILE = "log.csv"

Arrays = list[npt.NDArray[Any]]


@dataclass(slots=True)
class Progress:
    """The progress of a training.

    Attributes:
        epoch: epochs done.
        best_epoch: the epoch of the best validation score, from 1; 0 before the first.
        best_score: its `global_mean_iou`.
        log: a row per epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -1.0
    log: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Validated:
    """The predictions on the validation pictures after an epoch.

    Attributes:
        matrix: (num_classes, num_classes) int64 [truth, prediction], at the model's size.
        swapped: the pictures whose labels look swapped, by id, with the two classes.
        score_of_others: the `global_mean_iou` of the pictures whose labels don't; NaN if there are none.
    """

    matrix: npt.NDArray[np.int64]
    swapped: Mapping[str, ClassPair] = field(default_factory=dict)
    score_of_others: float = math.nan


@dataclass(frozen=True, slots=True)
class EpochDone:
    """A finished epoch.

    Attributes:
        row: of the log.
        seconds: that it took, with validation and checkpoint.
        validated: the predictions on the validation pictures.
    """

    row: Mapping[str, float]
    seconds: float
    validated: Validated


class Fitter:
    """Fits one network."""

    def __init__(
        self,
        network: keras.Model,
        pictures: TrainingPictures,
        validation: npt.NDArray[np.int64],
        num_classes: int,
        folder: Path,
        fingerprint: str,
    ) -> None:
        """Takes a compiled network that ends in logits.

        Args:
            network: with its optimizer and loss.
            pictures: the training split.
            validation: (n,) the items of the same store by which the best epoch is chosen.
            num_classes: of the masks.
            folder: of the checkpoint and the log.
            fingerprint: identifies this training; a checkpoint of another is refused.
        """
        self.network, self.pictures, self.num_classes = network, pictures, num_classes
        self._validation, self._folder, self._fingerprint = validation, folder, fingerprint
        self._best: Arrays = []
        self.progress = Progress()
        network.optimizer.build(network.trainable_variables)
        if keras.backend.backend() != "tensorflow":
            # Otherwise `fit` uses the first batch to build the loss and starts a process' first epoch, which after a
            # resume is not the training's first, with the second batch.
            network.test_on_batch(*pictures.batch(0, pictures.indices[: pictures.batch_size]))

    def run(self, epochs: int, patience: int, report: Callable[[EpochDone], None], callbacks: list[Any]) -> None:
        """Trains from the current state to the end, then loads the best epoch's weights into the network.

        Args:
            epochs: the last epoch.
            patience: epochs without a better score before the end; 0 never ends early.
            report: called after every epoch.
            callbacks: Keras callbacks for every epoch.

        Raises:
            OptionError: the loss is infinite or NaN.
        """
        while self.progress.epoch < epochs and not self._is_exhausted(patience):
            epoch = self.progress.epoch
            began = time.monotonic()
            batches = epoch_batches(self.pictures, epoch)
            history = self.network.fit(
                batches, initial_epoch=epoch, epochs=epoch + 1, shuffle=False, verbose=0, callbacks=callbacks
            )
            loss = float(history.history["loss"][-1])
            if not math.isfinite(loss):
                raise OptionError(f"the loss is {loss} in epoch {epoch + 1}: try a lower --learning_rate")
            validated = self._validate()
            scores = iou_per_class(validated.matrix)
            row: dict[str, float] = {"epoch": epoch + 1, "loss": loss, "learning_rate": self._learning_rate()}
            row["val_global_mean_iou"] = mean_of_present(scores)
            row |= {f"val_iou_{class_id}": float(score) for class_id, score in enumerate(scores)}
            self._take(row)
            self._save()
            report(EpochDone(row, time.monotonic() - began, validated))
        for variable, value in zip(self.network.variables, self._best, strict=True):
            variable.assign(value)

    def resume(self) -> bool:
        """Loads the last checkpoint.

        Returns:
            False if there is none.

        Raises:
            OptionError: it belongs to a training with other options or pictures, or is not a checkpoint.
        """
        path = self._folder / CHECKPOINT_FILE
        if not path.exists():
            return False
        try:
            with np.load(path, allow_pickle=False) as saved:
                self._load(saved)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OptionError(f"--resume: {path} can't be read: remove it to start from scratch") from error
        return True

    def _load(self, saved: Mapping[str, npt.NDArray[Any]]) -> None:
        state = json.loads(str(saved["state"]))
        if state["fingerprint"] != self._fingerprint:
            raise OptionError("--resume: the checkpoint is of a training with other options or other pictures")
        for number, variable in enumerate(self._variables()):
            variable.assign(saved[f"now_{number}"])
        self._best = [saved[f"best_{number}"] for number in range(len(self.network.variables))]
        self.progress = Progress(**state["progress"])

    def _variables(self) -> list[Any]:
        return [*self.network.variables, *self.network.optimizer.variables]

    def _take(self, row: dict[str, float]) -> None:
        """Adds an epoch to the log and keeps its weights if they are the best."""
        self.progress.epoch += 1
        self.progress.log.append(row)
        if row["val_global_mean_iou"] > self.progress.best_score or not self._best:
            self.progress.best_score = row["val_global_mean_iou"]
            self.progress.best_epoch = self.progress.epoch
            self._best = [np.array(variable) for variable in map(keras.ops.convert_to_numpy, self.network.variables)]

    def _save(self) -> None:
        """Replaces the checkpoint by the current state, atomically."""
        arrays = {f"now_{n}": keras.ops.convert_to_numpy(variable) for n, variable in enumerate(self._variables())}
        arrays |= {f"best_{number}": value for number, value in enumerate(self._best)}
        progress = {name: getattr(self.progress, name) for name in Progress.__dataclass_fields__}
        state = json.dumps({"fingerprint": self._fingerprint, "progress": progress})
        content = io.BytesIO()
        np.savez(content, state=np.array(state), **arrays)
        filesystem.write_bytes(os.fspath(self._folder / CHECKPOINT_FILE), content.getvalue())
        table = io.StringIO()
        writer = csv.DictWriter(table, list(self.progress.log[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.progress.log)
        filesystem.write_bytes(os.fspath(self._folder / LOG_FILE), table.getvalue().encode())

    def _is_exhausted(self, patience: int) -> bool:
        return patience > 0 and self.progress.epoch - self.progress.best_epoch >= patience and self.progress.epoch > 0

    def _learning_rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.network.optimizer.learning_rate))

    def _validate(self) -> Validated:
        """Compares the masks of the validation pictures with the predictions, at the model's size."""
        store, of_picture = self.pictures.store, dict[str, npt.NDArray[np.int64]]()
        for item, matrix in confusions_of(self.network, store, self._validation, self.num_classes):
            picture = store.id_of(item)
            of_picture[picture] = of_picture[picture] + matrix if picture in of_picture else matrix
        total: npt.NDArray[np.int64] = np.stack(list(of_picture.values())).sum(axis=0)
        return Validated(total, *swapped_pictures(of_picture))


def confusions_of(
    network: keras.Model, store: TrainingStore, indices: npt.NDArray[np.int64], num_classes: int, batch_size: int = 16
) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The confusion matrices of a network over stored items, at the model's size.

    Yields:
        The number of each item and its matrix, (num_classes, num_classes) int64 [truth, prediction].
    """
    for start in range(0, len(indices), batch_size):
        numbers = [int(index) for index in indices[start : start + batch_size]]
        pairs = [store[number] for number in numbers]
        logits = network.predict_on_batch(np.stack([image for image, _ in pairs]))
        for number, (_, truth), answer in zip(numbers, pairs, logits, strict=True):
            prediction = np.argmax(answer, axis=-1).astype(truth.dtype)
            yield number, confusion_matrix(truth, prediction, num_classes)
