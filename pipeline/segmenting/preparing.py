"""Prepares a picture for the engine: opens its file, decodes its ground truth, makes model inputs of its views."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import ErrorType, PictureError
from pipeline.core.labels import ClassIds
from pipeline.core.limits import max_file_bytes
from pipeline.core.model_input import ModelInput, model_input
from pipeline.core.ranged_file import RangedFile
from pipeline.core.raster import Raster, RasterInfo, open_raster
from pipeline.core.recipe import Recipe
from pipeline.core.spec import ModelSpec
from pipeline.core.split_digests import SplitDigests, picture_digest
from pipeline.core.tiff_windows import TIFF_SIGNATURES, TiffWindows
from pipeline.core.truth import decode_truth
from pipeline.core.usage import TILE
from pipeline.segmenting.mode import Mode, View
from pipeline.segmenting.stage_clock import Seconds, timed

MIN_WINDOWED_PIXELS = 1 << 24
"""TIFF of fewer pixels are decoded whole."""


def open_picture(data: bytes | RangedFile, recipe: Recipe, seconds: Seconds) -> Raster:
    """Opens a picture's file without decoding its pixels.

    Args:
        data: the whole file, or a TIFF that is read by range if its layout allows that.
        recipe: the job's.
        seconds: receives the time of the stage `decode`.

    Raises:
        PictureError: stage `decode`; the file is not a picture, broken or too large.
    """
    channels = recipe.spec.channels
    with timed("decode", seconds):
        if recipe.mode == TILE and (windows := _windows(data, channels)) is not None:
            return windows
        if not isinstance(data, bytes):
            data = _whole(data, recipe.max_pixels)
        return open_raster(data, channels=channels, max_pixels=recipe.max_pixels)


def _windows(data: bytes | RangedFile, channels: int) -> TiffWindows | None:
    """A TIFF that is read by window; None for other files and for small ones, which are quicker to decode whole."""
    if isinstance(data, bytes):
        if data[:4] not in TIFF_SIGNATURES:
            return None
        data = RangedFile.of_bytes(data)
    windows = TiffWindows.open(data, channels)
    return None if windows is None or windows.info.height * windows.info.width < MIN_WINDOWED_PIXELS else windows


def _whole(file: RangedFile, max_pixels: int) -> bytes:
    if file.size_bytes > max_file_bytes(max_pixels):
        message = f"the file is larger than any picture of --max_pixels {max_pixels} can be"
        raise PictureError("read", ErrorType.FILE_TOO_LARGE, f"{message}, {max_file_bytes(max_pixels)} bytes")
    return file.read_at(0, file.size_bytes)


def picture_info(raster: Raster, seconds: Seconds) -> RasterInfo:
    """The properties of a picture; it may have to be decoded for them.

    Args:
        raster: the picture.
        seconds: receives the time of the stage `decode`.

    Raises:
        PictureError: stage `decode`; the file can't be decoded.
    """
    with timed("decode", seconds):
        return raster.info


def split_of(data: bytes | RangedFile, split: SplitDigests | None) -> str | None:
    """The part of the model's training data that has a picture, as in `PictureRecord.split`.

    Args:
        data: the picture's whole file.
        split: the model's; None if unknown.
    """
    return None if split is None else split.part_of(picture_digest(data)) or ""


def read_truth(
    data: bytes | PictureError | None, info: RasterInfo, recipe: Recipe, seconds: Seconds
) -> ClassIds | PictureError | None:
    """Decodes a picture's ground truth.

    Args:
        data: the mask's whole file, or why it can't be read; None if there is none.
        info: the picture's.
        recipe: the job's.
        seconds: receives the time of the stage `truth`.

    Returns:
        (height, width) class ids as of `LabelMap.to_class_ids`, or the error; None if there is no ground truth.
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
    """The model inputs of a picture's views.

    Args:
        raster: the picture.
        mode: defines the views.
        spec: the model's.
        seconds: receives the time of the stages `decode` and `resize`.
        keep: whether the raster is needed afterwards; otherwise it is closed after its last window is read.

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
    """The model input of a view, not turned."""
    upright = model_input(view.with_margins(pixels), spec.input)
    # A view into the decoded picture would keep all of its memory allocated while it waits for the engine.
    return upright.copy() if np.may_share_memory(upright, pixels) else upright
