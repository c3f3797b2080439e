"""`summary.csv`: the classes of a `summary.json` as a table for spreadsheets and data frames."""

import csv
import io
from typing import Any

from pipeline.core.wording import printable

_INTERVAL, _NOTE = "_ci95", "_ci95_note"
# Keys of `area` whose columns get a prefix; other keys are column names already.
_AREA_COLUMNS = {"px": "area_px", "fraction": "area_fraction", "m2": "area_m2"}
# A spreadsheet reads a cell that starts with one of these as a formula and runs it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def summary_csv(summary: dict[str, Any]) -> str:
    """Writes the classes as CSV: a header, then one row per class in order of class id.

    Args:
        summary: the content of `summary.json`.

    Returns:
        Comma-separated text with `\\n` line ends. Null is an empty cell; an interval has two columns, `_low` and
        `_high`; notes have none. A name that a spreadsheet would read as a formula is prefixed by an apostrophe, and
        control characters are escaped.
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
            row[key] = _escape_formula(value) if isinstance(value, str) else value
    return row


def _escape_formula(text: str) -> str:
    # Escaping control characters keeps one line per class; the csv module of Python 3.11 doesn't quote "\r".
    apostrophe = "'" if text.startswith(_FORMULA_STARTS) else ""
    return apostrophe + printable(text)
