"""The summary that is printed on the terminal when the job has ended."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core.file_formats import unused_lines
from pipeline.core.wording import (
    count_text,
    duration_text,
    ignored_text,
    interval_text,
    pictures_text,
    printable,
    rate_text,
    score_text,
    share_text,
)

_WIDTH_WITHOUT_TERMINAL = 100
_MAX_CLASSES = 40
_MAX_ERROR_TYPES = 3


def print_summary(
    summary: dict[str, Any],
    output: str,
    console: Console | None = None,
    *,
    error_types: Mapping[str, int] | None = None,
) -> None:
    """Prints the classes with areas and scores, the metrics, the counts, and the path of the report.

    Args:
        summary: the content of `summary.json`.
        output: the job's output folder or bucket prefix.
        console: where to print; None for standard output, without colours and 100 wide if that is not a terminal.
        error_types: how many pictures failed by each error type, if known.
    """
    console = console or _standard_console()
    scored = summary["confusion_matrix"]["counts"] is not None
    console.print(_class_table(summary["classes"], scored=scored, colored=console.color_system is not None))
    if len(summary["classes"]) > _MAX_CLASSES:
        more = len(summary["classes"]) - _MAX_CLASSES
        console.print(Text(f"… and {more:,} more classes in {_place(output, 'summary.csv')}"), soft_wrap=True)
    console.print(_metrics_line(summary["metrics"]) if scored else Text("No ground truth, so no scores."))
    if cost := summary["run"].get("precision_cost"):
        console.print(_precision_line(cost))
    console.print(_counts_line(summary))
    if by_ending := summary["images"].get("ignored_by_ending"):
        console.print(Text(ignored_text(by_ending)))
    if (line := _truth_line(summary)) is not None:
        console.print(line)
    if (line := _training_line(summary["images"], scored=scored)) is not None:
        console.print(line, soft_wrap=True)
    for unused in unused_lines(summary["images"]["unused"]):
        console.print(Text(unused), soft_wrap=True)
    if summary["images"]["failed"] or summary["images"].get("truth_failed"):
        console.print(_failures_line(summary["images"], output, error_types or {}), soft_wrap=True)
    console.print(_report_line(output), soft_wrap=True)


def _standard_console() -> Console:
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=_WIDTH_WITHOUT_TERMINAL, color_system=None)


def _class_table(classes: list[dict[str, Any]], *, scored: bool, colored: bool) -> Table:
    shown = classes
    if len(classes) > _MAX_CLASSES:
        largest = sorted(classes, key=lambda entry: -entry["area"]["px"])[:_MAX_CLASSES]
        shown = sorted(largest, key=lambda entry: entry["class_id"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold" if colored else "")
    table.add_column("Class", overflow="fold", min_width=12)
    headings = ["Area", "Pictures"]
    headings += ["IoU", "95 % interval", "Dice"] if scored else ["Median picture", "5–95 % of pictures"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in shown:
        area = entry["area"]
        cells = [Text(share_text(area["fraction"])), Text(count_text(area["images_present"]))]
        if scored:
            cells.append(Text(score_text(entry["iou"]), style="bold"))
            cells.append(Text(interval_text(entry["iou_ci95"]), style="dim"))
            cells.append(Text(score_text(entry["dice"])))
        else:
            cells.append(Text(share_text(area["fraction_p50"])))
            cells.append(Text(f"{share_text(area['fraction_p05'])} – {share_text(area['fraction_p95'])}"))
        table.add_row(_name(entry, colored=colored), *cells)
    return table


def _name(entry: dict[str, Any], *, colored: bool) -> Text:
    name = Text(printable(entry["name"]))
    return Text.assemble(("■ ", printable(entry["color"])), name) if colored else name


def _metrics_line(metrics: dict[str, Any]) -> Text:
    line = Text.assemble("Mean IoU ", (score_text(metrics["global_mean_iou"]), "bold"), " global")
    if metrics["global_mean_iou_ci95"] is not None:
        line.append(f" ({interval_text(metrics['global_mean_iou_ci95'])})")
    line.append(f", {score_text(metrics['samplewise_mean_iou'])} samplewise")
    line.append(f" · pixel accuracy {score_text(metrics['pixel_accuracy'])}")
    return line


def _training_line(images: dict[str, Any], *, scored: bool) -> Text | None:
    """How many of the pictures the model has been fitted to, None where there are none or it isn't known."""
    trained, validated = images.get("trained_on"), images.get("validated_on")
    if not trained and not validated:
        return None
    line = Text(f"{trained or 0:,} of {pictures_text(images['segmented'])} were trained on", style="yellow")
    if validated:
        line.append(f", {validated:,} more chose the model's best epoch")
    if scored:
        line.append(": no measure of the scores on new pictures")
    return line


def _precision_line(cost: Mapping[str, Any]) -> Text:
    whole, int8 = cost["global_mean_iou_float32"], cost["global_mean_iou_int8"]
    return Text(
        f"int8: mean IoU {score_text(int8)} in place of float32's {score_text(whole)} ({int8 - whole:+.4f}), on"
        f" {pictures_text(cost['pictures'])} with truth"
    )


def _earlier_text(run: dict[str, Any]) -> str:
    """What a run took over from earlier ones, in parentheses; "" for nothing."""
    remarks = [
        f"{count:,} {text}"
        for count, text in (
            (run.get("resumed") or 0, "by an earlier run"),
            (run.get("updated") or 0, "of them updated without inference"),
            (run.get("inferred_again") or 0, "inferred again, with their other files kept"),
        )
        if count
    ]
    return f" ({', '.join(remarks)})" if remarks else ""


def _counts_line(summary: dict[str, Any]) -> Text:
    images, run = summary["images"], summary["run"]
    line = Text(f"{pictures_text(images['found'])} found, {images['segmented']:,} segmented")
    resumed = run.get("resumed") or 0
    line.append(_earlier_text(run))
    line.append(", ")
    line.append(f"{images['failed']:,} failed", style="red" if images["failed"] else "")
    unpaired = images["unpaired_truth"]
    if unpaired:
        line.append(f", {unpaired:,} {'mask' if unpaired == 1 else 'masks'} without a picture")
    seconds = run.get("seconds")
    if seconds:
        line.append(f" · {duration_text(seconds)}")
        worked = images["found"] - resumed
        if worked > 0:
            line.append(f", {rate_text(worked / seconds)} pictures/s")
    return line


def _truth_line(summary: dict[str, Any]) -> Text | None:
    """How many pictures had ground truth; None if none was given or found."""
    images = summary["images"]
    with_truth, failed = images["with_ground_truth"], images.get("truth_failed", 0)
    if not (with_truth or failed or summary["run"]["options"].get("ground_truth")):
        return None
    line = Text(f"{with_truth:,} of {pictures_text(images['found'])} had ground truth")
    if failed:
        line.append(", ").append(f"{_truths_text(failed)} failed", style="red")
    return line


def failed_text(images: Mapping[str, int]) -> str:
    """How many pictures and ground truths failed, as `3 pictures and 1 ground truth failed`.

    Args:
        images: that part of `summary.json`, with failures.
    """
    failed = [pictures_text(images["failed"])] if images["failed"] else []
    failed += [_truths_text(images["truth_failed"])] if images.get("truth_failed") else []
    return f"{' and '.join(failed)} failed"


def _truths_text(count: int) -> str:
    return f"{count:,} ground {'truth' if count == 1 else 'truths'}"


def _failures_line(images: Mapping[str, int], output: str, error_types: Mapping[str, int]) -> Text:
    line = Text.assemble((failed_text(images), "red"), f": see {_place(output, 'failures.jsonl')}")
    frequent = sorted(error_types.items(), key=lambda item: (-item[1], item[0]))[:_MAX_ERROR_TYPES]
    if frequent:
        listed = ", ".join(f"{count:,} × {printable(name)}" for name, count in frequent)
        line.append(f"\n  {listed}{', …' if len(error_types) > len(frequent) else ''}", style="dim")
    return line


def _report_line(output: str) -> Text:
    place = _place(output, "report.html")
    link = "" if "://" in output else f"link {Path(output, 'report.html').absolute().as_uri()}"
    return Text.assemble("Report: ", (place, link))


def _place(output: str, name: str) -> str:
    return printable(f"{output.rstrip('/')}/{name}")
