"""What is reported while a training runs: a line an epoch, the time left, warnings, and figures on the way."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from model.early_warnings import SwapHistory, Watched, log_warnings, swap_warnings
from model.figures import Example, can_draw, curves_figure, examples_figure, png_of
from model.finish import CURVES_FILE, EXAMPLES_FILE, class_specs
from model.fit import EpochDone, Progress
from model.job import TrainingJob
from model.time_left import StepCallback, TimeLeft
from pipeline.core.scores import confusion_matrix, iou_per_class, mean_of_present
from pipeline.core.wording import duration_text
from pipeline.storage import filesystem

Say = Callable[[str], None]

_EXAMPLES = 4
_PARTS = 4
"""Figures are written after the first epoch and after every quarter of the training."""
_MEASURED_STEPS = 10


class TrainingObserver(Protocol):
    """What shows a running training, such as `model.training_display.TrainingDisplay`."""

    def step_done(self, epoch: int, step: int, left_s: float | None) -> None:
        """A step was done: its epoch and its number, both from 1, and the time left, seconds, if known."""

    def epoch_done(self, progress: Progress, left_s: float | None) -> None:
        """An epoch was done: the log with its row, and the time left, seconds, if known."""

    def stop(self) -> None:
        """The last epoch was done."""


class EpochReporter:
    """Reports the steps and epochs of one training.

    Args:
        job: the training.
        progress: of the training; read after every epoch.
        network: the network that is trained, (N, H, W, C) uint8 to logits.
        steps: in an epoch.
        figures: the folder of the figures.
        say: called with every line.
        observer: shows the training; None for lines alone.
    """

    def __init__(
        self,
        job: TrainingJob,
        progress: Progress,
        network: keras.Model,
        steps: int,
        figures: Path,
        say: Say,
        observer: TrainingObserver | None,
    ) -> None:
        self._job, self._progress, self._network, self._steps = job, progress, network, steps
        self._figures, self._say, self._observer = figures, say, observer
        options, split = job.options, job.split
        self._time = TimeLeft(options.epochs, steps, len(split.validation) / len(split.train))
        self._time.begin(progress.epoch)
        self._time_said = False
        truth_px = job.data.store.class_px(split.validation, job.labels.num_classes)
        self._watched = Watched(job.class_names, options.epochs, steps, options.warmup_epochs, truth_px)
        self._swaps = SwapHistory()
        self._warned: set[str] = set()

    def callback(self) -> keras.callbacks.Callback:
        """The Keras callback that reports every step."""
        return StepCallback(self._step_done)

    def _step_done(self, step: int) -> None:
        self._time.step_done()
        left_s = self._time.left_s
        if not self._time_said and left_s is not None and step >= min(_MEASURED_STEPS, self._steps):
            self._time_said = True
            epochs_left = self._job.options.epochs - self._progress.epoch
            step_s = self._time.step_s
            measured = "" if step_s is None else f", {1000 * step_s:.0f} ms a step"
            self._say(f"about {duration_text(left_s)} for {epochs_left} epochs of {self._steps} steps{measured}")
        if self._observer is not None:
            self._observer.step_done(self._progress.epoch + 1, step, left_s)

    def epoch_done(self, done: EpochDone) -> None:
        """Reports an epoch: its line, new warnings, and at intervals the figures."""
        self._time.epoch_done()
        left_s = self._time.left_s
        row, epochs, progress = done.row, self._job.options.epochs, self._progress
        self._say(
            f"epoch {int(row['epoch']):3d}/{epochs}  loss {row['loss']:.4f}  "
            f"validation global_mean_iou {row['val_global_mean_iou']:.4f}  {done.seconds:.1f} s  "
            f"best epoch {progress.best_epoch}  {duration_text(left_s)} left"
        )
        self._warn(done)
        if self._observer is not None:
            self._observer.epoch_done(progress, left_s)
        if can_draw() and is_figure_epoch(progress.epoch, epochs):
            self._write_figures()

    def _warn(self, done: EpochDone) -> None:
        pictures = len(self._job.split.validation)
        swapped = self._swaps.add(done.validated.swapped)
        for line in (
            *log_warnings(self._progress.log, self._watched),
            *swap_warnings(swapped, done.validated.score_of_others, pictures, self._job.class_names, "validation"),
        ):
            # The numbers in a line may change with the epoch.
            kind = "".join(char for char in line.partition(":")[0] if not char.isdigit())
            if kind not in self._warned:
                self._warned.add(kind)
                self._say(f"warning: {line}")

    def _write_figures(self) -> None:
        classes, progress = class_specs(self._job.class_names), self._progress
        curves = curves_figure(progress.log, progress.best_epoch, classes)
        filesystem.write_bytes(os.fspath(self._figures / CURVES_FILE), png_of(curves))
        figure = examples_figure(self._examples(), classes)
        filesystem.write_bytes(os.fspath(self._figures / EXAMPLES_FILE), png_of(figure))

    def _examples(self) -> Sequence[Example]:
        """The first validation pictures at the model's size, with the masks of the network as it is now."""
        store, found = self._job.data.store, []
        indices = store.examples(self._job.split.validation, _EXAMPLES)
        logits = self._network.predict_on_batch(np.stack([store[index][0] for index in indices]))
        for index, answer in zip(indices, logits, strict=True):
            image, truth = store[index]
            prediction = np.argmax(answer, axis=-1).astype(truth.dtype)
            matrix = confusion_matrix(truth, prediction, self._job.labels.num_classes)
            score = mean_of_present(iou_per_class(matrix))
            title = f"epoch {self._progress.epoch}, validation, mean IoU {score:.3f}, {store.id_of(index)}"
            found.append(Example(title, image, truth, prediction))
        return found


def is_figure_epoch(epoch: int, epochs: int) -> bool:
    """Whether figures are written after an epoch: the first and the end of each quarter, but not the last.

    Args:
        epoch: from 1.
        epochs: of the whole training.
    """
    quarters = {-(-part * epochs // _PARTS) for part in range(1, _PARTS)}
    return epoch < epochs and (epoch == 1 or epoch in quarters)
