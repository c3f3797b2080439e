"""Test-time augmentation: the logits of several turns of each view are averaged."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from pipeline.core.errors import OptionError
from pipeline.core.raster import RasterInfo
from pipeline.core.spec import ModelSpec
from pipeline.engines.base import Logits
from pipeline.segmenting.mode import UPRIGHT, Assembler, FinishedRows, Mode, Turn, View

NO_TTA = "none"
TTA: Mapping[str, tuple[Turn, ...]] = {
    NO_TTA: (UPRIGHT,),
    "flip": (UPRIGHT, Turn(flip_columns=True)),
    "d4": tuple(Turn(*choices) for choices in product((False, True), repeat=3)),
}
"""The turns of each augmentation: upright alone, also mirrored left to right, all eight symmetries of a square. Their
numbers are powers of two, so that dividing by them is exact."""


def turns_named(name: str, spec: ModelSpec) -> tuple[Turn, ...]:
    """The turns of an augmentation.

    Args:
        name: one of `TTA`.
        spec: the model's.

    Raises:
        OptionError: the augmentation does not exist, or the model's input can't be turned by right angles.
    """
    if name not in TTA:
        raise OptionError(f"--tta {name} is not one of {', '.join(TTA)}")
    turns = TTA[name]
    if spec.height != spec.width and any(turn.transpose for turn in turns):
        raise OptionError(f"--tta {name} needs a model of square input; this one takes {spec.width}x{spec.height} px")
    return turns


class TurnedMode:
    """Another mode whose views are each shown in several turns; the logits, turned back, are averaged.

    Args:
        mode: gives the views.
        turns: a power of two of them.
    """

    def __init__(self, mode: Mode, turns: tuple[Turn, ...]) -> None:
        self._mode = mode
        self._turns = turns

    def views(self, info: RasterInfo, spec: ModelSpec) -> Iterator[View]:
        """As `Mode.views`: all turns of a view, then those of the next."""
        for view in self._mode.views(info, spec):
            for turn in self._turns:
                yield replace(view, turn=turn)

    def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
        """As `Mode.assembler`."""
        return _Averaging(self._mode.assembler(info, spec), len(self._turns))

    def assembler_bytes(self, info: RasterInfo, spec: ModelSpec) -> int:
        """As `Mode.assembler_bytes`."""
        return self._mode.assembler_bytes(info, spec)


class _Averaging:
    def __init__(self, assembler: Assembler, turns: int) -> None:
        self._assembler = assembler
        self._turns = turns
        self._sum: Logits | None = None
        self._taken = 0

    def add(self, view: View, logits: Logits) -> Iterator[FinishedRows]:
        upright = view.turn.undo(logits)
        self._sum = upright.copy() if self._sum is None else self._sum + upright
        self._taken += 1
        if self._taken == self._turns:
            mean, self._sum, self._taken = self._sum * np.float32(1 / self._turns), None, 0
            yield from self._assembler.add(replace(view, turn=UPRIGHT), mean)
