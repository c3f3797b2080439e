"""Whole runs over pictures some of which are broken: one bad picture costs one picture."""

import os
from pathlib import Path

import numpy as np
from job_runs import break_five
from PIL import Image
from small_archive import (
    Archive,
    Finished,
    run_job,
)


def test_five_broken_pictures_cost_five_lines(some: Archive, scored_job: Finished, tmp_path: Path) -> None:
    expected = break_five(some)
    done = run_job(tmp_path / "out", "--input", some.images, "--batch_size", 4)
    assert done.status == 3
    assert sorted(done.masks) == list(some.image_ids)
    for image_id in some.image_ids:
        assert np.array_equal(done.masks[image_id], scored_job.masks[image_id])
    assert {line["image_id"]: (line["stage"], line["error_type"]) for line in done.failures} == expected
    assert [line["image_id"] for line in done.failures] == sorted(expected)
    assert all(line["source_uri"] == str(some.images / line["image_id"]) for line in done.failures)
    images = done.summary["images"]
    assert (images["found"], images["segmented"], images["failed"]) == (9, 4, 5)
    assert done.summary["run"]["status"] == "too_many_failures"
    assert "5 failed" in done.out


def test_what_of_a_file_is_not_used_is_counted_and_said(some: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    page = Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    page.save(folder / "pages.tif", save_all=True, append_images=[page, page])
    page.save(folder / "frames.gif", save_all=True, append_images=[page.point(lambda _: 90)])
    Image.fromarray(np.full((9, 9), 1_000, np.uint16)).save(folder / "dark.png")
    page.save(folder / "plain.png")
    done = run_job(tmp_path / "out", "--input", folder)
    assert done.status == 0
    assert done.summary["images"]["unused"] == {"depth": 1, "low_values": 1, "pages": 2}
    assert "2 pictures with several pages or frames: the first is used" in done.out
    assert "1 picture with 16 bits a channel and no value above 4,095: read as nearly black" in done.out
    assert "2 pictures with several pages or frames" in (done.output / "report.html").read_text("utf-8")
    again = run_job(tmp_path / "out", "--input", folder)
    assert again.summary["run"]["resumed"] == 4
    assert again.summary["images"] == done.summary["images"]


def test_the_failure_ratio_decides_the_status(some: Archive, tmp_path: Path) -> None:
    break_five(some)
    just_above = run_job(tmp_path / "out", "--input", some.images, "--max_failure_ratio", 0.55)
    assert (just_above.status, just_above.summary["run"]["status"]) == (3, "too_many_failures")
    line = just_above.err.splitlines()[-1]
    assert line.startswith("maskbeam: 5 pictures failed of 9, more than the share of --max_failure_ratio 0.55; ")
    for part in (str(tmp_path / "out" / "failures.jsonl"), "--retry_failed", "a higher --max_failure_ratio"):
        assert part in line
    just_met = run_job(tmp_path / "out", "--input", some.images, "--max_failure_ratio", 5 / 9)
    assert (just_met.status, just_met.summary["run"]["status"]) == (0, "done")
    assert len(just_met.failures) == 5


def test_an_output_of_failures_only_is_complete(some: Archive, tmp_path: Path) -> None:
    break_five(some)
    done = run_job(tmp_path / "out", "--input", some.images / "bad")
    assert (done.status, done.rows, len(done.failures)) == (3, [], 5)
    assert done.summary["images"]["segmented"] == 0
    assert done.summary["classes"][0]["area"]["fraction"] is None
    assert (done.output / "report.html").is_file()


def test_names_that_no_output_can_have_are_failures(some: Archive, tmp_path: Path) -> None:
    picture = (some.images / "palette.gif").read_bytes()
    (some.images / "new\nline.gif").write_bytes(picture)
    try:
        Path(os.fsdecode(os.fsencode(some.images) + b"/\xff.gif")).write_bytes(picture)
        unsafe = 2
    except OSError:  # a file system that takes UTF-8 alone
        unsafe = 1
    (some.images / ("x" * 249 + ".gif")).write_bytes(picture)
    done = run_job(tmp_path / "out", "--input", some.images)
    assert done.status == 3
    kinds = [(line["stage"], line["error_type"]) for line in done.failures]
    assert sorted(kinds) == sorted([("locate", "UnsafeName")] * unsafe + [("write", "UnwritableName")])
    assert sorted(done.masks) == list(some.image_ids)
