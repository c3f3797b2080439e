"""`report.html`: what a job found, for people, in one file that needs nothing else."""

import base64
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.file_formats import unused_lines
from pipeline.core.records import Failure
from pipeline.core.wording import (
    area_m2_text,
    count_text,
    duration_text,
    interval_text,
    pictures_text,
    rate_text,
    score_text,
    share_text,
)
from pipeline.report.charts import area_box, escaped, score_bar, stacked_bar, swatch
from pipeline.report.sections import (
    axis,
    composition_of,
    confusion_section,
    failures_section,
    groups_section,
    run_section,
)
from pipeline.report.style import STYLE

_DONE = "done"
# Nothing is loaded, and nothing runs, whatever a name may hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_METRICS = {
    "global_mean_iou": (
        "Mean IoU, global",
        "Overlap of prediction and truth divided by their union, over all pictures’ pixels, averaged over the classes.",
    ),
    "samplewise_mean_iou": (
        "Mean IoU, samplewise",
        "The same for each picture alone, over the classes present in it, then averaged: every picture counts alike.",
    ),
    "global_mean_dice": (
        "Mean Dice, global",
        "Twice the overlap divided by the two areas’ sum, over all pictures’ pixels, averaged over the classes.",
    ),
    "samplewise_mean_dice": (
        "Mean Dice, samplewise",
        "The same for each picture alone, over the classes present in it, then averaged.",
    ),
    "pixel_accuracy": ("Pixel accuracy", "The share of all pixels whose class is right; large classes decide it."),
    "frequency_weighted_iou": (
        "Frequency-weighted IoU",
        "The classes’ global IoU, each weighted by its share of the truth’s pixels.",
    ),
}


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """A picture to be shown in the report.

    Args:
        image_id: the picture's id.
        caption: what there is to say about it, such as its IoU.
        png: an encoded PNG, such as the picture and the predicted overlay side by side.
    """

    image_id: str
    caption: str
    png: bytes


def report_html(summary: dict[str, Any], failures: Sequence[Failure], pictures: Sequence[ReportPicture] = ()) -> str:
    """Writes the report as one HTML page with its style and drawings inside.

    Args:
        summary: the content of `summary.json`.
        failures: the job's failures, in the order in which they are to be shown; the first hundred are.
        pictures: pictures to show, in this order; usually the worst and the middling ones.

    Returns:
        The page. Everything that comes from outside is escaped; null is an en dash.
    """
    scored = summary["confusion_matrix"]["counts"] is not None
    sections = [
        _scores_section(summary) if scored else _no_scores_section(),
        _pictures_section(pictures),
        _classes_section(summary["classes"], scored=scored),
        _distribution_section(summary["classes"]),
        confusion_section(summary["classes"], summary["confusion_matrix"]["counts"]),
        groups_section(summary.get("groups") or {}, summary["classes"], scored=scored, note=summary.get("groups_note")),
        failures_section(failures, _all_failures(summary["images"]), summary["run"].get("failures_by_type")),
        run_section(summary["run"]),
    ]
    title = f"{pictures_text(summary['images']['segmented'])} segmented"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} – maskbeam</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join([_headline(summary), *filter(None, sections), _FOOTER])
        + "\n</main>\n</body>\n</html>\n"
    )


_FOOTER = (
    '<footer>The same numbers for programs: <a href="summary.json">summary.json</a>, '
    '<a href="summary.csv">summary.csv</a>, <a href="failures.jsonl">failures.jsonl</a>, '
    'and a row a picture in <a href="images/">images/</a>.</footer>'
)


def _with_truth(images: dict[str, Any]) -> str:
    failed = images.get("truth_failed", 0)
    return count_text(images["with_ground_truth"]) + (f"<small>{failed:,} failed</small>" if failed else "")


def _unused(images: dict[str, Any]) -> str:
    return "".join(f'<p class="note">{escaped(line)}</p>' for line in unused_lines(images["unused"]))


def _all_failures(images: dict[str, Any]) -> int:
    """Pictures that failed, and truths that could not be used."""
    return int(images["failed"] + images.get("truth_failed", 0))


def _headline(summary: dict[str, Any]) -> str:
    run, images = summary["run"], summary["images"]
    status = str(run.get("status", "")).replace("_", " ")
    tone = "good" if run.get("status") == _DONE and not _all_failures(images) else "warn"
    heading = pictures_text(images["segmented"])
    if images["segmented"] != images["found"]:
        heading = f"{images['segmented']:,} of {pictures_text(images['found'])}"
    seconds, resumed = run.get("seconds"), run.get("resumed") or 0
    worked = images["found"] - resumed
    rate = f"{rate_text(worked / seconds)}<small>pictures/s</small>" if seconds and worked > 0 else count_text(None)
    by_earlier = f"<small>{resumed:,} by an earlier run</small>" if resumed else ""
    share = f"<small>{share_text(images['failed'] / images['found'])}</small>" if images["failed"] else ""
    facts = [
        ("Found", count_text(images["found"])),
        ("Segmented", count_text(images["segmented"]) + by_earlier),
        ("Failed", f'<span class="bad">{images["failed"]:,}</span>{share}' if images["failed"] else "0"),
        ("Files ignored", count_text(images["ignored"])),
        ("With ground truth", _with_truth(images)),
        ("Time", duration_text(seconds)),
        ("Speed", rate),
    ]
    if images["unpaired_truth"]:
        facts.insert(5, ("Unpaired masks", count_text(images["unpaired_truth"])))
    cells = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in facts)
    model = run.get("model") or {}
    return (
        f'<header><div class="brand">maskbeam</div><h1>{heading} segmented</h1>'
        f'<p><span class="status {tone}">{escaped(status)}</span>Model <b>{escaped(model.get("name", ""))}</b>'
        f'<span class="muted"> · {_when(run.get("started"), run.get("finished"))}</span></p>'
        f'<dl class="facts">{cells}</dl>{_unused(images)}</header>'
    )


def _when(started: object, finished: object) -> str:
    """Both times as `3 October 2026, 14:02–14:16 UTC`; as they are where they are no ISO 8601."""
    try:
        begin = datetime.datetime.fromisoformat(str(started)).astimezone(datetime.UTC)
        end = datetime.datetime.fromisoformat(str(finished)).astimezone(datetime.UTC)
    except ValueError:
        return escaped(started)
    until = f"{end:%H:%M}" if begin.date() == end.date() else f"{end.day} {end:%B %Y, %H:%M}"
    return f"{begin.day} {begin:%B %Y, %H:%M}–{until} UTC"


def _scores_section(summary: dict[str, Any]) -> str:
    metrics = summary["metrics"]
    rows = "".join(
        f'<tr><th class="metric" scope="row">{label}<small>{meaning}</small></th>'
        f'<td class="draw half">{score_bar(metrics[key], metrics[f"{key}_ci95"])}</td>'
        f'<td class="n"><b>{score_text(metrics[key])}</b></td>'
        f'<td class="n">{interval_text(metrics[f"{key}_ci95"])}</td></tr>'
        for key, (label, meaning) in _METRICS.items()
    )
    truths = summary["images"]["with_ground_truth"]
    return (
        f'<section><h2>Scores</h2><p class="note">Over the {pictures_text(truths)} with ground truth. 1 is perfect. '
        "The whisker is the 95&nbsp;% interval: where the score would lie with other pictures of the same kind.</p>"
        '<div class="wide"><table><thead><tr><th>Metric</th>'
        f'<th>{axis("0", "0.25", "0.5", "0.75", "1")}</th><th class="n">Score</th><th class="n">95&nbsp;% interval</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _no_scores_section() -> str:
    return "<section><h2>Scores</h2><p>No picture has ground truth, so there are areas but no scores.</p></section>"


def _classes_section(classes: list[dict[str, Any]], *, scored: bool) -> str:
    physical = any(entry["area"]["m2"] is not None for entry in classes)
    headings = ["Area share"] + ["Area"] * physical + ["Pictures"]
    headings += ["IoU", "", "Dice", "Precision", "Recall"] if scored else [""]
    scale = axis("0", "1") if scored else axis("0 %", "50 %", "100 %")
    head = "".join(f'<th class="n">{heading}</th>' if heading else f"<th>{scale}</th>" for heading in headings)
    rows = []
    for entry in classes:
        area = entry["area"]
        cells = f'<td class="n">{share_text(area["fraction"])}</td>'
        cells += f'<td class="n">{area_m2_text(area["m2"])}</td>' if physical else ""
        cells += f'<td class="n">{count_text(area["images_present"])}</td>'
        cells += _class_scores(entry) if scored else f'<td class="draw half">{score_bar(area["fraction"], None)}</td>'
        rows.append(f"<tr>{_class_heading(entry)}{cells}</tr>")
    note = "Area share: of all pixels of all pictures. Pictures: how many show the class."
    if scored:
        note += (
            " Precision: how much of what was predicted as the class is right. Recall: how much of the class was "
            "found. Scores are global, with 95&nbsp;% intervals; – means that the class occurs nowhere."
        )
    composition = stacked_bar(composition_of(classes), 22)
    return (
        f'<section><h2>Classes</h2><p class="note">{note}</p>{composition}<div class="wide">'
        f"<table><thead><tr><th>Class</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _class_scores(entry: dict[str, Any]) -> str:
    return (
        f'<td class="n"><b>{score_text(entry["iou"])}</b>{_small_interval(entry["iou_ci95"])}</td>'
        f'<td class="draw">{score_bar(entry["iou"], entry["iou_ci95"])}</td>'
        f'<td class="n">{score_text(entry["dice"])}{_small_interval(entry["dice_ci95"])}</td>'
        f'<td class="n">{score_text(entry["precision"])}</td><td class="n">{score_text(entry["recall"])}</td>'
    )


def _small_interval(interval: Sequence[float] | None) -> str:
    return f"<small>{interval_text(interval)}</small>" if interval else ""


def _class_heading(entry: dict[str, Any]) -> str:
    return f'<th class="name" scope="row">{swatch(entry["color"])}{escaped(entry["name"])}</th>'


def _distribution_section(classes: list[dict[str, Any]]) -> str:
    columns = {"min": "Least", "p05": "5&nbsp;%", "p50": "Median", "p95": "95&nbsp;%", "max": "Most"}
    rows = []
    for entry in classes:
        cells = "".join(f'<td class="n">{share_text(entry["area"][f"fraction_{key}"])}</td>' for key in columns)
        rows.append(f'<tr>{_class_heading(entry)}<td class="draw half">{area_box(entry["area"])}</td>{cells}</tr>')
    head = "".join(f'<th class="n">{label}</th>' for label in columns.values())
    return (
        '<section><h2>Area from picture to picture</h2><p class="note">Each class’s share of a picture’s pixels. '
        "The box holds the middle 90&nbsp;% of the pictures, the thick line is the median, the thin line goes to "
        "the extremes.</p>"
        f'<div class="wide"><table><thead><tr><th>Class</th><th>{axis("0 %", "50 %", "100 %")}</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _pictures_section(pictures: Sequence[ReportPicture]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure><img src="data:image/png;base64,{base64.b64encode(picture.png).decode("ascii")}" '
        f'alt="{escaped(picture.image_id)}"><figcaption>{escaped(picture.caption)}<small>{escaped(picture.image_id)}'
        "</small></figcaption></figure>"
        for picture in pictures
    )
    return f'<section><h2>Pictures</h2><div class="pictures">{figures}</div></section>'
