"""A mode of plain tiles, which shows that a mode is one class between pictures and engine batches."""

from collections.abc import Iterator

import numpy as np

from pipeline.core.raster import RasterInfo
from pipeline.core.resize import ResizedLogits
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import Window
from pipeline.engines.base import Logits
from pipeline.segmenting.mode import Assembler, FinishedRows, View


class PlainTiles:
    """Tiles of the model's size side by side, row by row; those along the right and lower edge are smaller."""

    def views(self, info: RasterInfo, spec: ModelSpec) -> Iterator[View]:
        for top in range(0, info.height, spec.height):
            for left in range(0, info.width, spec.width):
                height, width = min(spec.height, info.height - top), min(spec.width, info.width - left)
                yield View(Window(top, left, height, width))

    def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
        return _RowsOfTiles(info.width)

    def assembler_bytes(self, info: RasterInfo, spec: ModelSpec) -> int:
        return 4 * spec.num_classes * spec.height * info.width


class _RowsOfTiles:
    def __init__(self, width: int) -> None:
        self._width = width
        self._row: list[ResizedLogits] = []

    def add(self, view: View, logits: Logits) -> Iterator[FinishedRows]:
        window = view.window
        self._row.append(ResizedLogits(logits, window.height, window.width))
        if window.left + window.width == self._width:
            tiles, self._row, height = self._row, [], window.height
            mask = np.concatenate([tile.mask(0, height) for tile in tiles], axis=1)
            yield FinishedRows(
                window.top, mask, lambda: np.concatenate([tile.probabilities(0, height) for tile in tiles], axis=2)
            )
