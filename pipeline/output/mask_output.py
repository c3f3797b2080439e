"""The mask: an indexed PNG whose pixel values are class ids."""

from typing import ClassVar

from pipeline.core.recipe import Recipe, digest_of
from pipeline.core.strips import Strip
from pipeline.output.encode import encode_mask, palette_of
from pipeline.output.outputs import Output, Rows, StripWriter
from pipeline.output.png_stream import PngStream

MASK = "mask"
MASK_FORMATS = ("png", "tar", "none")
"""One file per mask, masks in tar files, no masks."""
_MAX_PALETTE = 256
MAX_WHOLE_PIXELS = 1 << 26
"""Masks of more pixels are compressed strip by strip; Pillow compresses others at once, and to fewer bytes."""


class MaskOutput(Output):
    """As `Output`."""

    name: ClassVar[str] = MASK
    folder: ClassVar[str] = "masks"
    suffix: ClassVar[str] = ".png"
    option: ClassVar[str] = "mask_format"

    def __init__(self, recipe: Recipe) -> None:
        self._palette = palette_of([one.color for one in recipe.spec.classes][:_MAX_PALETTE])
        self._is_deep = recipe.spec.num_classes > _MAX_PALETTE
        self._digest = digest_of(self._palette)

    @staticmethod
    def is_requested(value: object) -> bool:
        """As `Output.is_requested`."""
        return value in MASK_FORMATS[:2]

    def digest(self) -> str:
        """As `Output.digest`: of the palette."""
        return self._digest

    def begin(self, height: int, width: int) -> StripWriter:
        """As `Output.begin`."""
        if height * width <= MAX_WHOLE_PIXELS:
            return _MaskWriter(height, self._palette)
        return _LargeMaskWriter(height, width, None if self._is_deep else self._palette)


class _MaskWriter:
    def __init__(self, height: int, palette: bytes) -> None:
        self._rows = Rows(height)
        self._palette = palette

    def add(self, strip: Strip) -> None:
        self._rows.put(strip.top, strip.mask)

    def finish(self) -> bytes:
        return encode_mask(self._rows.whole(), self._palette)


class _LargeMaskWriter:
    def __init__(self, height: int, width: int, palette: bytes | None) -> None:
        self._stream = PngStream(height, width, palette)

    def add(self, strip: Strip) -> None:
        self._stream.add(strip.mask)

    def finish(self) -> bytes:
        return self._stream.finish()
