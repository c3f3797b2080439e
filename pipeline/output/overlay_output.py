"""The overlay: the mask drawn over its picture, an RGB PNG, for the number of pictures that `--overlays` requests."""

from typing import ClassVar

from PIL import Image

from pipeline.core.labels import ClassIds
from pipeline.core.overlay import overlay
from pipeline.core.recipe import Recipe, digest_of
from pipeline.core.records import Located
from pipeline.core.spec import ClassSpec
from pipeline.core.strips import Strip
from pipeline.output.encode import encode_png
from pipeline.output.outputs import Output


class OverlayOutput(Output):
    """As `Output`."""

    name: ClassVar[str] = "overlay"
    folder: ClassVar[str] = "overlays"
    suffix: ClassVar[str] = ".png"
    option: ClassVar[str] = "overlays"
    needs_pixels: ClassVar[bool] = True

    def __init__(self, recipe: Recipe) -> None:
        self._classes = recipe.spec.classes
        self._digest = digest_of([(one.name, one.color) for one in self._classes])

    def digest(self) -> str:
        """As `Output.digest`: of the colours and names, because one name may mark the background."""
        return self._digest

    def wants(self, picture: Located) -> bool:
        """As `Output.wants`: for the pictures that were chosen when they were located."""
        return picture.overlay

    def begin(self, height: int, width: int) -> "_OverlayWriter":
        """As `Output.begin`."""
        return _OverlayWriter(height, width, self._classes)


class _OverlayWriter:
    def __init__(self, height: int, width: int, classes: tuple[ClassSpec, ...]) -> None:
        self._classes = classes
        self._drawn = Image.new("RGB", (width, height))
        # An edge may be between two strips, so a strip is drawn when the next one is known.
        self._last: Strip | None = None
        self._row_above: ClassIds | None = None

    def add(self, strip: Strip) -> None:
        self._draw_last(below=strip.mask[0])
        self._last = strip

    def finish(self) -> bytes:
        self._draw_last(below=None)
        return encode_png(self._drawn)

    def _draw_last(self, below: ClassIds | None) -> None:
        strip, self._last = self._last, None
        if strip is None:
            return
        assert strip.pixels is not None, "an overlay of a strip without pixels"
        rows = overlay(strip.pixels, strip.mask, self._classes, above=self._row_above, below=below)
        self._drawn.paste(Image.fromarray(rows), (0, strip.top))
        self._row_above = strip.mask[-1]
