"""The mode `resize`: the whole picture at the model's size; the logits are resized to the picture's."""

from collections.abc import Iterator
from functools import partial

from pipeline.core.raster import RasterInfo
from pipeline.core.resize import ResizedLogits
from pipeline.core.spec import ModelSpec
from pipeline.core.strips import strip_bounds
from pipeline.engines.base import Logits
from pipeline.segmenting.mode import Assembler, FinishedRows, View


class ResizeMode:
    """As `Mode`: one view of the whole picture."""

    def views(self, info: RasterInfo, spec: ModelSpec) -> Iterator[View]:
        """As `Mode.views`: one."""
        yield View(info.whole)

    def assembler(self, info: RasterInfo, spec: ModelSpec) -> Assembler:
        """As `Mode.assembler`."""
        return _WholePicture()

    def assembler_bytes(self, info: RasterInfo, spec: ModelSpec) -> int:
        """As `Mode.assembler_bytes`: none."""
        return 0


class _WholePicture:
    def add(self, view: View, logits: Logits) -> Iterator[FinishedRows]:
        height, width = view.window.height, view.window.width
        resized = ResizedLogits(logits, height, width)
        for top, bottom in strip_bounds(height, width):
            yield FinishedRows(top, resized.mask(top, bottom), partial(resized.probabilities, top, bottom))
