"""The modes that there are. A new mode is a class that follows `Mode` and one line in `MODES`."""

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
"""What makes each mode; it is given the overlap of tiles."""


def choose_mode(name: str, tile_overlap: float | None, spec: ModelSpec) -> tuple[str, float]:
    """Which mode and overlap of tiles two options mean for a model.

    `auto` is the mode that the model's metadata name, which is `resize` where they name none. Tiles overlap as the
    option says, else as the metadata of a model for tiles, else by `DEFAULT_TILE_OVERLAP`.

    Args:
        name: `auto` or one of `MODES`.
        tile_overlap: the share of a tile that it has in common with the next; None where it isn't given.
        spec: the model's.

    Returns:
        The name of the mode, and the overlap, 0.0 without tiles.

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
        OptionError: there is no such mode or augmentation, the overlap is out of its range, or the model's input can't
            be turned as the augmentation does.
    """
    if name not in MODES:
        raise OptionError(f"there is no mode {name!r}; the modes are {', '.join(MODES)}")
    mode, turns = MODES[name](tile_overlap), turns_named(tta, spec)
    return mode if len(turns) == 1 else TurnedMode(mode, turns)
