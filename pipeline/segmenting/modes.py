"""How a picture is brought to the model's size and its logits back: the modes.

A mode says which windows of a picture the model sees, and puts the logits of these windows together to finished rows.
A new mode is a class that follows `Mode` and one line in `MODES`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import OptionError
from pipeline.core.labels import ClassIds
from pipeline.core.raster import RasterInfo
from pipeline.core.resize import ResizedLogits
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import Window, strip_bounds
from pipeline.engines.base import Logits


@dataclass(frozen=True, slots=True)
class FinishedRows:
    """Some rows of a picture's mask, over its whole width.

    Args:
        top: the first row in the picture, px.
        mask: (h, W) class ids, uint8 up to 256 classes, else uint16.
        probabilities: gives (num_classes, h, W) uint8, round(255 · probability); computed when it is called.
    """

    top: int
    mask: ClassIds
    probabilities: Callable[[], npt.NDArray[np.uint8]]


class Assembler(Protocol):
    """Puts the logits of one picture's windows together."""

    def add(self, window: Window, logits: Logits) -> Iterator[FinishedRows]:
        """Takes the next window's logits.

        Args:
            window: as the mode gave it; windows come in the mode's order.
            logits: (h, w, num_classes) float32, finite.

        Yields:
            The rows that are finished by it, from top to bottom; after the last window all of the picture's rows were
            given, each once.
        """
        ...


class Mode(Protocol):
    """Decides which windows of a picture the model sees; it has no state."""

    def windows(self, info: RasterInfo, spec: ModelSpec) -> Iterator[Window]:
        """The windows of a picture, each of which is resized to the model's input.

        Args:
            info: the picture's.
            spec: the model's.

        Yields:
            At least one window.
        """
        ...

    def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
        """What puts the logits of one picture together."""
        ...


class ResizeMode:
    """The whole picture at the model's size; the logits are resized to the picture's."""

    def windows(self, info: RasterInfo, spec: ModelSpec) -> Iterator[Window]:
        """As `Mode.windows`: one."""
        yield info.whole

    def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
        """As `Mode.assembler`."""
        return _WholePicture()


class _WholePicture:
    def add(self, window: Window, logits: Logits) -> Iterator[FinishedRows]:
        resized = ResizedLogits(logits, window.height, window.width)
        for top, bottom in strip_bounds(window.height, window.width):
            yield FinishedRows(top, resized.mask(top, bottom), partial(resized.probabilities, top, bottom))


AUTO_MODE = "auto"
"""The option's value that leaves the choice to maskbeam; today always `resize`."""
RESIZE = "resize"
MODES: Mapping[str, Mode] = {RESIZE: ResizeMode()}


def mode_named(name: str) -> Mode:
    """The mode of a name.

    Raises:
        OptionError: there is no such mode.
    """
    if name not in MODES:
        raise OptionError(f"there is no mode {name!r}; the modes are {', '.join(MODES)}")
    return MODES[name]
