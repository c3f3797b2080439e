"""The registry of modes. A new mode is a class that implements `Mode` and one line in `MODES`."""

from collections.abc import Callable, Mapping

from pipeline.core.errors import OptionError
from pipeline.core.spec import ModelSpec
from pipeline.core.usage import DEFAULT_TILE_OVERLAP, RESIZE, TILE
from pipeline.segmenting.mode import Mode
from pipeline.segmenting.resize_mode import ResizeMode
from pipeline.segmenting.tile_mode import TileMode
from pipeline.segmenting.tta import NO_TTA, TurnedMode, turns_named

AUTO_MODE = "auto"
"""The option's value that leaves the choice to the model's metadata."""
MODES: Mapping[str, Callable[[float], Mode]] = {RESIZE: lambda _: ResizeMode(), TILE: TileMode}
"""Factories of the modes; the argument is the overlap of tiles."""


def choose_mode(name: str, tile_overlap: float | None, spec: ModelSpec) -> tuple[str, float]:
    """Resolves the options for mode and overlap of tiles for a model.

    `auto` is the mode in the model's metadata, `resize` if they have none. The overlap is that of the option, else that
    in the metadata of a model for tiles, else `DEFAULT_TILE_OVERLAP`.

    Args:
        name: `auto` or one of `MODES`.
        tile_overlap: the share of a tile that it has in common with the next; None if not given.
        spec: the model's.

    Returns:
        The name of the mode, and the overlap; 0.0 without tiles.

    Raises:
        OptionError: an overlap is given without tiles.
    """
    mode = spec.usage.mode if name == AUTO_MODE else name
    if mode == TILE:
        overlap = spec.usage.tile_overlap if spec.usage.mode == TILE else DEFAULT_TILE_OVERLAP
        return mode, overlap if tile_overlap is None else tile_overlap
    if tile_overlap is not None:
        raise OptionError(f"--tile_overlap needs --mode {TILE}")
    return mode, 0.0


def make_mode(name: str, spec: ModelSpec, *, tile_overlap: float = DEFAULT_TILE_OVERLAP, tta: str = NO_TTA) -> Mode:
    """Makes a mode for a model.

    Args:
        name: one of `MODES`.
        spec: the model's.
        tile_overlap: the share of a tile that it has in common with the next, 0 to 0.9; unused without tiles.
        tta: test-time augmentation, one of `pipeline.segmenting.tta.TTA`.

    Raises:
        OptionError: the mode or augmentation does not exist, the overlap is out of range, or the model's input can't be
            turned by right angles.
    """
    if name not in MODES:
        raise OptionError(f"--mode {name} is not one of {', '.join(MODES)}")
    mode, turns = MODES[name](tile_overlap), turns_named(tta, spec)
    return mode if len(turns) == 1 else TurnedMode(mode, turns)
