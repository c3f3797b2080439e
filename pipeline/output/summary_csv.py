"""`summary.csv`: the classes of a `summary.json` as a table for spreadsheets and data frames."""

import csv
import io
from typing import Any

from pipeline.core.wording import printable

_AREA_COLUMNS = {
    "area_px": "px",
    "area_fraction": "fraction",
    "area_m2": "m2",
    "images_present": "images_present",
    "fraction_mean": "fraction_mean",
    "fraction_std": "fraction_std",
    "fraction_min": "fraction_min",
    "fraction_p05": "fraction_p05",
    "fraction_p50": "fraction_p50",
    "fraction_p95": "fraction_p95",
    "fraction_max": "fraction_max",
}
_LAST_COLUMNS = (
    "precision",
    "recall",
    "truth_px",
    "predicted_px",
    "intersection_px",
    "union_px",
    "samplewise_iou",
    "samplewise_dice",
)
# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def summary_csv(summary: dict[str, Any]) -> str:
    """Writes the classes as CSV: a header, then a row a class, by class id.

    Args:
        summary: the content of `summary.json`.

    Returns:
        Comma-separated text with `\\n` line ends. A null is an empty cell; intervals take two columns, `_low` and
        `_high`; a name that a spreadsheet would take for a formula has an apostrophe before it, and its control
        characters are escaped.
    """
    lines = io.StringIO()
    rows = [_row(entry) for entry in summary["classes"]]
    writer = csv.DictWriter(lines, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


_COLUMNS = (
    "class_id",
    "name",
    "color",
    *_AREA_COLUMNS,
    *(f"{score}{ending}" for score in ("iou", "dice") for ending in ("", "_ci95_low", "_ci95_high")),
    *_LAST_COLUMNS,
)


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "class_id": entry["class_id"],
        "name": _harmless(entry["name"]),
        "color": _harmless(entry["color"]),
    }
    row.update({column: entry["area"][key] for column, key in _AREA_COLUMNS.items()})
    for score in ("iou", "dice"):
        row[score] = entry[score]
        row[f"{score}_ci95_low"], row[f"{score}_ci95_high"] = entry[f"{score}_ci95"] or (None, None)
    row.update({column: entry[column] for column in _LAST_COLUMNS})
    return row


def _harmless(text: str) -> str:
    # Escapes for control characters keep it at a line a class; the csv module of Python 3.11 leaves "\r" unquoted.
    apostrophe = "'" if text.startswith(_FORMULA_STARTS) else ""
    return apostrophe + printable(text)
