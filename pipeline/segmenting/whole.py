"""Segments one picture without a job, with the same views, model inputs and assembler."""

from collections import defaultdict
from collections.abc import Iterator

from pipeline.core.raster import Raster
from pipeline.core.spec import ModelSpec
from pipeline.engines.base import Engine, input_batch
from pipeline.segmenting.mode import FinishedRows, Mode
from pipeline.segmenting.preparing import model_inputs


def segment_raster(raster: Raster, engine: Engine, spec: ModelSpec, mode: Mode) -> Iterator[FinishedRows]:
    """Segments one picture.

    Args:
        raster: the picture.
        engine: the loaded model.
        spec: the model's.
        mode: from `pipeline.segmenting.modes.make_mode`.

    Yields:
        Its finished rows, from top to bottom.

    Raises:
        PictureError: stage `decode`; the picture can't be decoded or has another number of bands than the model.
    """
    assembler = mode.assembler(raster.info, spec)
    for view, taken in model_inputs(raster, mode, spec, defaultdict(float), keep=True):
        (logits,) = engine.logits(input_batch([taken]))
        yield from assembler.add(view, logits)
