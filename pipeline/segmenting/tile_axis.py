"""Positions and blending weights of tiles along one axis of a picture."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TileAxis:
    """Tiles of one size along one axis of a picture, in equal steps.

    Their number is the smallest that covers the axis. They extend beyond both of its ends by the same number of pixels,
    or by one more at the end.

    Args:
        length: of the axis, px.
        tile: length of a tile, px.
        step: distance between tiles, px; at most `tile`.
    """

    length: int
    tile: int
    step: int

    @staticmethod
    def of(length: int, tile: int, overlap: float) -> "TileAxis":
        """Tiles that overlap by a share of their length, rounded to pixels.

        Args:
            length: of the axis, px.
            tile: length of a tile, px.
            overlap: 0 to `pipeline.core.usage.MAX_TILE_OVERLAP`.
        """
        return TileAxis(length, tile, max(1, tile - round(tile * overlap)))

    @property
    def count(self) -> int:
        """The number of tiles."""
        return 1 + max(0, -(-(self.length - self.tile) // self.step))

    def start(self, index: int) -> int:
        """The first pixel of a tile; negative if the tile starts before the picture.

        Args:
            index: of the tile, from 0.
        """
        span = self.tile + (self.count - 1) * self.step
        return index * self.step - (span - self.length) // 2

    def inside(self, index: int) -> tuple[int, int]:
        """The part of a tile within the picture: its first pixel, and one past its last."""
        start = self.start(index)
        return max(0, start), min(self.length, start + self.tile)

    def weights(self) -> npt.NDArray[np.float32]:
        """The share of each tile in the blended value of each pixel.

        Over a tile, u from -1 to 1, the weight is (1 - u²)², which is 0 with slope 0 at both ends as a Hann window is,
        and computed from whole numbers, so that it is the same on every machine. Divided by the sum over the tiles.

        Returns:
            (count, tile) float32 above 0 and at most 1; over the tiles of a pixel they add up to 1.
        """
        position = 2 * np.arange(self.tile, dtype=np.int64) + 1
        kernel = ((position * (2 * self.tile - position)) ** 2).astype(np.float64)
        total = np.zeros(self.tile + (self.count - 1) * self.step)
        parts = [slice(index * self.step, index * self.step + self.tile) for index in range(self.count)]
        for part in parts:
            total[part] += kernel
        return np.stack([kernel / total[part] for part in parts]).astype(np.float32)
