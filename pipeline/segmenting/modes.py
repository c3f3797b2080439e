"""The modes that there are. A new mode is a class that follows `Mode` and one line in `MODES`."""

from collections.abc import Callable, Mapping

from pipeline.core.errors import OptionError
from pipeline.segmenting.mode import Mode
from pipeline.segmenting.resize_mode import ResizeMode

AUTO_MODE = "auto"
"""The option's value that leaves the choice to maskbeam; today always `resize`."""
RESIZE = "resize"
MODES: Mapping[str, Callable[[], Mode]] = {RESIZE: ResizeMode}


def mode_named(name: str) -> Mode:
    """The mode of a name.

    Raises:
        OptionError: there is no such mode.
    """
    if name not in MODES:
        raise OptionError(f"there is no mode {name!r}; the modes are {', '.join(MODES)}")
    return MODES[name]()
