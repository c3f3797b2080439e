"""The confusion matrix of each picture that has ground truth, and the scores that come from it."""

from dataclasses import dataclass

from pipeline.core import scores
from pipeline.core.measures.measure import Column, Detail, Number
from pipeline.core.measures.score_sums import ScoreSums
from pipeline.core.records import PictureRecord, Value
from pipeline.core.strips import Strip

CONFUSION = "confusion"


@dataclass(frozen=True, slots=True)
class Confusion:
    """The confusion matrix of the pixels that are not ignored; None without ground truth.

    The value is the matrix without its zeros, as `pipeline.core.scores.cells_of` gives it.

    Args:
        num_classes: the model's number of classes.
    """

    num_classes: int
    name = CONFUSION
    columns = (Column("iou", "float64"), Column("dice", "float64"), Column("pixel_accuracy", "float64", by_class=False))

    def of(self, strip: Strip) -> Value | None:
        if strip.truth is None:
            return None
        return scores.cells_of(scores.confusion_matrix(strip.truth, strip.mask, self.num_classes))

    def combined(self, above: Value, below: Value) -> Value:
        counts = dict(zip(above[0::2], above[1::2], strict=True))
        for cell, count in zip(below[0::2], below[1::2], strict=True):
            counts[cell] = counts.get(cell, 0) + count
        return tuple(number for item in sorted(counts.items()) for number in item)

    def row(self, value: Value, picture: PictureRecord) -> tuple[list[Number] | Number, ...]:
        matrix = scores.matrix_of(value, self.num_classes)
        return (
            _by_class(scores.iou_per_class(matrix)),
            _by_class(scores.dice_per_class(matrix)),
            scores.known(scores.pixel_accuracy(matrix)),
        )

    def sums(self, detail: Detail) -> ScoreSums:
        return ScoreSums.empty(self.num_classes, detail.blocks)


def _by_class(values: scores.Scores) -> list[Number]:
    return [scores.known(value) for value in values]
