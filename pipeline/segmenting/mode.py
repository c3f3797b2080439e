"""The interface of modes: they divide a picture into views for the model and assemble the logits to finished rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds
from pipeline.core.raster import RasterInfo
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import Window
from pipeline.engines.base import Logits


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight symmetries of a square: transposed or not, then mirrored or not along either axis.

    Args:
        transpose: whether rows and columns are exchanged.
        flip_rows: whether the order of the rows is reversed.
        flip_columns: whether the order of the columns is reversed.
    """

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turns an array (h, w, …); the result is a view of it."""
        turned = array.swapaxes(0, 1) if self.transpose else array
        return self._flipped(turned)

    def undo(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The inverse of `apply`."""
        flipped = self._flipped(array)
        return flipped.swapaxes(0, 1) if self.transpose else flipped

    def _flipped(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return array[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


UPRIGHT = Turn()


@dataclass(frozen=True, slots=True)
class View:
    """One input of the model.

    Args:
        window: the pixels that are read.
        margins: px above, below, left and right of the window that are padded by reflection, including the edge.
        turn: how the model's input is turned.
    """

    window: Window
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)
    turn: Turn = UPRIGHT

    def shows_same(self, other: "View") -> bool:
        """Whether another view shows the same pixels, turned or not."""
        return (self.window, self.margins) == (other.window, other.margins)

    def with_margins(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Adds the mirrored margins to the window's pixels, (h, w, bands)."""
        above, below, left, right = self.margins
        if not any(self.margins):
            return pixels
        return np.pad(pixels, ((above, below), (left, right), (0, 0)), "symmetric")


@dataclass(frozen=True, slots=True)
class FinishedRows:
    """Rows of a picture's mask, over its whole width.

    Args:
        top: index of the first row in the picture.
        mask: (h, W) class ids, uint8 up to 256 classes, else uint16.
        probabilities: returns (num_classes, h, W) uint8, round(255 · probability); may be called until the next rows
            are requested.
    """

    top: int
    mask: ClassIds
    probabilities: Callable[[], npt.NDArray[np.uint8]]


class Assembler(Protocol):
    """Assembles the logits of the views of one picture."""

    def add(self, view: View, logits: Logits) -> Iterator[FinishedRows]:
        """Adds the logits of the next view.

        Args:
            view: as the mode yields it, in the mode's order.
            logits: (h, w, num_classes) float32, finite.

        Yields:
            The rows that it finishes, from top to bottom; after the last view, each row of the picture has been yielded
            once.
        """
        ...


class Mode(Protocol):
    """Divides pictures into views; stateless."""

    def views(self, info: RasterInfo, spec: ModelSpec) -> Iterator[View]:
        """The views of a picture, each of which is resized to the model's input.

        Args:
            info: the picture's.
            spec: the model's.

        Yields:
            At least one view.
        """
        ...

    def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
        """An assembler for the logits of one picture."""
        ...

    def assembler_bytes(self, info: RasterInfo, spec: ModelSpec) -> int:
        """Bytes that an assembler allocates for one picture, in addition to the model's output."""
        ...
