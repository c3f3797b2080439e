"""From the measures' sums to the parts of `summary.json` that come from pictures."""

from collections.abc import Sequence
from typing import Any

from pipeline.core.spec import ClassSpec
from pipeline.core.totals import Totals


def statistics(totals: Totals, classes: Sequence[ClassSpec]) -> dict[str, Any]:
    """Joins the measures' parts: `classes`, `metrics`, and further keys of a measure, such as `confusion_matrix`.

    Args:
        totals: the sums over all pictures, or over one group's.
        classes: the model's classes by id.

    Returns:
        JSON-ready values; None for a score or area of a class that occurs nowhere.
    """
    rows: list[dict[str, Any]] = [
        {"class_id": spec.class_id, "name": spec.name, "color": spec.color} for spec in classes
    ]
    metrics: dict[str, Any] = {}
    keys: dict[str, Any] = {}
    for part in (sums.summary() for sums in totals.sums.values()):
        for row, added in zip(rows, part.classes, strict=False):
            row |= added
        metrics |= part.metrics
        keys |= part.keys
    return {"classes": rows, "metrics": metrics, **keys}
