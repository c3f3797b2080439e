"""The interface of measures: numbers computed for each picture strip by strip, and their sums over many pictures.

A new measure is one file with a class that implements `Measure`, and one line in `pipeline.core.measures.measures`.
The job does the rest: the value is part of the picture's record and the resume journal, fills the measure's columns
of the Parquet tables, and is summed into `summary.json` for the whole job and for each group.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from pipeline.core.blocks import JOB_BLOCKS
from pipeline.core.records import PictureRecord, Value
from pipeline.core.strips import Strip

Number = int | float | None


@dataclass(frozen=True, slots=True)
class Column:
    """Columns of the Parquet tables: one for each class, `<name>_<class>`, or a single one, `<name>`.

    Args:
        name: the column's name; with `by_class` the prefix.
        kind: the type of its numbers.
        by_class: whether there is a column for each class.
    """

    name: str
    kind: Literal["int64", "float64"]
    by_class: bool = True


@dataclass(frozen=True, slots=True)
class Detail:
    """How much detail sums keep.

    Args:
        blocks: the number of blocks of pictures, from which the intervals of 95 % are computed; 0 for no intervals.
        histogram_bins: the maximum number of bins per class in histograms, on average; None for no limit.
    """

    blocks: int = JOB_BLOCKS
    histogram_bins: int | None = None


WHOLE_JOB = Detail()
WITHOUT_INTERVALS = Detail(0)


@dataclass(slots=True)
class SummaryPart:
    """What one measure adds to `summary.json`; no two measures use the same key.

    Args:
        classes: keys of each entry of `classes`, by class id; empty for a measure without values per class.
        metrics: keys of `metrics`.
        keys: keys at the top.
    """

    classes: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)


class Sums(Protocol):
    """A measure's sums over pictures: exact, so that any order and grouping of `add` and `merge` gives the same.

    It can be pickled, and `==` compares the sums. Counts are integers; fractions are summed as integers, as
    `pipeline.core.fixed_point.fixed` makes them, because floating-point sums depend on the order of addition.
    """

    pictures: int
    """How many pictures with a value were added."""

    def add(self, value: Value, picture: PictureRecord) -> None:
        """Adds one picture.

        Args:
            value: the measure's value of the picture.
            picture: the picture's record, for its size, id, or pixel area.
        """

    def merge(self, other: Self) -> None:
        """Adds the sums of other pictures; `other` is not changed."""

    def summary(self) -> SummaryPart:
        """The measure's part of `summary.json`: JSON-ready values, None where no picture has one."""


class Measure(Protocol):
    """One or more numbers computed for each picture.

    Values are integers, so that they don't depend on a picture's strips; fractions are converted by `fixed`. `of` is
    called once for each strip, from top to bottom, by many threads at a time; `combined` joins the values of two
    neighbouring parts.
    """

    @property
    def name(self) -> str:
        """The key of the measure's value in `PictureRecord.values`; never changed, because the journal stores it."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The measure's columns of the Parquet tables; no two measures have the same."""

    def of(self, strip: Strip) -> Value | None:
        """The value of one strip of a picture.

        Args:
            strip: finished rows; one strip may be the whole picture.

        Returns:
            The value; None for every strip of a picture that has none (scores without ground truth).
        """

    def combined(self, above: Value, below: Value) -> Value:
        """The value of two neighbouring parts of a picture taken together."""

    def row(self, value: Value, picture: PictureRecord) -> tuple[list[Number] | Number, ...]:
        """A picture's row of the Parquet tables.

        Args:
            value: the picture's value.
            picture: its record.

        Returns:
            The content of each of `columns`: with `by_class` a list by class id, else one number.
        """

    def sums(self, detail: Detail) -> Sums:
        """New sums over no pictures."""
