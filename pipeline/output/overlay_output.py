"""The overlay: the mask drawn over its picture, an RGB PNG, of as many pictures as are asked for."""

from typing import ClassVar

from pipeline.core.recipe import Recipe, digest_of
from pipeline.core.records import Located
from pipeline.core.spec import ClassSpec
from pipeline.core.strips import Strip
from pipeline.output.encode import encode_overlay
from pipeline.output.outputs import Rows


class OverlayOutput:
    """As `Output`."""

    name: ClassVar[str] = "overlay"
    folder: ClassVar[str] = "overlays"
    suffix: ClassVar[str] = ".png"
    option: ClassVar[str] = "overlays"
    needs_pixels: ClassVar[bool] = True
    needs_inference: ClassVar[bool] = False

    def __init__(self, recipe: Recipe) -> None:
        self._classes = recipe.spec.classes
        self._digest = digest_of([(one.name, one.color) for one in self._classes])

    @staticmethod
    def is_requested(value: object) -> bool:
        """As `Output.is_requested`: for any number above 0."""
        return bool(value)

    def digest(self) -> str:
        """As `Output.digest`: of the colours, and of the names, one of which may name the background."""
        return self._digest

    def wants(self, picture: Located) -> bool:
        """As `Output.wants`: of the pictures that were chosen when they were located."""
        return picture.overlay

    def begin(self, height: int, width: int) -> "_OverlayWriter":
        """As `Output.begin`."""
        return _OverlayWriter(height, self._classes)


class _OverlayWriter:
    def __init__(self, height: int, classes: tuple[ClassSpec, ...]) -> None:
        # Edges are drawn on both sides of a border, which may be that of two strips.
        self._pixels, self._mask = Rows(height), Rows(height)
        self._classes = classes

    def add(self, strip: Strip) -> None:
        assert strip.pixels is not None, "an overlay of a strip without pixels"
        self._pixels.put(strip.top, strip.pixels)
        self._mask.put(strip.top, strip.mask)

    def finish(self) -> bytes:
        return encode_overlay(self._pixels.whole(), self._mask.whole(), self._classes)
