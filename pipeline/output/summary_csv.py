"""`summary.csv`: the classes of a `summary.json` as a table for spreadsheets and data frames."""

import csv
import io
from typing import Any

from pipeline.core.wording import printable

_INTERVAL, _NOTE = "_ci95", "_ci95_note"
# In `area` these are named after it; the others have names of their own.
_AREA_COLUMNS = {"px": "area_px", "fraction": "area_fraction", "m2": "area_m2"}
# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def summary_csv(summary: dict[str, Any]) -> str:
    """Writes the classes as CSV: a header, then a row a class, by class id, a column for each number of a class.

    Args:
        summary: the content of `summary.json`.

    Returns:
        Comma-separated text with `\\n` line ends. A null is an empty cell; intervals take two columns, `_low` and
        `_high`, and notes none; a name that a spreadsheet would take for a formula has an apostrophe before it, and
        its control characters are escaped.
    """
    rows = [_row(entry) for entry in summary["classes"]]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return lines.getvalue()


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "area":
            row |= {_AREA_COLUMNS.get(name, name): number for name, number in value.items()}
        elif key.endswith(_INTERVAL):
            row[f"{key}_low"], row[f"{key}_high"] = value or (None, None)
        elif not key.endswith(_NOTE):
            row[key] = _harmless(value) if isinstance(value, str) else value
    return row


def _harmless(text: str) -> str:
    # Escapes for control characters keep it at a line a class; the csv module of Python 3.11 leaves "\r" unquoted.
    apostrophe = "'" if text.startswith(_FORMULA_STARTS) else ""
    return apostrophe + printable(text)
