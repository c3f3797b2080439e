"""The registry of outputs."""

from collections.abc import Mapping

from pipeline.core.layout import picture_file
from pipeline.core.recipe import Recipe
from pipeline.output.mask_output import MaskOutput
from pipeline.output.outputs import Output
from pipeline.output.overlay_output import OverlayOutput
from pipeline.output.probabilities_output import ProbabilitiesOutput

OUTPUTS: tuple[type[Output], ...] = (ProbabilitiesOutput, OverlayOutput, MaskOutput)
"""In the order of writing. The mask is last: if it exists, all other files exist, too."""


def requested_outputs(options: Mapping[str, object], recipe: Recipe) -> tuple[Output, ...]:
    """The outputs that a job's options request.

    Args:
        options: the value of each option by its name; other options are ignored.
        recipe: determines what the outputs show.

    Returns:
        The outputs in the order of writing.
    """
    return tuple(output(recipe) for output in OUTPUTS if output.is_requested(options.get(output.option)))


def file_name(output: str, image_id: str) -> str:
    """The path of an output's file for a picture, below the job's output.

    Args:
        output: the output's name.
        image_id: the picture's.
    """
    one = next(one for one in OUTPUTS if one.name == output)
    return picture_file(one.folder, image_id, one.suffix)
