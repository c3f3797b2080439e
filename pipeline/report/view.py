"""Values that the report's template needs and `summary.json` does not have: selections, sums and sort orders."""

import datetime
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.core.file_formats import unused_lines
from pipeline.core.records import Failure
from pipeline.core.wording import share_text

_DONE = "done"
_MAX_CLASSES_PLAIN = 8
_MAX_CLASSES_DENSE = 40
_MAX_CONFUSIONS = 25
_MAX_CLASS_COLUMNS = 5
_MAX_GROUPS = 100
_MAX_FAILURES = 100
_MAX_TINT = 0.6
"""Dark enough to distinguish 90 % from 100 %, light enough for the text's contrast."""

_MIN_SHARE_SHOWN = 0.005
_STAGE_COLORS = ("#3b86a0", "#d08a3c", "#6c9a5b", "#a06a9e", "#c0625a", "#7c86a8", "#b5a04a", "#5aa39a", "#8c7a6b")
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


def view_of(summary: dict[str, Any], failures: Sequence[Failure]) -> dict[str, Any]:
    """Computes the template's values.

    Args:
        summary: the content of `summary.json`.
        failures: the job's failures, all or the first.

    Returns:
        Values by the names that `report.html.j2` uses; external text is not escaped.
    """
    run, images, classes = summary["run"], summary["images"], summary["classes"]
    counts = summary["confusion_matrix"]["counts"]
    seconds, worked = run.get("seconds"), images["found"] - (run.get("resumed") or 0)
    failed = images["failed"] + images.get("truth_failed", 0)
    model = run.get("model") or {}
    return {
        "is_good": run.get("status") == _DONE and not failed,
        "when": _when(run.get("started"), run.get("finished")),
        "rate": worked / seconds if seconds and worked > 0 else None,
        "unused": unused_lines(images["unused"]),
        "scored": counts is not None,
        "metrics": _metrics(summary["metrics"]),
        "has_m2": any(entry["area"]["m2"] is not None for entry in classes),
        "composition": _composition(classes),
        "confusions": None if counts is None else _confusions(classes, counts),
        "groups": _groups(summary.get("groups") or {}, len(classes)),
        "groups_note": summary.get("groups_note"),
        "failures": _failures(failures, failed, run.get("failures_by_type")),
        "stages": _stages(run.get("stages") or {}),
        "pairs": [
            ("Model", {"name": model.get("name"), "digest": model.get("digest")}),
            ("Options", run.get("options") or {}),
            ("Versions", run.get("versions") or {}),
        ],
    }


def _when(started: object, finished: object) -> str:
    """Both times as `3 October 2026, 14:02–14:16 UTC`; the first one unchanged if they are not ISO 8601."""
    try:
        begin = datetime.datetime.fromisoformat(str(started)).astimezone(datetime.UTC)
        end = datetime.datetime.fromisoformat(str(finished)).astimezone(datetime.UTC)
    except ValueError:
        return str(started)
    until = f"{end:%H:%M}" if begin.date() == end.date() else f"{end.day} {end:%B %Y, %H:%M}"
    return f"{begin.day} {begin:%B %Y, %H:%M}–{until} UTC"


def _metrics(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "label": label,
            "meaning": meaning,
            "score": metrics[key],
            "interval": metrics[f"{key}_ci95"],
            "note": metrics.get(f"{key}_ci95_note"),
        }
        for key, (label, meaning) in _METRICS.items()
    ]


def _parts(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The visible parts of a stacked bar, with their left ends."""
    placed, left = [], 0.0
    for part in parts:
        if part["share"] > 0:
            placed.append({**part, "left": left})
            left += part["share"]
    return placed


def _composition(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return _parts(
        {"share": entry["area"]["fraction"] or 0.0, "color": entry["color"], "label": entry["name"]}
        for entry in classes
    )


def _confusions(classes: list[dict[str, Any]], counts: list[list[int]]) -> dict[str, Any]:
    """The matrix as a heat map; for many classes, the largest confusions."""
    if len(classes) <= _MAX_CLASSES_DENSE:
        rows = [
            [_cell(truth, prediction, count, sum(row)) for prediction, count in zip(classes, row, strict=True)]
            for truth, row in zip(classes, counts, strict=True)
        ]
        return {"matrix": {"is_dense": len(classes) > _MAX_CLASSES_PLAIN, "rows": rows}}
    confusions = sorted(
        (-count, truth, prediction)
        for truth, row in enumerate(counts)
        for prediction, count in enumerate(row)
        if truth != prediction and count
    )
    largest = [
        {
            "truth": classes[truth],
            "prediction": classes[prediction],
            "count": -negative,
            "share": -negative / sum(counts[truth]),
        }
        for negative, truth, prediction in confusions[:_MAX_CONFUSIONS]
    ]
    return {"largest": largest, "kinds": len(confusions)}


def _cell(truth: dict[str, Any], prediction: dict[str, Any], count: int, row_px: int) -> dict[str, Any]:
    share = count / row_px if row_px else None
    return {
        "count": count,
        "share": share,
        "tint": f"{_MAX_TINT * (share or 0.0):.3f}",
        "percent": f"{100 * share:.0f}" if share and share >= _MIN_SHARE_SHOWN else "",
        "title": f"{truth['name']} taken for {prediction['name']}: {count:,} px, {share_text(share)}",
    }


def _groups(groups: dict[str, Any], num_classes: int) -> dict[str, Any] | None:
    if not groups:
        return None
    by_size = sorted(groups.items(), key=lambda item: (-item[1]["images"]["segmented"], item[0]))
    rows = [
        {
            "name": name,
            "segmented": group["images"]["segmented"],
            "score": group["metrics"]["global_mean_iou"],
            "interval": group["metrics"]["global_mean_iou_ci95"],
            "samplewise": group["metrics"]["samplewise_mean_iou"],
            "classes": group["classes"],
            "composition": _composition(group["classes"]),
        }
        for name, group in by_size[:_MAX_GROUPS]
    ]
    return {"count": len(groups), "rows": rows, "has_columns": num_classes <= _MAX_CLASS_COLUMNS}


def _failures(failures: Sequence[Failure], failed: int, by_type: dict[str, int] | None) -> dict[str, Any] | None:
    total = max(failed, len(failures))
    if not total:
        return None
    types = by_type or Counter(failure.error_type for failure in failures)
    return {
        "total": total,
        "by_type": sorted(types.items(), key=lambda item: (-item[1], item[0])),
        "shown": failures[:_MAX_FAILURES],
    }


def _stages(stages: dict[str, float]) -> list[dict[str, Any]]:
    total = sum(stages.values())
    return _parts(
        {
            "share": seconds / total if total else 0.0,
            "color": _STAGE_COLORS[index % len(_STAGE_COLORS)],
            "label": name,
            "seconds": seconds,
        }
        for index, (name, seconds) in enumerate(stages.items())
    )
