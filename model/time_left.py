"""An estimate of the time that a training still takes."""

import time
from collections.abc import Callable
from typing import Any

import keras

_UNEVEN_STEPS = 2
"""In the first steps TensorFlow builds the graph and chooses its kernels; they are not measured."""
_RECENT_EPOCHS = 3
_FORWARD_SHARE = 1 / 3
"""The forward pass's share of a training step, for validation, which has no backward pass."""


class TimeLeft:
    """Estimates the time left from the measured steps of the first epoch, then from whole epochs.

    Args:
        epochs: of the whole training.
        steps: in an epoch.
        validation_share: validation pictures for each training picture.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, epochs: int, steps: int, validation_share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._epochs, self._steps, self._clock = epochs, steps, clock
        self._cost_of_validation = 1.0 + validation_share * _FORWARD_SHARE
        self._step_ends: list[float] = []
        self._epoch_s: list[float] = []
        self._epoch_began = clock()
        self._epochs_left = epochs

    def begin(self, epochs_done: int) -> None:
        """Sets how many epochs an earlier process has done."""
        self._epochs_left = self._epochs - epochs_done
        self._epoch_began = self._clock()

    def step_done(self) -> None:
        """Notes the end of a step."""
        if not self._epoch_s:
            self._step_ends.append(self._clock())

    def epoch_done(self) -> None:
        """Notes the end of an epoch, its validation included."""
        now = self._clock()
        self._epoch_s.append(now - self._epoch_began)
        self._epoch_began = now
        self._epochs_left -= 1

    @property
    def step_s(self) -> float | None:
        """The mean duration of the first epoch's steps, seconds; None before the fourth step."""
        measured = self._step_ends[_UNEVEN_STEPS - 1 :]
        if len(measured) < 3:
            return None
        return (measured[-1] - measured[0]) / (len(measured) - 1)

    @property
    def left_s(self) -> float | None:
        """The time left, seconds; None while too little has been measured."""
        if self._epoch_s:
            # The first epoch is the longest: it builds the graph.
            recent = self._epoch_s[1:][-_RECENT_EPOCHS:] or self._epoch_s
            left = self._epochs_left * sum(recent) / len(recent) - (self._clock() - self._epoch_began)
            return max(left, 0.0)
        if (step_s := self.step_s) is None:
            return None
        steps_left = self._epochs_left * self._steps - len(self._step_ends)
        return max(steps_left, 0) * step_s * self._cost_of_validation


class StepCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Calls a function after every training step.

    Args:
        done: called with the step's number, from 1.
    """

    def __init__(self, done: Callable[[int], None]) -> None:
        super().__init__()
        self._done = done

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras calls this with the step's number, from 0."""
        self._done(batch + 1)
