"""The mode `tile`: overlapping tiles of the model's size at full resolution, whose logits are blended."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from pipeline.core.planes import Float32Array, argmax, empty_mask, softmax
from pipeline.core.raster import RasterInfo
from pipeline.core.resize import ResizedLogits
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import Window, strip_bounds
from pipeline.core.usage import check_tile_overlap
from pipeline.engines.base import Logits
from pipeline.segmenting.mode import Assembler, FinishedRows, View
from pipeline.segmenting.tile_axis import TileAxis

_FLOAT32_BYTES = 4


class TileMode:
    """As `Mode`: tiles row by row from the top, each row from the left.

    Logits are blended, as `resize` interpolates logits, and not probabilities: these need an exponential, whose last
    bits differ between CPUs, so that equal logits would not give equal masks on every machine.

    Args:
        overlap: the share of a tile that it has in common with the next, 0 to 0.9.

    Raises:
        OptionError: the overlap is out of range.
    """

    def __init__(self, overlap: float) -> None:
        check_tile_overlap(overlap)
        self._overlap = overlap

    def views(self, info: RasterInfo, spec: ModelSpec) -> Iterator[View]:
        """As `Mode.views`."""
        rows, columns = self._axes(info, spec)
        for row in range(rows.count):
            for column in range(columns.count):
                yield _view(rows, row, columns, column)

    def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
        """As `Mode.assembler`."""
        return _BlendedTiles(*self._axes(info, spec), spec.num_classes)

    def assembler_bytes(self, info: RasterInfo, spec: ModelSpec) -> int:
        """As `Mode.assembler_bytes`: a band of the picture's width and a tile's height in float32, for each class."""
        return _FLOAT32_BYTES * spec.num_classes * spec.height * info.width

    def _axes(self, info: RasterInfo, spec: ModelSpec) -> tuple[TileAxis, TileAxis]:
        return TileAxis.of(info.height, spec.height, self._overlap), TileAxis.of(info.width, spec.width, self._overlap)


def _view(rows: TileAxis, row: int, columns: TileAxis, column: int) -> View:
    top, bottom = rows.inside(row)
    left, right = columns.inside(column)
    above, before = top - rows.start(row), left - columns.start(column)
    margins = (above, rows.tile - above - (bottom - top), before, columns.tile - before - (right - left))
    return View(Window(top, left, bottom - top, right - left), margins)


class _BlendedTiles:
    """Sums weighted tiles in a band of the picture's rows, which moves down by one step after each row of tiles.

    Each pixel's sum is in the order of its tiles, so the result does not depend on batches or threads.
    """

    def __init__(self, rows: TileAxis, columns: TileAxis, num_classes: int) -> None:
        self._rows, self._columns = rows, columns
        self._row_weights, self._column_weights = rows.weights(), columns.weights()
        self._band: Float32Array = np.zeros((num_classes, rows.tile, columns.length), np.float32)
        self._taken = 0

    def add(self, view: View, logits: Logits) -> Iterator[FinishedRows]:
        row, column = divmod(self._taken, self._columns.count)
        self._taken += 1
        weights = self._row_weights[row][:, None] * self._column_weights[column]
        planes = ResizedLogits(logits, *weights.shape).planes() * weights
        left, right = self._columns.inside(column)
        start = self._columns.start(column)
        self._band[:, :, left:right] += planes[:, :, left - start : right - start]
        if column == self._columns.count - 1:
            yield from self._finished(row)

    def _finished(self, row: int) -> Iterator[FinishedRows]:
        """Yields the rows that no further tile covers, and moves the band down."""
        rows, band_top = self._rows, self._rows.start(row)
        is_last = row == rows.count - 1
        first, end = max(0, band_top), rows.length if is_last else rows.start(row + 1)
        for top, bottom in strip_bounds(end - first, self._columns.length):
            planes = self._band[:, first + top - band_top : first + bottom - band_top]
            yield FinishedRows(first + top, _mask_of(planes), partial(_probabilities_of, planes))
        if not is_last:
            self._band[:, : -rows.step] = self._band[:, rows.step :]
            self._band[:, -rows.step :] = 0


def _mask_of(planes: Float32Array) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    mask = empty_mask(len(planes), *planes.shape[1:])
    argmax(iter([planes[0].copy(), *planes[1:]]), len(planes), mask)
    return mask


def _probabilities_of(planes: Float32Array) -> npt.NDArray[np.uint8]:
    return softmax(planes.copy())
