"""The modes that there are. A new mode is a class that follows `Mode` and one line in `MODES`."""

from collections.abc import Callable, Mapping

from pipeline.core.errors import OptionError
from pipeline.core.spec import ModelSpec
from pipeline.segmenting.mode import Mode
from pipeline.segmenting.resize_mode import ResizeMode
from pipeline.segmenting.tile_axis import DEFAULT_TILE_OVERLAP
from pipeline.segmenting.tile_mode import TileMode
from pipeline.segmenting.tta import NO_TTA, TurnedMode, turns_named

AUTO_MODE = "auto"
"""The option's value that leaves the choice to maskbeam; today always `resize`."""
RESIZE, TILE = "resize", "tile"
MODES: Mapping[str, Callable[[float], Mode]] = {RESIZE: lambda _: ResizeMode(), TILE: TileMode}
"""What makes each mode; it is given the overlap of tiles."""


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
