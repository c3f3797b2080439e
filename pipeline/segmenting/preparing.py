"""From a picture's files to what the engine takes: opened, its truth in class ids, its views at the model's size."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import PictureError
from pipeline.core.labels import ClassIds
from pipeline.core.model_input import ModelInput, model_input
from pipeline.core.raster import Raster, RasterInfo, open_raster
from pipeline.core.recipe import Recipe
from pipeline.core.spec import ModelSpec
from pipeline.core.split_digests import SplitDigests, picture_digest
from pipeline.core.truth import decode_truth
from pipeline.segmenting.mode import Mode, View
from pipeline.segmenting.stage_clock import Seconds, timed


def open_picture(data: bytes, recipe: Recipe, seconds: Seconds) -> Raster:
    """Opens a picture's file; nothing is decoded yet.

    Args:
        data: the whole file.
        recipe: the job's.
        seconds: the time goes to its `decode`.

    Raises:
        PictureError: stage `decode`; the file is no picture, broken or too large.
    """
    with timed("decode", seconds):
        return open_raster(data, channels=recipe.spec.channels, max_pixels=recipe.max_pixels)


def picture_info(raster: Raster, seconds: Seconds) -> RasterInfo:
    """What a picture is; it may be decoded for that.

    Args:
        raster: the picture.
        seconds: the time goes to its `decode`.

    Raises:
        PictureError: stage `decode`; the file can't be decoded.
    """
    with timed("decode", seconds):
        return raster.info


def split_of(data: bytes, split: SplitDigests | None) -> str | None:
    """Which part of the model's training pictures has a picture, as `PictureRecord.split`.

    Args:
        data: the picture's whole file.
        split: the model's; None where that is not known.
    """
    return None if split is None else split.part_of(picture_digest(data)) or ""


def read_truth(
    data: bytes | PictureError | None, info: RasterInfo, recipe: Recipe, seconds: Seconds
) -> ClassIds | PictureError | None:
    """Decodes a picture's ground truth.

    Args:
        data: the mask's whole file, or why it can't be read; None where there is none.
        info: the picture's.
        recipe: the job's.
        seconds: the time goes to its `truth`.

    Returns:
        (height, width) class ids as `LabelMap.to_class_ids` gives them, or why they can't be had; None where there is
        no ground truth.
    """
    if data is None or isinstance(data, PictureError):
        return data
    with timed("truth", seconds):
        try:
            return decode_truth(data, info, recipe.labels, max_pixels=recipe.max_pixels)
        except PictureError as error:
            return error


def model_inputs(
    raster: Raster, mode: Mode, spec: ModelSpec, seconds: Seconds, *, keep: bool
) -> Iterator[tuple[View, ModelInput]]:
    """The views of a picture as the model takes them.

    Args:
        raster: the picture.
        mode: gives the views.
        spec: the model's.
        seconds: the time goes to its `decode` and `resize`.
        keep: whether the raster is needed afterwards; else it is closed when its last window was read.

    Yields:
        Each view and its pixels, (height, width, channels) of the model's dtype and range.

    Raises:
        PictureError: stage `decode`; the file can't be decoded or has the wrong number of bands.
    """
    views = mode.views(raster.info, spec)
    view = next(views)
    upright: ModelInput | None = None
    while True:
        if upright is None:
            with timed("decode", seconds):
                pixels = raster.read(view.window)
            with timed("resize", seconds):
                upright = _upright(view, pixels, spec)
            del pixels
        taken = view.turn.apply(upright)
        following = next(views, None)
        if following is None or not following.shows_same(view):
            upright = None
        if following is None and not keep:
            raster.close()
        yield view, taken
        if following is None:
            return
        view = following


def _upright(view: View, pixels: npt.NDArray[Any], spec: ModelSpec) -> ModelInput:
    """A view's pixels as the model takes them, not turned."""
    upright = model_input(view.with_margins(pixels), spec.input)
    # While a part of the decoded picture's memory waits for the engine, all of it would be kept.
    return upright.copy() if np.may_share_memory(upright, pixels) else upright
