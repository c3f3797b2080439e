"""How a model is meant to be shown pictures: the section `usage` of `metadata.json`."""

from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import OptionError

RESIZE, TILE = "resize", "tile"
DEFAULT_TILE_OVERLAP = 0.25
MAX_TILE_OVERLAP = 0.9
"""At 0.9 a pixel is in 100 tiles."""


def check_tile_overlap(overlap: float) -> None:
    """Refuses an overlap out of its range.

    Raises:
        OptionError: it is not between 0 and `MAX_TILE_OVERLAP`.
    """
    if not 0.0 <= overlap <= MAX_TILE_OVERLAP:
        raise OptionError(f"--tile_overlap {overlap} is not between 0 and {MAX_TILE_OVERLAP}")


@dataclass(frozen=True, slots=True)
class Usage:
    """The mode in which a model was trained.

    Args:
        mode: `resize`, the whole picture at the model's size, or `tile`, parts of it at full resolution.
        tile_overlap: the share of a tile that it has in common with the next, 0 to `MAX_TILE_OVERLAP`; 0.0 without
            tiles.
    """

    mode: str = RESIZE
    tile_overlap: float = 0.0

    def to_document(self) -> dict[str, Any]:
        """The section of `metadata.json`; `scale` is the side of a picture's pixel in pixels of the model's input."""
        if self.mode != TILE:
            return {"mode": self.mode}
        return {"mode": self.mode, "tile_overlap": self.tile_overlap, "scale": 1.0}

    @staticmethod
    def from_document(document: object) -> "Usage":
        """The inverse of `to_document`.

        Args:
            document: the section; None where there is none, for `resize`.

        Raises:
            ValueError: it is incomplete, or asks for something that this version doesn't do.
            OptionError: the overlap is out of its range.
        """
        if document is None:
            return Usage()
        if not isinstance(document, dict):
            raise ValueError("usage is not an object")
        mode = document.get("mode")
        if mode not in (RESIZE, TILE):
            raise ValueError(f"usage.mode is {mode!r}, not one of {RESIZE}, {TILE}")
        if mode == RESIZE:
            return Usage()
        overlap, scale = document.get("tile_overlap", DEFAULT_TILE_OVERLAP), document.get("scale", 1.0)
        if not isinstance(overlap, int | float) or isinstance(overlap, bool):
            raise ValueError(f"usage.tile_overlap is {overlap!r}, not a number")
        check_tile_overlap(overlap)
        if scale != 1.0:
            raise ValueError(f"usage.scale is {scale!r}; tiles have the picture's own resolution, 1.0")
        return Usage(TILE, float(overlap))
