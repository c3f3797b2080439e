"""The closing table on a terminal and in a log."""

import io
from typing import Any

import pytest
from rich.console import Console
from summaries import make_summary

from pipeline.app.launcher import main
from pipeline.app.terminal import print_summary


def printed(summary: dict[str, Any], *, width: int = 80, colored: bool = False, **options: Any) -> str:
    file = io.StringIO()
    console = Console(
        file=file, width=width, force_terminal=colored, color_system="truecolor" if colored else None, highlight=False
    )
    print_summary(summary, "out/run", console, **options)
    return file.getvalue()


def test_classes_scores_and_counts_fit_80_columns() -> None:
    summary = make_summary(["background", "pet", "never"], pictures=12)
    text = printed(summary)
    assert max(map(len, text.splitlines())) <= 80
    pet = next(line for line in text.splitlines() if "pet" in line)
    entry = summary["classes"][1]
    assert f"{entry['iou']:.3f}" in pet
    assert f"{entry['iou_ci95'][0]:.3f}–{entry['iou_ci95'][1]:.3f}" in pet
    assert f"{entry['dice']:.3f}" in pet
    never = next(line for line in text.splitlines() if "never" in line)
    assert never.split() == ["never", "0.0", "%", "0", "–", "–", "–"]
    assert f"Mean IoU {summary['metrics']['global_mean_iou']:.3f} global" in text
    assert "12 pictures found, 12 segmented, 0 failed · 1 min 00 s, 0.2 pictures/s" in text
    assert "Report: out/run/report.html" in text
    assert "failures.jsonl" not in text


def test_failures_say_where_to_look_and_the_most_frequent_types() -> None:
    summary = make_summary(["a", "b"])
    summary["images"] |= {"found": 1240, "failed": 1234, "unpaired_truth": 2}
    summary["images"] |= {"ignored": 4, "ignored_by_ending": {"": 1, ".txt": 3}}
    summary["run"]["resumed"] = 5
    text = printed(summary, error_types={"Rare": 1, "Truncated": 1000, "Empty": 200, "NotAnImage": 33})
    assert "1,234 pictures failed: see out/run/failures.jsonl\n" in text
    assert "1,000 × Truncated, 200 × Empty, 33 × NotAnImage, …" in text
    assert "4 other files are ignored: 3 .txt, 1 without ending\n" in text
    flat = " ".join(text.split())
    assert "6 segmented (5 by an earlier run), 1,234 failed, 2 masks without a picture" in flat


def test_the_number_of_pictures_with_truth_is_printed_where_truth_was_asked_for() -> None:
    summary = make_summary(["a", "b"], truth=False)
    assert "had ground truth" not in printed(summary)
    summary["run"]["options"]["ground_truth"] = ["masks"]
    assert "0 of 6 pictures had ground truth\n" in printed(summary)
    summary["images"] |= {"truth_failed": 2, "with_ground_truth": 3}
    text = printed(summary)
    assert "3 of 6 pictures had ground truth, 2 ground truths failed\n" in text
    assert "2 ground truths failed: see out/run/failures.jsonl\n" in text
    summary["images"] |= {"truth_failed": 1, "failed": 1}
    assert "1 picture and 1 ground truth failed: see out/run/failures.jsonl\n" in printed(summary)
    # A manifest or records may hold the truth without an option.
    assert "6 of 6 pictures had ground truth\n" in printed(make_summary(["a", "b"]))


def test_without_truth_only_areas_are_shown() -> None:
    text = printed(make_summary(["a", "b"], truth=False))
    assert "No ground truth" in text
    assert "IoU" not in text
    assert "Median picture" in text


def test_colour_only_where_the_terminal_has_it() -> None:
    summary = make_summary(["a", "b"])
    assert "\x1b[" not in printed(summary)
    assert "■" not in printed(summary)
    red, green, blue = (int(summary["classes"][1]["color"][start : start + 2], 16) for start in (1, 3, 5))
    assert f"\x1b[38;2;{red};{green};{blue}m■" in printed(summary, colored=True)


def test_names_neither_steer_the_terminal_nor_count_as_markup() -> None:
    text = printed(make_summary(["\x1b[2Jcleared", "[bold]pet[/bold]"]), width=100)
    assert "\x1b" not in text
    assert r"\x1b[2Jcleared" in text
    assert "[bold]pet[/bold]" in text


def test_of_very_many_classes_the_largest_are_listed() -> None:
    text = printed(make_summary([f"class {k:03}" for k in range(60)]))
    assert "… and 20 more classes in out/run/summary.csv" in text
    assert len([line for line in text.splitlines() if " class " in line and "…" not in line]) == 40


def test_no_terminal_means_100_columns_and_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(make_summary(["x" * 200, "b"]), "gs://bucket/" + "deep/" * 30)
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines if "bucket" not in line) <= 100
    assert "\x1b" not in "".join(lines)
    # A path is one line, to be copied.
    assert lines[-1] == f"Report: gs://bucket/{'deep/' * 30}report.html"


def test_scores_on_training_pictures_are_said_to_be_that() -> None:
    summary = make_summary(["a", "b"])
    assert "trained on" not in printed(summary)
    summary["images"] |= {"segmented": 504, "trained_on": 403, "validated_on": 0}
    line = "403 of 504 pictures were trained on: no measure of the scores on new pictures"
    assert line in printed(summary)
    summary["images"]["validated_on"] = 50
    assert "403 of 504 pictures were trained on, 50 more chose the model's best epoch: no" in printed(summary)
    summary["images"] |= {"trained_on": 0, "validated_on": 0}
    assert "trained on" not in printed(summary)
    unscored = make_summary(["a", "b"], truth=False)
    unscored["images"] |= {"segmented": 504, "trained_on": 403, "validated_on": 0}
    assert "403 of 504 pictures were trained on\n" in printed(unscored)


def test_a_fault_is_one_line_that_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--input", "/absent/\x1b[2J\nfolder", "--model", "shapes", "--output", "/absent/out"]) == 2
    said = capsys.readouterr().err
    assert "\\x1b[2J\\nfolder" in said
    assert said.count("\n") == 1
    assert "\x1b" not in said
