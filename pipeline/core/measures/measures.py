"""All measures of a job, in the order of the tables' columns."""

from collections.abc import Callable, Iterable, Sequence

from pipeline.core.measures.areas import Areas
from pipeline.core.measures.confusion import Confusion
from pipeline.core.measures.measure import Measure
from pipeline.core.records import Value
from pipeline.core.strips import Strip

MEASURES: tuple[Callable[[int], Measure], ...] = (Areas, Confusion)
"""Each is called with the model's number of classes. A new measure is added here only."""


def measures_for(num_classes: int) -> tuple[Measure, ...]:
    """The measures of a job.

    Args:
        num_classes: the model's number of classes.

    Returns:
        The measures; they have no state, so threads may share them.
    """
    return tuple(measure(num_classes) for measure in MEASURES)


def measure_picture(strips: Iterable[Strip], measures: Sequence[Measure]) -> tuple[tuple[str, Value], ...]:
    """Measures one picture, a strip at a time.

    Args:
        strips: the picture's, from top to bottom; each is released before the next is requested.
        measures: what `measures_for` gives.

    Returns:
        Name and value of each measure that has one, as `PictureRecord.values` keeps them.
    """
    measuring = PictureMeasuring(measures)
    for strip in strips:
        measuring.add(strip)
    return measuring.values()


class PictureMeasuring:
    """Collects the values of one picture, for callers that do more with each strip than measure it.

    Args:
        measures: what `measures_for` gives.
    """

    def __init__(self, measures: Sequence[Measure]) -> None:
        self._measures = measures
        self._values: dict[str, Value] = {}

    def add(self, strip: Strip) -> None:
        """Measures the next strip of the picture."""
        for measure in self._measures:
            value = measure.of(strip)
            if value is not None:
                above = self._values.get(measure.name)
                self._values[measure.name] = value if above is None else measure.combined(above, value)

    def values(self) -> tuple[tuple[str, Value], ...]:
        """Name and value of each measure that has one, as `PictureRecord.values` keeps them."""
        return tuple(self._values.items())
