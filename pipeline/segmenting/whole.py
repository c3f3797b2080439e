"""One picture through a model with no job around it: the job's own windows, model input and assembler, one by one."""

from collections.abc import Iterator

from pipeline.core.model_input import model_input
from pipeline.core.raster import Raster
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
