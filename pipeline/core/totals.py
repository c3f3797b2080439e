"""Totals of a job: every measure's sums over the pictures, which merge in any order to the same totals."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.core.measures.measure import WHOLE_JOB, Detail, Sums
from pipeline.core.measures.measures import measures_for
from pipeline.core.records import PictureRecord


@dataclass(slots=True)
class Totals:
    """Sums over pictures; `add` and `merge` in any order and grouping give equal totals.

    Args:
        num_classes: the model's number of classes.
        detail: how much the sums keep.
        pictures: how many pictures were added.
        unused: how many of the pictures have parts in their files that are not used, by the kind of part.
        splits: how many of the pictures are in each part of the model's training pictures, by `PictureRecord.split`;
            those of which that is not known are left out.
        sums: each measure's, by its name.
    """

    num_classes: int
    detail: Detail = WHOLE_JOB
    pictures: int = 0
    # Not a Counter: Beam inspects the types of a dataclass's fields and fails on it.
    unused: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    sums: dict[str, Sums] = field(init=False)

    def __post_init__(self) -> None:
        self.sums = {measure.name: measure.sums(self.detail) for measure in measures_for(self.num_classes)}

    def pictures_with(self, measure: str) -> int:
        """How many of the pictures have a value of a measure."""
        return self.sums[measure].pictures

    def add(self, record: PictureRecord) -> "Totals":
        """Adds one picture.

        Args:
            record: a picture of the same number of classes.

        Returns:
            Self.
        """
        self.pictures += 1
        _add(self.unused, dict.fromkeys(record.unused, 1))
        if record.split is not None:
            _add(self.splits, {record.split: 1})
        for name, sums in self.sums.items():
            value = record.value(name)
            if value is not None:
                sums.add(value, record)
        return self

    def merge(self, other: "Totals") -> "Totals":
        """Adds another part's sums.

        Args:
            other: totals of the same number of classes and detail over other pictures.

        Returns:
            Self.
        """
        self.pictures += other.pictures
        _add(self.unused, other.unused)
        _add(self.splits, other.splits)
        for name, sums in self.sums.items():
            sums.merge(other.sums[name])
        return self

    def pictures_in(self, part: str) -> int | None:
        """How many of the pictures are in a part of the model's training pictures; None where it isn't known of all."""
        is_known = sum(self.splits.values()) == self.pictures
        return self.splits.get(part, 0) if is_known else None

    @staticmethod
    def of(records: Iterable[PictureRecord], num_classes: int, detail: Detail = WHOLE_JOB) -> "Totals":
        """The totals of some pictures."""
        totals = Totals(num_classes, detail)
        for record in records:
            totals.add(record)
        return totals


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for kind, count in more.items():
        counts[kind] = counts.get(kind, 0) + count
