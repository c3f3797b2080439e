"""`--plan`: the counts are exact, the estimate follows from them, and nothing is written."""

import errno
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from small_archive import TINY_MODEL, Archive

from pipeline.app.launcher import main
from pipeline.app.plan import CLUSTER_START_S, START_S, Plan, plan_text
from pipeline.storage import filesystem
from pipeline.storage.stored_file import OnUnreadable, StoredFile

PLAN = Plan(
    pictures=10_000,
    ignored=3,
    source_bytes=2_500_000_000,
    listing_s=1.0,
    sampled=100,
    sample_failed=2,
    sample_s=10.0,
    cores=2,
    mask_bytes=6_500.0,
)


def test_seconds_follow_from_the_rate() -> None:
    assert PLAN.rate == 10.0
    assert PLAN.seconds() == pytest.approx(START_S + 1.0 + 1000.0)
    assert PLAN.seconds(workers=20) == pytest.approx(CLUSTER_START_S + 1.0 + 50.0)


def test_no_sample_no_promise() -> None:
    assert replace(PLAN, sampled=0, sample_s=0.0).seconds() == float("inf")


def test_the_text_names_counts_cost_and_assumptions() -> None:
    text = plan_text(PLAN, workers=20, price_per_hour=0.5)
    hours = 20 * PLAN.seconds(20) / 3600
    assert "10,000 pictures, 2.50 GB; 3 other files are ignored" in text
    assert "Masks: about 65.0 MB" in text
    assert f"{hours:,.1f} machine hours, {hours * 0.5:,.2f} at 0.5" in text
    assert "Assumed:" in text
    assert "20 workers" not in plan_text(PLAN, workers=None, price_per_hour=None)


def test_the_command_counts_and_writes_nothing(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "never"
    status = main(
        [
            *("--input", str(archive.images), "--ground_truth", str(archive.masks)),
            *("--model", str(TINY_MODEL), "--output", str(output), "--plan", "--plan_workers", "3"),
        ]
    )
    printed = capsys.readouterr().out
    assert status == 0
    assert printed.startswith("20 pictures, ")
    assert "Sample: 20 pictures at " in printed
    assert "3 workers: " in printed
    assert not output.exists()


@pytest.mark.parametrize("options", [["--plan_workers", "3"], ["--plan", "--plan_price_per_hour", "1"]])
def test_plan_options_need_each_other(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--input", str(tmp_path), "--model", "shapes", "--output", str(tmp_path / "out"), *options])
    assert status == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_source_that_can_not_be_listed_ends_in_one_line(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_files = filesystem.list_files

    def interrupted(folder: str, on_unreadable: OnUnreadable | None = None) -> Iterator[StoredFile]:
        yield from islice(list_files(folder, on_unreadable), 3)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(filesystem, "list_files", interrupted)
    status = main(
        ["--input", str(archive.images), "--model", str(TINY_MODEL), "--output", str(tmp_path / "never"), "--plan"]
    )
    assert status == 1
    assert capsys.readouterr().err == f"maskbeam: {archive.images} can't be listed: Input/output error\n"
