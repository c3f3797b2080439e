"""One picture through a model with no job around it: the job's own windows, model input and assembler, one by one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds
from pipeline.core.model_input import model_input
from pipeline.core.raster import ArrayRaster, Raster
from pipeline.core.spec import ModelSpec
from pipeline.engines.base import Engine, input_batch
from pipeline.segmenting.modes import RESIZE, FinishedRows, mode_named


def segment_raster(raster: Raster, engine: Engine, spec: ModelSpec, mode: str = RESIZE) -> Iterator[FinishedRows]:
    """Segments one picture.

    Args:
        raster: the picture.
        engine: the loaded model.
        spec: the model's.
        mode: one of `pipeline.segmenting.modes.MODES`.

    Yields:
        Its finished rows, from top to bottom.

    Raises:
        PictureError: stage `decode`; the picture can't be decoded or has another number of bands than the model.
    """
    info, chosen = raster.info, mode_named(mode)
    assembler = chosen.assembler(info, spec)
    for window in chosen.windows(info, spec):
        (logits,) = engine.logits(input_batch([model_input(raster.read(window), spec.input)]))
        yield from assembler.add(window, logits)


def segment_pixels(pixels: npt.NDArray[Any], engine: Engine, spec: ModelSpec, mode: str = RESIZE) -> ClassIds:
    """The mask of one picture at its own size, as the job makes it.

    Args:
        pixels: (H, W, C) uint8, upright.
        engine: the loaded model.
        spec: the model's.
        mode: one of `pipeline.segmenting.modes.MODES`.

    Returns:
        (H, W) class ids, uint8 up to 256 classes, else uint16.

    Raises:
        PictureError: stage `decode`; the picture has another number of bands than the model.
    """
    rows: list[npt.NDArray[Any]] = [rows.mask for rows in segment_raster(ArrayRaster(pixels), engine, spec, mode)]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)
