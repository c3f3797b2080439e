"""Areas: the predicted pixels of each class, in pixels, shares of the picture, and square metres."""

import math
from array import array
from dataclasses import dataclass, field
from operator import add
from typing import Any

from pipeline.core.fixed_point import FRACTION_ONE, fixed, mean_of_fixed
from pipeline.core.fraction_histogram import FractionHistogram
from pipeline.core.measures.measure import Column, Detail, Number, SummaryPart
from pipeline.core.records import PictureRecord, Value
from pipeline.core.scores import class_counts
from pipeline.core.strips import Strip

AREA_PX = "area_px"


@dataclass(frozen=True, slots=True)
class Areas:
    """The area of each class in a picture. The value is (num_classes,) predicted pixels; they sum to all pixels.

    Args:
        num_classes: the model's number of classes.
    """

    num_classes: int
    name = AREA_PX
    columns = (Column("area_px", "int64"), Column("area_fraction", "float64"), Column("area_m2", "float64"))

    def of(self, strip: Strip) -> Value:
        return tuple(class_counts(strip.mask, self.num_classes).tolist())

    def combined(self, above: Value, below: Value) -> Value:
        return tuple(map(add, above, below))

    def row(self, value: Value, picture: PictureRecord) -> tuple[list[Number], ...]:
        picture_px, pixel_m2 = picture.width * picture.height, picture.pixel_area_m2
        return (
            list(value),
            [area_px / picture_px for area_px in value],
            [None if pixel_m2 is None else area_px * pixel_m2 for area_px in value],
        )

    def sums(self, detail: Detail) -> "AreaSums":
        return AreaSums(self.num_classes, FractionHistogram(self.num_classes, detail.histogram_bins))


@dataclass(slots=True)
class AreaSums:
    """Sums of areas over pictures; fractions are shares of a picture's pixels.

    Args:
        num_classes: the model's number of classes.
        histogram: of the fractions.
    """

    num_classes: int
    histogram: FractionHistogram
    pictures: int = 0
    has_m2: bool = False
    area_px: list[int] = field(init=False)
    area_m2_fixed: list[int] = field(init=False)
    present: list[int] = field(init=False)
    fraction_sum: list[int] = field(init=False)
    fraction_square_sum: list[int] = field(init=False)
    fraction_min: "array[float]" = field(init=False)
    fraction_max: "array[float]" = field(init=False)

    def __post_init__(self) -> None:
        for name in _CLASS_SUMS:
            setattr(self, name, [0] * self.num_classes)
        # Arrays, for they are smaller than lists; the sums above may exceed 64 bits.
        self.fraction_min = array("d", [math.inf] * self.num_classes)
        self.fraction_max = array("d", [-math.inf] * self.num_classes)

    def add(self, value: Value, picture: PictureRecord) -> None:
        self.pictures += 1
        picture_px = picture.width * picture.height
        self.has_m2 |= picture.pixel_area_m2 is not None
        for class_id, area_px in enumerate(value):
            fraction = area_px / picture_px
            self.area_px[class_id] += area_px
            self.present[class_id] += area_px > 0
            self.fraction_sum[class_id] += fixed(fraction)
            self.fraction_square_sum[class_id] += fixed(fraction * fraction)
            self.fraction_min[class_id] = min(self.fraction_min[class_id], fraction)
            self.fraction_max[class_id] = max(self.fraction_max[class_id], fraction)
            self.histogram.add(class_id, area_px, picture_px)
            if picture.pixel_area_m2 is not None:
                self.area_m2_fixed[class_id] += fixed(area_px * picture.pixel_area_m2)

    def merge(self, other: "AreaSums") -> None:
        self.pictures += other.pictures
        self.has_m2 |= other.has_m2
        for name in _CLASS_SUMS:
            setattr(self, name, list(map(add, getattr(self, name), getattr(other, name))))
        self.fraction_min = array("d", map(min, self.fraction_min, other.fraction_min))
        self.fraction_max = array("d", map(max, self.fraction_max, other.fraction_max))
        self.histogram.merge(other.histogram)

    def summary(self) -> SummaryPart:
        total_px = sum(self.area_px)
        return SummaryPart(classes=[{"area": self._area(class_id, total_px)} for class_id in range(self.num_classes)])

    def _area(self, class_id: int, total_px: int) -> dict[str, Any]:
        """Areas of one class over all segmented pictures."""
        return {
            "px": self.area_px[class_id],
            "fraction": self.area_px[class_id] / total_px if total_px else None,
            "m2": self.area_m2_fixed[class_id] / FRACTION_ONE if self.has_m2 else None,
            "images_present": self.present[class_id],
            "fraction_mean": mean_of_fixed(self.fraction_sum[class_id], self.pictures),
            "fraction_std": self._deviation(class_id),
            "fraction_min": self.fraction_min[class_id] if self.pictures else None,
            "fraction_p05": self._quantile(class_id, 5),
            "fraction_p50": self._quantile(class_id, 50),
            "fraction_p95": self._quantile(class_id, 95),
            "fraction_max": self.fraction_max[class_id] if self.pictures else None,
        }

    def _quantile(self, class_id: int, percent: int) -> float | None:
        return self.histogram.quantile(class_id, percent, self.fraction_min[class_id], self.fraction_max[class_id])

    def _deviation(self, class_id: int) -> float | None:
        """Standard deviation over the pictures (divided by their number), from exact sums."""
        count = self.pictures
        if not count:
            return None
        total, squares = self.fraction_sum[class_id], self.fraction_square_sum[class_id]
        return math.sqrt(max(0, count * squares * FRACTION_ONE - total * total)) / (count * FRACTION_ONE)


_CLASS_SUMS = ("area_px", "area_m2_fixed", "present", "fraction_sum", "fraction_square_sum")
