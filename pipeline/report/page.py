"""`report.html`: a job's results for people, in one self-contained file."""

import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.core import wording
from pipeline.core.records import Failure
from pipeline.report.view import view_of


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """A picture to be shown in the report.

    Args:
        image_id: the picture's id.
        caption: text shown with it, such as its IoU.
        png: an encoded PNG, such as the picture and the predicted overlay side by side.
    """

    image_id: str
    caption: str
    png: bytes


def report_html(summary: dict[str, Any], failures: Sequence[Failure], pictures: Sequence[ReportPicture] = ()) -> str:
    """Writes the report as one HTML page that includes its style and drawings.

    Args:
        summary: the content of `summary.json`.
        failures: the job's failures, in the order in which they are to be shown; the first hundred are.
        pictures: pictures to show, in this order; usually the worst and the median ones.

    Returns:
        The page. All external text is escaped; null is an en dash.
    """
    template = _environment().get_template("report.html.j2")
    return template.render(**summary, pictures=pictures, view=view_of(summary, failures))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        area_m2=wording.area_m2_text,
        base64=lambda data: base64.b64encode(data).decode("ascii"),
        count=wording.count_text,
        duration=wording.duration_text,
        endings=wording.endings_text,
        interval=wording.interval_text,
        percent=_percent,
        pictures=wording.pictures_text,
        rate=wording.rate_text,
        score=wording.score_text,
        share=wording.share_text,
        value=_value_text,
    )
    return environment


def _finalized(value: Any) -> Any:
    """A value's text before it is escaped: external text without control characters."""
    return value if isinstance(value, Markup) else wording.printable(value)


def _percent(fraction: float) -> str:
    return f"{100 * min(max(fraction, 0.0), 1.0):.2f}%"


def _value_text(value: object) -> str:
    if value is None or value == "" or value == []:
        return wording.NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
