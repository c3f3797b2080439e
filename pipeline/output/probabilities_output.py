"""The classes' probabilities: an 8-bit plane per class, stacked vertically in one grey PNG."""

from typing import ClassVar

from pipeline.core.recipe import Recipe, digest_of
from pipeline.core.strips import Strip
from pipeline.output.encode import encode_probabilities
from pipeline.output.outputs import Output, Rows


class ProbabilitiesOutput(Output):
    """As `Output`."""

    name: ClassVar[str] = "probabilities"
    folder: ClassVar[str] = "probabilities"
    suffix: ClassVar[str] = ".png"
    option: ClassVar[str] = "probabilities"
    needs_inference: ClassVar[bool] = True

    def __init__(self, recipe: Recipe) -> None:
        self._digest = digest_of()

    def digest(self) -> str:
        """As `Output.digest`: they depend on the inference alone."""
        return self._digest

    def begin(self, height: int, width: int) -> "_ProbabilitiesWriter":
        """As `Output.begin`."""
        return _ProbabilitiesWriter(height)


class _ProbabilitiesWriter:
    def __init__(self, height: int) -> None:
        self._planes = Rows(height, axis=1)

    def add(self, strip: Strip) -> None:
        self._planes.put(strip.top, strip.probabilities())

    def finish(self) -> bytes:
        return encode_probabilities(self._planes.whole())
