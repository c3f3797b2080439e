"""The report's longer tables: confusions, groups, failures, and how the run was made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.records import Failure
from pipeline.core.wording import count_text, duration_text, interval_text, score_text, share_text
from pipeline.report.charts import escaped, score_bar, stacked_bar, swatch

Counts = list[list[int]]
_MOST_CLASSES_PLAIN = 8
_MOST_CLASSES_DENSE = 40
_MOST_CONFUSIONS = 25
_MOST_CLASS_COLUMNS = 5
_MOST_GROUPS = 100
_MOST_FAILURES = 100
_DEEPEST_TINT = 0.6
"""Dark enough to tell 90 % from 100 %, light enough for the text's contrast."""

_LEAST_SHARE_SHOWN = 0.005

_STAGE_COLORS = ("#3b86a0", "#d08a3c", "#6c9a5b", "#a06a9e", "#c0625a", "#7c86a8", "#b5a04a", "#5aa39a", "#8c7a6b")


def axis(*labels: str) -> str:
    """Labels spread evenly over a drawing's width, for a table's head."""
    return f'<div class="axis">{"".join(f"<span>{label}</span>" for label in labels)}</div>'


def composition_of(classes: list[dict[str, Any]]) -> list[tuple[float, str, str]]:
    """Area share, colour and name of each class, for a stacked bar."""
    return [(entry["area"]["fraction"] or 0.0, entry["color"], entry["name"]) for entry in classes]


def confusion_section(classes: list[dict[str, Any]], counts: Counts | None) -> str:
    """The confusion matrix as a heat table; for very many classes, the largest confusions.

    Args:
        classes: `classes` of `summary.json`.
        counts: pixels, rows truth and columns prediction; None without ground truth, then the section is empty.
    """
    if counts is None:
        return ""
    table = _largest_confusions if len(classes) > _MOST_CLASSES_DENSE else _heat_table
    return f"<section><h2>Confusions</h2>{table(classes, counts)}</section>"


def _heat_table(classes: list[dict[str, Any]], counts: Counts) -> str:
    dense = len(classes) > _MOST_CLASSES_PLAIN
    rows = []
    for truth, row in zip(classes, counts, strict=True):
        total = sum(row)
        cells = []
        for prediction, count in zip(classes, row, strict=True):
            share = count / total if total else None
            tint = f"--t:{_DEEPEST_TINT * (share or 0.0):.3f}"
            if dense:
                title = f"{truth['name']} taken for {prediction['name']}: {count:,} px, {share_text(share)}"
                percent = f"{100 * share:.0f}" if share and share >= _LEAST_SHARE_SHOWN else ""
                cells.append(f'<td style="{tint}" title="{escaped(title)}">{percent}</td>')
            else:
                cells.append(f'<td style="{tint}">{count:,}<small>{share_text(share)}</small></td>')
        rows.append(f'<tr><th scope="row">{_named(truth)}</th>{"".join(cells)}</tr>')
    if dense:
        head = "".join(f'<th scope="col"><span>{escaped(entry["name"])}</span></th>' for entry in classes)
    else:
        head = "".join(f'<th scope="col">{escaped(entry["name"])}</th>' for entry in classes)
    what = "Per cent of the row’s pixels (counts show on hovering)" if dense else "Pixels, and their share of the row"
    note = f"{what}; rows are the truth, columns the prediction."
    return (
        f'<p class="note">{note}</p><div class="wide"><table class="matrix{" dense" if dense else ""}">'
        f'<thead><tr><th class="corner">Truth ↓ &nbsp;Prediction →</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _largest_confusions(classes: list[dict[str, Any]], counts: Counts) -> str:
    confusions = sorted(
        (-count, truth, prediction)
        for truth, row in enumerate(counts)
        for prediction, count in enumerate(row)
        if truth != prediction and count
    )
    rows = "".join(
        f"<tr><td>{_named(classes[truth])}</td><td>{_named(classes[prediction])}</td>"
        f'<td class="n">{-negative:,}</td><td class="n">{share_text(-negative / sum(counts[truth]))}</td></tr>'
        for negative, truth, prediction in confusions[:_MOST_CONFUSIONS]
    )
    return (
        f'<p class="note">The {min(len(confusions), _MOST_CONFUSIONS)} largest of {len(confusions):,} kinds of '
        "confusion; all are in summary.json under <code>confusion_matrix</code>.</p>"
        '<div class="wide"><table><thead><tr><th>Truth</th><th>Taken for</th><th class="n">Pixels</th>'
        f'<th class="n">Of the truth’s pixels</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def groups_section(
    groups: dict[str, Any], classes: list[dict[str, Any]], *, scored: bool, note: str | None = None
) -> str:
    """A row a group with its pictures, scores and areas; empty where groups were not asked for.

    Args:
        groups: `groups` of `summary.json`.
        classes: `classes` of the whole job.
        scored: whether any picture has ground truth.
        note: `groups_note` of `summary.json`: why there are no groups.
    """
    if note:
        return f'<section><h2>Groups</h2><p class="note">{escaped(note)}.</p></section>'
    if not groups:
        return ""
    by_size = sorted(groups.items(), key=lambda item: (-item[1]["images"]["segmented"], item[0]))
    columns = len(classes) <= _MOST_CLASS_COLUMNS
    head = '<th>Group</th><th class="n">Pictures</th>'
    if scored:
        head += f'<th class="n">Mean IoU</th><th>{axis("0", "1")}</th><th class="n">Samplewise</th>'
    if columns:
        head += "".join(f'<th class="n">{_named(entry)}</th>' for entry in classes)
    else:
        head += f"<th>{axis('Areas')}</th>"
    rows = "".join(_group_row(name, group, scored=scored, columns=columns) for name, group in by_size[:_MOST_GROUPS])
    order = "The largest groups first. " if len(groups) > 1 else ""
    if len(groups) > _MOST_GROUPS:
        order = f"The {_MOST_GROUPS} largest of {len(groups):,} groups; all are in summary.json. "
    order += "Class columns are area shares." if columns else "Areas are drawn in the classes’ colours."
    return (
        f'<section><h2>Groups</h2><p class="note">{order}</p><div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _group_row(name: str, group: dict[str, Any], *, scored: bool, columns: bool) -> str:
    metrics, classes = group["metrics"], group["classes"]
    cells = f'<td class="n">{count_text(group["images"]["segmented"])}</td>'
    if scored:
        score, interval = metrics["global_mean_iou"], metrics["global_mean_iou_ci95"]
        small = f"<small>{interval_text(interval)}</small>" if interval else ""
        cells += f'<td class="n"><b>{score_text(score)}</b>{small}</td>'
        cells += f'<td class="draw">{score_bar(score, interval)}</td>'
        cells += f'<td class="n">{score_text(metrics["samplewise_mean_iou"])}</td>'
    if columns:
        cells += "".join(f'<td class="n">{share_text(entry["area"]["fraction"])}</td>' for entry in classes)
    else:
        cells += f'<td class="draw half">{stacked_bar(composition_of(classes))}</td>'
    return f'<tr><th class="name" scope="row">{escaped(name) if name else count_text(None)}</th>{cells}</tr>'


def failures_section(failures: Sequence[Failure], failed: int, by_type: Mapping[str, int] | None) -> str:
    """How many failures of which type, and the first hundred; empty where there are none.

    Args:
        failures: the failures at hand, all or the first.
        failed: how many pictures and truths failed in all.
        by_type: how many of each type in all; None to count those at hand.
    """
    total = max(failed, len(failures))
    if not total:
        return ""
    types = by_type or Counter(failure.error_type for failure in failures)
    listed = "".join(
        f'<tr><th scope="row">{escaped(error_type)}</th><td class="n">{count:,}</td></tr>'
        for error_type, count in sorted(types.items(), key=lambda item: (-item[1], item[0]))
    )
    rows = "".join(
        f"<tr><td>{escaped(failure.image_id) or count_text(None)}<small>{escaped(failure.source_uri)}</small></td>"
        f"<td>{escaped(failure.error_type)}<small>{escaped(failure.stage)}</small></td><td>{escaped(failure.message)}</td></tr>"
        for failure in failures[:_MOST_FAILURES]
    )
    shown = min(len(failures), _MOST_FAILURES)
    more = f'<p class="note">The first {shown:,} of {total:,}; all are in failures.jsonl.</p>' if shown < total else ""
    return (
        f"<section><h2>{total:,} {'failure' if total == 1 else 'failures'}</h2>"
        '<table class="pairs"><thead><tr><th>Type</th><th class="n">Pictures</th></tr></thead>'
        f"<tbody>{listed}</tbody></table><h3>Picture by picture</h3>{more}"
        '<table class="failures"><colgroup><col style="width:38%"><col style="width:18%"><col></colgroup>'
        "<thead><tr><th>Picture</th><th>Type</th><th>What happened</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def run_section(run: dict[str, Any]) -> str:
    """Where the time went, and the model, options and versions that the run was made with.

    Args:
        run: `run` of `summary.json`.
    """
    model = run.get("model") or {}
    tables = [
        _pairs("Model", {"name": model.get("name"), "digest": model.get("digest")}),
        _pairs("Options", run.get("options") or {}),
        _pairs("Versions", run.get("versions") or {}),
    ]
    stages = _stages(run.get("stages") or {})
    return f'<section><h2>The run</h2>{stages}<div class="columns">{"".join(tables)}</div></section>'


def _stages(stages: dict[str, float]) -> str:
    total = sum(stages.values())
    if not total:
        return ""
    colors = [_STAGE_COLORS[index % len(_STAGE_COLORS)] for index in range(len(stages))]
    bar = stacked_bar([(s / total, color, name) for color, (name, s) in zip(colors, stages.items(), strict=True)], 22)
    legend = "".join(
        f"<li>{swatch(color)}{escaped(name)} <b>{duration_text(seconds)}</b> "
        f'<span class="muted">{share_text(seconds / total)}</span></li>'
        for color, (name, seconds) in zip(colors, stages.items(), strict=True)
    )
    return f'<h3>Time by stage, summed over the workers</h3>{bar}<ul class="legend">{legend}</ul>'


def _pairs(title: str, pairs: dict[str, Any]) -> str:
    if not pairs:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escaped(key)}</th><td>{_value_text(value)}</td></tr>' for key, value in pairs.items()
    )
    return f'<div><h3>{title}</h3><table class="pairs"><tbody>{rows}</tbody></table></div>'


def _value_text(value: object) -> str:
    if value is None or value == "" or value == []:
        return count_text(None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(escaped(item) for item in value)
    return escaped(value)


def _named(entry: dict[str, Any]) -> str:
    return swatch(entry["color"]) + escaped(entry["name"])
