"""The scenes that `python -m model sample` draws."""

from collections.abc import Mapping

from model.samples.field import FIELD
from model.samples.sample import SHAPES, Scene
from pipeline.core.errors import OptionError

SCENES: Mapping[str, Scene] = {"shapes": SHAPES, "field": FIELD}


def scene_named(name: str) -> Scene:
    """The scene of a name.

    Raises:
        OptionError: there is no such scene.
    """
    if name not in SCENES:
        raise OptionError(f"--scene {name} is not one of {', '.join(SCENES)}")
    return SCENES[name]
