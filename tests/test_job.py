"""Whole runs of the command on an archive whose masks are known: what comes out, and what is said where it can't."""

import contextlib
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_archive import (
    CLASS_NAMES,
    EXIF_ORIENTATION,
    TINY_MODEL,
    Archive,
    Finished,
    draw_picture,
    draw_truth,
    expected_mask,
    run_job,
    save_mask,
    upright_pixels,
)

from pipeline.core.scores import confusion_matrix, iou_per_class

ROOT = Path(__file__).resolve().parent.parent
SLOW_MACHINE = re.compile(r"maskbeam: (listing|[0-9,]+ of ).*")
"""The line that comes every half minute where there is no terminal."""


def but_run(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on how the job is run."""
    return {name: value for name, value in summary.items() if name != "run"}


def run_process(output: Path, *arguments: object, program: str | None = None) -> Finished:
    """Runs the command as a separate process, as a user does."""
    start = ["-c", program] if program else ["-m", "pipeline"]
    command = [sys.executable, *start, *map(str, arguments), "--model", str(TINY_MODEL), "--output", str(output)]
    # The least that a terminal can show.
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    return Finished(done.returncode, done.stdout, done.stderr, output)


@pytest.fixture
def some(archive: Archive, tmp_path: Path) -> Archive:
    """Four pictures and their masks, to be changed at will."""
    names = ("a_png_in_truth.jpg", "palette.gif", "north/picture_01.jpg", "sideways.jpg")
    for name in names:
        for folder, source in (("images", archive.images / name), ("masks", archive.mask_path(name))):
            target = tmp_path / folder / Path(name).parent
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return Archive(tmp_path / "images", tmp_path / "masks", tuple(sorted(names)))


# What comes out.


def test_masks_are_those_of_an_independent_computation(archive: Archive, scored_job: Finished) -> None:
    assert scored_job.status == 0
    masks = scored_job.masks
    assert sorted(masks) == list(archive.image_ids)
    for image_id in archive.image_ids:
        expected, sure = expected_mask(archive.pixels(image_id))
        assert masks[image_id].shape == expected.shape
        assert np.array_equal(masks[image_id][sure], expected[sure]), image_id
        assert sure.mean() > 0.98


def test_rows_say_what_masks_and_truths_hold(archive: Archive, scored_job: Finished) -> None:
    rows, masks = scored_job.rows, scored_job.masks
    assert [row["image_id"] for row in rows] == list(archive.image_ids)
    for row in rows:
        image_id = row["image_id"]
        height, width = masks[image_id].shape
        areas = [row[f"area_px_{name}"] for name in CLASS_NAMES]
        matrix = confusion_matrix(archive.truth(image_id), masks[image_id], 3)
        assert (row["width"], row["height"]) == (width, height)
        assert areas == np.bincount(masks[image_id].ravel(), minlength=3).tolist()
        assert sum(areas) == width * height
        assert row["source_uri"] == str(archive.images / image_id)
        assert row["source_bytes"] == (archive.images / image_id).stat().st_size
        assert (scored_job.output / row["mask_uri"]).is_file()
        assert row["pixel_accuracy"] == np.trace(matrix) / matrix.sum()
        for name, iou in zip(CLASS_NAMES, iou_per_class(matrix), strict=True):
            assert row[f"iou_{name}"] == (None if np.isnan(iou) else iou)


def test_the_summary_adds_up(archive: Archive, scored_job: Finished) -> None:
    summary, masks = scored_job.summary, scored_job.masks
    matrix = sum(confusion_matrix(archive.truth(image_id), masks[image_id], 3) for image_id in archive.image_ids)
    pixels = sum(mask.size for mask in masks.values())
    assert summary["schema_version"] == 1
    assert summary["images"] == {
        **{"found": 20, "segmented": 20, "failed": 0, "truth_failed": 0},
        **{
            "ignored": 1,
            "ignored_by_ending": {".txt": 1},
            "with_ground_truth": 20,
            "unpaired_truth": 0,
            "unused": {"alpha": 1},
            "trained_on": None,
            "validated_on": None,
        },
    }
    assert summary["confusion_matrix"]["counts"] == np.asarray(matrix).tolist()
    assert np.sum(matrix) == pixels == sum(entry["area"]["px"] for entry in summary["classes"])
    assert [entry["name"] for entry in summary["classes"]] == list(CLASS_NAMES)
    ious = iou_per_class(np.asarray(matrix))
    assert [entry["iou"] for entry in summary["classes"]] == ious.tolist()
    assert summary["metrics"]["global_mean_iou"] == pytest.approx(ious.mean(), abs=1e-15)
    assert summary["groups"] == {}
    run = summary["run"]
    assert run["status"] == "done"
    assert (
        run["model"]["digest"]
        == json.loads((TINY_MODEL / "metadata.json").read_text())["files"]["model.tflite"]["sha256"]
    )
    assert run["options"]["input"] == [str(archive.images)]
    assert run["options"]["runner"] == "DirectRunner"
    assert {"read", "decode", "infer", "mask", "write"} <= set(run["stages"])
    assert run["started"] <= run["finished"]
    assert {"python", "numpy", "pillow", "cpu", "opencv_build"} <= set(run["versions"])


def test_the_output_has_everything_of_the_contract(scored_job: Finished) -> None:
    names = {path.name for path in scored_job.output.iterdir()} - {"_progress"}
    assert names == {"masks", "images", "failures.jsonl", "summary.json", "summary.csv", "report.html"}
    assert scored_job.failures == []
    assert [path.name for path in (scored_job.output / "images").iterdir()] == ["part-00000-of-00001.parquet"]
    header, *lines = (scored_job.output / "summary.csv").read_text("utf-8").splitlines()
    assert header.startswith("class_id,name,color,area_px,")
    assert [line.split(",")[1] for line in lines] == list(CLASS_NAMES)
    report = (scored_job.output / "report.html").read_text("utf-8")
    assert report.startswith("<!DOCTYPE html>")
    assert all(name in report for name in CLASS_NAMES)
    assert not list(scored_job.output.rglob("*.tmp"))


def test_the_terminal_shows_the_classes_and_the_path_of_the_report(scored_job: Finished) -> None:
    for part in (*CLASS_NAMES, "Mean IoU", "20 pictures found, 20 segmented, 0 failed", "report.html"):
        assert part in scored_job.out
    assert "INFO" not in scored_job.err
    assert "WARNING" not in scored_job.err
    assert "Traceback" not in scored_job.err


def test_without_truth_there_are_areas_and_no_scores(archive: Archive, scored_job: Finished, tmp_path: Path) -> None:
    done = run_job(tmp_path / "out", "--input", archive.images)
    assert done.status == 0
    assert done.summary["images"]["with_ground_truth"] == 0
    assert done.summary["confusion_matrix"]["counts"] is None
    assert set(done.summary["metrics"].values()) == {None}
    assert [entry["area"] for entry in done.summary["classes"]] == [e["area"] for e in scored_job.summary["classes"]]
    assert all(row["iou_red"] is None for row in done.rows)
    assert {name: data for name, data in done.contents().items() if name.startswith("masks")} == {
        name: data for name, data in scored_job.contents().items() if name.startswith("masks")
    }


# The same results however a job is run.


@pytest.mark.parametrize(
    "options",
    [
        ("--batch_size", 3),
        ("--batch_size", 8, "--threads", 1),
        ("--direct_running_mode", "multi_threading", "--direct_num_workers", 2, "--batch_size", 3),
        ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2, "--batch_size", 8),
    ],
    ids=["batches of 3", "batches of 8, one thread", "two threads", "two processes"],
)
def test_the_way_of_running_changes_no_byte(
    archive: Archive, scored_job: Finished, tmp_path: Path, options: tuple[object, ...]
) -> None:
    done = run_job(tmp_path / "out", "--input", archive.images, "--ground_truth", archive.masks, *options)
    assert (done.status, done.summary["run"]["status"]) == (0, "done")
    assert done.contents() == scored_job.contents()
    assert but_run(done.summary) == but_run(scored_job.summary)
    assert "Traceback" not in done.err


def test_a_process_without_tensorflow_does_the_whole_job(
    archive: Archive, scored_job: Finished, tmp_path: Path
) -> None:
    program = """
        import sys
        for name in ("tensorflow", "keras", "tensorflow_datasets", "tensorflow_hub"):
            sys.modules[name] = None
        from pipeline.app.launcher import main
        sys.exit(main(sys.argv[1:]))
    """
    done = run_process(
        *(tmp_path / "out", "--input", archive.images, "--ground_truth", archive.masks),
        program=textwrap.dedent(program),
    )
    assert done.status == 0, done.err
    assert done.contents() == scored_job.contents()
    # A separate process shows what a user sees: one line at the end, and no output of libraries.
    *before, line = done.err.splitlines()
    assert line.startswith("maskbeam: 20 pictures in ")
    assert all(SLOW_MACHINE.fullmatch(other) for other in before)


# One bad picture costs one picture.


def break_five(archive: Archive) -> dict[str, tuple[str, str]]:
    """Puts five broken pictures into the archive; returns the stage and type of the failure of each."""
    good = (archive.images / "palette.gif").read_bytes()
    jpeg = (archive.images / "sideways.jpg").read_bytes()
    for name, data in (
        ("bad/empty.png", b""),
        ("bad/text.jpg", b"no picture at all\n"),
        ("bad/cut.jpg", jpeg[: len(jpeg) // 2]),
        ("bad/page.png", b"<!DOCTYPE html>"),
        ("bad/cut.gif", good[: len(good) // 2]),
    ):
        path = archive.images / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return {
        "bad/cut.gif": ("decode", "Truncated"),
        "bad/cut.jpg": ("decode", "Truncated"),
        "bad/empty.png": ("decode", "Empty"),
        "bad/page.png": ("decode", "NotAPicture"),
        "bad/text.jpg": ("decode", "NotAPicture"),
    }


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


def test_a_faulty_truth_is_a_failure_and_its_picture_is_segmented(
    archive: Archive, some: Archive, scored_job: Finished, tmp_path: Path
) -> None:
    small, strange, broken, doubled = some.image_ids
    save_mask(some.mask_path(small), np.zeros((5, 6), np.uint8))
    truth = some.truth(strange).copy()
    truth[0, :3] = (3, 9, 200)
    save_mask(some.mask_path(strange), truth)
    some.mask_path(broken).write_bytes(b"no mask")
    save_mask(some.mask_path(doubled).with_suffix(".tif"), some.truth(doubled))
    shutil.copy(some.images / "palette.gif", some.images / "good.gif")
    shutil.copy(archive.mask_path("palette.gif"), some.masks / "good.png")
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", some.masks)
    assert done.status == 3
    assert {line["image_id"]: (line["stage"], line["error_type"]) for line in done.failures} == {
        small: ("truth", "SizeMismatch"),
        strange: ("truth", "UnknownLabels"),
        broken: ("truth", "NotAPicture"),
        doubled: ("truth", "AmbiguousTruth"),
    }
    messages = {line["image_id"]: line["message"] for line in done.failures}
    assert "6x5" in messages[small]
    assert "3, 9, 200" in messages[strange]
    assert str(some.mask_path(doubled)) in messages[doubled]
    assert sorted(done.masks) == sorted([*some.image_ids, "good.gif"])
    for image_id in some.image_ids:
        assert np.array_equal(done.masks[image_id], scored_job.masks[image_id])
    images = done.summary["images"]
    assert (images["found"], images["segmented"], images["failed"]) == (5, 5, 0)
    assert (images["truth_failed"], images["with_ground_truth"]) == (4, 1)
    assert done.summary["run"]["failures_by_type"] == {
        **{"AmbiguousTruth": 1, "NotAPicture": 1, "SizeMismatch": 1, "UnknownLabels": 1}
    }
    assert {row["image_id"]: row["pixel_accuracy"] is None for row in done.rows} == {
        image_id: image_id != "good.gif" for image_id in done.masks
    }
    report = (done.output / "report.html").read_text("utf-8")
    assert "<h2>4 failures</h2>" in report


def tar_of_masks(some: Archive, target: Path, names: Iterable[str]) -> Path:
    with tarfile.open(target, "w") as tar:
        for name in names:
            tar.add(some.mask_path(name), str(Path(name).with_suffix(".png")))
    return target


def test_a_truncated_archive_of_masks_is_a_failure_and_the_terminal_counts_the_truths(
    some: Archive, tmp_path: Path
) -> None:
    masks = tar_of_masks(some, tmp_path / "masks.tar", some.image_ids)
    data = masks.read_bytes()
    with tarfile.open(masks) as tar:
        third = tar.getmembers()[2]
    masks.write_bytes(data[: third.offset_data + third.size // 2])
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", masks)
    assert done.status == 3
    assert [(line["image_id"], line["source_uri"], line["stage"]) for line in done.failures] == [
        ("", str(masks), "truth")
    ]
    assert done.failures[0]["error_type"] == "Truncated"
    images = done.summary["images"]
    assert (images["found"], images["segmented"], images["failed"], images["truth_failed"]) == (4, 4, 0, 1)
    assert images["with_ground_truth"] == 2
    assert "2 of 4 pictures had ground truth" in done.out
    assert "1 ground truth failed" in done.out


def test_members_of_an_archive_of_masks_that_cannot_be_read_are_failures(some: Archive, tmp_path: Path) -> None:
    first, *others = some.image_ids
    masks = tmp_path / "masks.zip"
    with zipfile.ZipFile(masks, "w") as archive:
        archive.write(some.mask_path(first), str(Path(first).with_suffix(".png")))
        for name in others:
            archive.write(some.mask_path(name), str(Path(name).with_suffix(".png")), zipfile.ZIP_LZMA)
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", masks)
    assert done.status == 3
    assert [(line["image_id"], line["source_uri"], line["stage"]) for line in done.failures] == sorted(
        ("", f"{masks}!{Path(name).with_suffix('.png')}", "truth") for name in others
    )
    assert all("lzma" in line["message"].lower() for line in done.failures)
    assert done.summary["images"]["truth_failed"] == 3
    assert "1 of 4 pictures had ground truth" in done.out


def test_a_mask_whose_name_no_output_can_have_is_a_failure(some: Archive, tmp_path: Path) -> None:
    shutil.copy(some.mask_path("palette.gif"), some.masks / "new\nline.png")
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", some.masks)
    assert done.status == 3
    assert [(line["image_id"], line["stage"], line["error_type"]) for line in done.failures] == [
        ("", "truth", "UnsafeName")
    ]
    images = done.summary["images"]
    assert (images["found"], images["truth_failed"], images["with_ground_truth"]) == (4, 1, 4)


def test_truth_of_which_nothing_can_pair_is_refused_before_any_work(some: Archive, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.tar").write_bytes(np.random.default_rng(1).bytes(20_000))
    (tmp_path / "renamed").mkdir()
    shutil.copy(some.mask_path("palette.gif"), tmp_path / "renamed" / "palette_mask.png")
    with tarfile.open(tmp_path / "texts.tar", "w") as tar:
        tar.add(some.images / "palette.gif", "notes.txt")
    with zipfile.ZipFile(tmp_path / "lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(some.mask_path("palette.gif"), "palette.png")
    (tmp_path / "rows.csv").write_text("image,mask\nimages/palette.gif,\n")
    (tmp_path / "images_only.csv").write_text("image\nmasks/palette.png\n")
    (tmp_path / "images_only.jsonl").write_text('{"image": "masks/palette.png"}\n')
    for truth, said in (
        (tmp_path / "empty", "holds no mask"),
        (some.masks / "*.bmp", "holds no mask"),
        (some.masks / "*.tar", "holds no mask"),
        (tmp_path / "texts.tar", "holds no mask"),
        (tmp_path / "rows.csv", "holds no mask"),
        (tmp_path / "noise.tar", "holds no mask that can be read: "),
        (tmp_path / "lzma.zip", "holds no mask that can be read: "),
        (tmp_path / "images_only.csv", "no column 'mask'"),
        (tmp_path / "images_only.jsonl", "no column 'mask'"),
        (tmp_path / "renamed", "no mask pairs with a picture: for example 'palette_mask.png' and 'a_png_in_truth.jpg'"),
    ):
        line = refused(tmp_path, "--input", some.images, "--ground_truth", truth)
        assert line.startswith(f"--ground_truth {truth}: ")
        assert said in line


def test_truth_that_turns_out_to_pair_with_nothing_ends_with_status_1(some: Archive, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "masks.tar", "w") as tar:
        for name in some.image_ids:
            tar.add(some.mask_path(name), f"elsewhere/{Path(name).stem}.png")
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", tmp_path / "masks.tar")
    assert (done.status, done.summary["run"]["status"]) == (1, "no_ground_truth")
    assert done.err.splitlines()[-1].startswith("maskbeam: --ground_truth was given, but no picture could be scored: ")
    assert "0 of 4 pictures had ground truth" in done.out
    assert sorted(done.masks) == list(some.image_ids)
    images = done.summary["images"]
    assert (images["segmented"], images["with_ground_truth"], images["unpaired_truth"]) == (4, 0, 4)


def test_a_manifest_of_truth_names_masks(some: Archive, scored_job: Finished, tmp_path: Path) -> None:
    expected = {row["image_id"]: row["pixel_accuracy"] for row in scored_job.rows}
    masks = [some.mask_path(image_id) for image_id in some.image_ids]
    tables = {
        "image,mask": [f"{some.images / i},{mask}" for i, mask in zip(some.image_ids, masks, strict=True)],
        "image_id,mask": [f"{i},{mask}" for i, mask in zip(some.image_ids, masks, strict=True)],
        "mask": list(map(str, masks)),
    }
    for number, (header, rows) in enumerate(tables.items()):
        manifest = tmp_path / f"list_{number}.csv"
        manifest.write_text("\n".join([header, *rows]) + "\n")
        done = run_job(tmp_path / f"out_{number}", "--input", some.images, "--ground_truth", manifest)
        assert done.status == 0, done.err
        assert {row["image_id"]: row["pixel_accuracy"] for row in done.rows} == {i: expected[i] for i in some.image_ids}
    (tmp_path / "list.csv").write_text(
        f"image,mask\n{some.images}/palette.gif,{masks[2]}\n{some.images}/north/picture_01.jpg,\n,{masks[0]}\n"
    )
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", tmp_path / "list.csv")
    assert done.status == 3
    (line,) = done.failures
    assert (line["image_id"], line["source_uri"], line["stage"]) == ("", str(tmp_path / "list.csv"), "truth")
    assert "line 4" in line["message"]
    assert done.summary["images"]["with_ground_truth"] == 1


def test_truth_failures_count_against_the_failure_ratio(some: Archive, tmp_path: Path) -> None:
    break_five(some)
    some.mask_path("palette.gif").write_bytes(b"no mask")
    options = ("--input", some.images, "--ground_truth", some.masks)
    just_above = run_job(tmp_path / "out", *options, "--max_failure_ratio", 0.66)
    assert (just_above.status, just_above.summary["run"]["status"]) == (3, "too_many_failures")
    just_met = run_job(tmp_path / "out", *options, "--max_failure_ratio", 6 / 9)
    assert (just_met.status, just_met.summary["run"]["status"]) == (0, "done")
    images = just_met.summary["images"]
    assert (images["found"], images["segmented"], images["failed"], images["truth_failed"]) == (9, 4, 5, 1)
    assert just_met.summary["run"]["resumed"] == 4


def test_a_resumed_picture_keeps_its_truth_failure(some: Archive, tmp_path: Path) -> None:
    save_mask(some.mask_path("palette.gif"), np.zeros((5, 6), np.uint8))
    options = ("--input", some.images, "--ground_truth", some.masks)
    first = run_job(tmp_path / "out", *options)
    second = run_job(tmp_path / "out", *options)
    assert (first.status, second.status) == (3, 3)
    assert [line["error_type"] for line in first.failures] == ["SizeMismatch"]
    assert second.contents() == first.contents()
    assert but_run(second.summary) == but_run(first.summary)
    assert (second.summary["run"]["resumed"], second.summary["run"]["updated"]) == (4, 0)
    # The truth is read again, and nothing is inferred again.
    retried = run_job(tmp_path / "out", *options, "--retry_failed")
    assert retried.contents() == first.contents()
    assert (retried.summary["run"]["resumed"], retried.summary["run"]["updated"]) == (4, 1)


def test_a_truth_that_the_store_failed_to_give_is_read_again_on_resume(some: Archive, tmp_path: Path) -> None:
    rows = [f"{some.images / image_id},{some.mask_path(image_id)}" for image_id in some.image_ids]
    (tmp_path / "list.csv").write_text("\n".join(["image,mask", *rows]) + "\n")
    some.mask_path("palette.gif").rename(tmp_path / "elsewhere.png")
    first = run_job(tmp_path / "out", "--input", tmp_path / "list.csv")
    assert [(line["stage"], line["error_type"]) for line in first.failures] == [("truth", "Missing")]
    again = run_job(tmp_path / "out", "--input", tmp_path / "list.csv")
    run = again.summary["run"]
    assert (again.status, run["resumed"], run["updated"]) == (3, 4, 1)
    assert len(again.failures) == 1
    (tmp_path / "elsewhere.png").rename(some.mask_path("palette.gif"))
    mended = run_job(tmp_path / "out", "--input", tmp_path / "list.csv")
    assert (mended.status, mended.failures, mended.summary["images"]["with_ground_truth"]) == (0, [], 4)


def test_a_missing_mask_is_not_scored_and_an_unpaired_one_is_counted(some: Archive, tmp_path: Path) -> None:
    some.mask_path("palette.gif").rename(some.masks / "unpaired.png")
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", some.masks)
    assert done.status == 0
    images = done.summary["images"]
    assert (images["segmented"], images["with_ground_truth"], images["unpaired_truth"]) == (4, 3, 1)
    assert {row["image_id"]: row["pixel_accuracy"] is None for row in done.rows} == {
        image_id: image_id == "palette.gif" for image_id in some.image_ids
    }


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


# Orientation, endings, links.


def test_a_rotated_picture_gets_the_mask_of_its_upright_copy(archive: Archive, tmp_path: Path) -> None:
    pixels = draw_picture(31, 120, 72)
    truth = draw_truth(expected_mask(pixels)[0], 31)
    turns = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270, 3: Image.Transpose.ROTATE_180}
    save_mask(tmp_path / "masks" / "upright.png", truth)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "upright.png")
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        Image.fromarray(pixels).transpose(turn).save(tmp_path / "images" / f"upright_{orientation}.png", exif=exif)
        # One mask drawn upright, one on the sensor's grid without a mark, one with the picture's own mark.
        mask = Image.fromarray(truth)
        if orientation == 6:
            mask = mask.transpose(turn)
        mask.save(tmp_path / "masks" / f"upright_{orientation}.png")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 8
    Image.fromarray(truth).transpose(turns[8]).save(tmp_path / "masks" / "upright_8.png", exif=exif)
    done = run_job(tmp_path / "out", "--input", tmp_path / "images", "--ground_truth", tmp_path / "masks")
    assert done.status == 0, done.failures
    upright = done.masks["upright.png"]
    assert upright.shape == (72, 120)
    rows = [replace_ids(row) for row in done.rows]
    assert all(row == rows[0] for row in rows)
    assert all(np.array_equal(mask, upright) for mask in done.masks.values())


def replace_ids(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("image_id", "source_uri", "mask_uri", "source_bytes")}


def test_pictures_below_a_thousand_folders_come_to_masks_or_failures(some: Archive, tmp_path: Path) -> None:
    picture = (some.images / "palette.gif").read_bytes()
    deep = tmp_path / "in" / "/".join("d" * 1_100)
    try:
        make_deep(deep, picture)
        Path(tmp_path, "in", "palette.gif").write_bytes(picture)
        done = run_job(tmp_path / "out", "--input", tmp_path / "in")
        again = run_job(tmp_path / "out", "--input", tmp_path / "in" / "**" / "*.gif")
        assert (done.status, again.status) == (0, 0), done.err
        assert [row["image_id"] for row in done.rows] == ["d/" * 1_100 + "a.gif", "palette.gif"]
        assert again.summary["run"]["resumed"] == 2
        # A path that no call of the system takes: a line, and the others are done.
        make_deep(tmp_path / "in" / "/".join(["long_name"] * 500), picture)
        done = run_job(tmp_path / "longer", "--input", tmp_path / "in")
        assert done.status == 3
        assert [(line["image_id"], line["stage"], line["error_type"]) for line in done.failures] == [
            ("long_name/" * 500 + "a.gif", "read", "Unreadable")
        ]
        assert len(done.rows) == 2
    finally:
        # `shutil.rmtree`, by which pytest cleans up, recurses.
        subprocess.run(["rm", "-rf", *(str(tmp_path / name) for name in ("in", "out", "longer"))], check=True)


def make_deep(folder: Path, picture: bytes) -> None:
    """Makes nested folders level by level, and a picture in the last."""
    descriptor = os.open("/", os.O_RDONLY)
    for name in folder.parts[1:]:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    file = os.open("a.gif", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    os.write(file, picture)
    os.close(file)
    os.close(descriptor)


def test_a_glob_follows_no_loop_of_links(some: Archive, tmp_path: Path) -> None:
    (some.images / "loop").symlink_to(some.images)
    done = run_job(tmp_path / "out", "--input", some.images / "**" / "*.jpg")
    assert done.status == 0
    assert sorted(done.masks) == [name for name in some.image_ids if name.endswith(".jpg")]


def test_endings_may_be_wrong_and_links_are_followed(some: Archive, tmp_path: Path) -> None:
    (some.images / "link.png").symlink_to(some.images / "sideways.jpg")
    (some.images / "loop").symlink_to(some.images)
    (some.images / "gone.png").symlink_to(some.images / "nowhere.png")
    Image.fromarray(draw_picture(3, 60, 60)).save(some.images / "webp.jpeg", "WEBP", lossless=True)
    done = run_job(tmp_path / "out", "--input", some.images)
    assert [(line["image_id"], line["stage"], line["error_type"]) for line in done.failures] == [
        ("gone.png", "read", "Missing")
    ]
    assert np.array_equal(done.masks["link.png"], done.masks["sideways.jpg"])
    expected, sure = expected_mask(upright_pixels(some.images / "webp.jpeg"))
    assert np.array_equal(done.masks["webp.jpeg"][sure], expected[sure])


# Sources.


def test_manifests_name_pictures_masks_and_ids(some: Archive, scored_job: Finished, tmp_path: Path) -> None:
    rows = [
        {"image": f"images/{image_id}", "mask": str(some.mask_path(image_id)), "image_id": f"id_{n}", "site": "x"}
        for n, image_id in enumerate(some.image_ids)
    ]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "list.csv").write_text(
        "\n".join(["image,mask,image_id,site", *(",".join(row.values()) for row in rows)]) + "\n"
    )
    as_json = run_job(tmp_path / "json", "--input", tmp_path / "list.jsonl")
    as_csv = run_job(tmp_path / "csv", "--input", tmp_path / "list.csv")
    assert (as_json.status, as_csv.status) == (0, 0)
    assert as_json.contents() == as_csv.contents()
    assert but_run(as_json.summary) == but_run(as_csv.summary)
    assert as_json.summary["images"]["with_ground_truth"] == 4
    for n, image_id in enumerate(some.image_ids):
        assert np.array_equal(as_json.masks[f"id_{n}"], scored_job.masks[image_id])


def test_a_duplicate_id_and_a_missing_file_of_a_manifest_are_failures(some: Archive, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "image,image_id\nimages/sideways.jpg,same\nimages/palette.gif,same\nimages/none.png,none\n,nothing\n"
    )
    done = run_job(tmp_path / "out", "--input", manifest)
    assert done.status == 3
    found = {(line["image_id"], line["stage"], line["error_type"]) for line in done.failures}
    assert found == {("same", "locate", "DuplicateId"), ("none", "read", "Missing"), ("", "locate", "NoImage")}
    assert list(done.masks) == ["same"]
    assert done.summary["images"]["found"] == 4


def test_several_sources_are_prefixed_and_their_masks_with_them(some: Archive, tmp_path: Path) -> None:
    photos, truths = tmp_path / "photos", tmp_path / "truths"
    shutil.copytree(some.images, photos)
    shutil.copytree(some.masks, truths)
    done = run_job(
        *(tmp_path / "out", "--input", some.images, "--input", photos / "*.jpg"),
        *("--ground_truth", some.masks, "--ground_truth", truths),
    )
    assert done.status == 0
    plain = [name for name in some.image_ids if "/" not in name and name.endswith(".jpg")]
    assert sorted(done.masks) == sorted([f"images/{i}" for i in some.image_ids] + [f"photos/{i}" for i in plain])
    images = done.summary["images"]
    # The second source's masks of pictures that its glob leaves out.
    assert (images["with_ground_truth"], images["unpaired_truth"]) == (6, 2)


def test_pictures_of_equal_stem_share_one_mask(some: Archive, tmp_path: Path) -> None:
    Image.open(some.images / "palette.gif").convert("RGB").save(some.images / "palette.png")
    done = run_job(tmp_path / "out", "--input", some.images, "--ground_truth", some.masks)
    assert done.status == 0
    assert {"palette.gif", "palette.png"} <= set(done.masks)
    assert done.summary["images"]["with_ground_truth"] == 5


# Labels.


def test_a_label_map_and_an_ignore_label(some: Archive, tmp_path: Path) -> None:
    ignored = 0
    raw = np.array([30, 10, 20], np.uint8)
    plain = run_job(tmp_path / "plain", "--input", some.images, "--ground_truth", some.masks).summary
    for image_id in some.image_ids:
        truth = raw[some.truth(image_id)]
        truth[:3] = 255
        ignored += truth[:3].size
        save_mask(some.mask_path(image_id), truth)
    done = run_job(
        *(tmp_path / "out", "--input", some.images, "--ground_truth", some.masks),
        *("--label_map", "30=0,10=1,20=2", "--ignore_label", 255),
    )
    assert done.status == 0
    counts = np.sum(done.summary["confusion_matrix"]["counts"])
    assert counts == np.sum(plain["confusion_matrix"]["counts"]) - ignored
    assert [entry["area"] for entry in done.summary["classes"]] == [entry["area"] for entry in plain["classes"]]
    without = run_job(
        *(tmp_path / "without", "--input", some.images, "--ground_truth", some.masks),
        *("--label_map", "30=0,10=1,20=2"),
    )
    assert (without.status, len(without.failures)) == (3, 4)
    assert all("255" in line["message"] for line in without.failures)


def test_the_models_own_label_map_and_ignore_label_are_used(some: Archive, tmp_path: Path) -> None:
    raw, ignored = np.array([30, 10, 20], np.uint8), 0
    plain = run_job(tmp_path / "plain", "--input", some.images, "--ground_truth", some.masks).summary
    for image_id in some.image_ids:
        truth = raw[some.truth(image_id)]
        truth[:3] = 99
        ignored += truth[:3].size
        save_mask(some.mask_path(image_id), truth)
    model = Path(shutil.copytree(TINY_MODEL, tmp_path / "model"))
    metadata = json.loads((model / "metadata.json").read_text("utf-8"))
    metadata |= {"label_map": {"30": 0, "10": 1, "20": 2}, "ignore_label": 99}
    (model / "metadata.json").write_text(json.dumps(metadata), "utf-8")
    sources = ("--input", some.images, "--ground_truth", some.masks)
    done = run_job(tmp_path / "out", *sources, model=model)
    assert done.status == 0, done.failures
    counts = np.array(done.summary["confusion_matrix"]["counts"])
    assert counts.sum() == np.sum(plain["confusion_matrix"]["counts"]) - ignored
    # The options win over both.
    done = run_job(tmp_path / "out", *sources, "--label_map", "30=0,10=0,20=0,99=1", "--ignore_label", 98, model=model)
    assert done.status == 0, done.failures
    rows = np.sum(done.summary["confusion_matrix"]["counts"], axis=1).tolist()
    assert rows == [counts.sum(), ignored, 0]


def test_colour_masks_by_their_colours(some: Archive, scored_job: Finished, tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    for image_id in some.image_ids:
        Image.fromarray(colors[some.truth(image_id)]).save(some.mask_path(image_id))
    done = run_job(
        *(tmp_path / "out", "--input", some.images, "--ground_truth", some.masks),
        *("--label_map", "#ff0000=0,#00ff00=1,#0000ff=2"),
    )
    assert done.status == 0
    accuracy = {row["image_id"]: row["pixel_accuracy"] for row in scored_job.rows}
    assert {row["image_id"]: row["pixel_accuracy"] for row in done.rows} == {i: accuracy[i] for i in some.image_ids}


def test_pixels_of_an_ignored_colour_or_a_negative_value_are_ignored(some: Archive, tmp_path: Path) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    ignored, (signed, colored) = 0, (tmp_path / name for name in ("signed", "colored"))
    plain = run_job(tmp_path / "plain", "--input", some.images, "--ground_truth", some.masks).summary
    for image_id in some.image_ids:
        truth = some.truth(image_id)
        ignored += truth[:3].size
        for folder, pixels, void in ((signed, truth.astype(np.int32), -1), (colored, colors[truth], (9, 8, 7))):
            pixels[:3] = void
            path = (folder / image_id).with_suffix(".tif")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    for folder, options in (
        (signed, ("--ignore_label", -1)),
        (colored, ("--label_map", "#ff0000=0,#00ff00=1,#0000ff=2", "--ignore_label", "#090807")),
    ):
        output = tmp_path / f"out_{folder.name}"
        done = run_job(output, "--input", some.images, "--ground_truth", folder, *options)
        assert done.status == 0, done.failures
        counts = np.sum(done.summary["confusion_matrix"]["counts"])
        assert counts == np.sum(plain["confusion_matrix"]["counts"]) - ignored
        without = run_job(output, "--input", some.images, "--ground_truth", folder, *options[:-2])
        assert {line["error_type"] for line in without.failures} == {"UnknownLabels"}
        assert all(str(options[-1]) in line["message"] for line in without.failures)


# Running again.


def test_a_second_model_or_archive_leaves_no_row_of_the_first(some: Archive, tmp_path: Path) -> None:
    first = run_job(tmp_path / "out", "--input", some.images)
    assert len(first.rows) == 4
    (some.images / "palette.gif").unlink()
    stale = first.output / "images" / "part-00001-of-00002.parquet"
    shutil.copy(first.output / "images" / "part-00000-of-00001.parquet", stale)
    second = run_job(tmp_path / "out", "--input", some.images, "--prune")
    assert second.status == 0
    assert [row["image_id"] for row in second.rows] == sorted(set(some.image_ids) - {"palette.gif"})
    assert not stale.exists()
    assert second.summary["images"]["found"] == 3


# What is said where nothing can be done: one line, status 2, and no output.


def refused(tmp_path: Path, *arguments: object, model: object = TINY_MODEL, output: Path | None = None) -> str:
    target = output or tmp_path / "refused"
    done = run_job(target, *arguments, model=str(model))
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("maskbeam: ")
    assert not (target / "summary.json").exists()
    return line.removeprefix("maskbeam: ")


def test_sources_that_are_not_there(some: Archive, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("")
    (tmp_path / "headless.csv").write_text("picture\na.png\n")
    (tmp_path / "broken.jsonl").write_text("{\n")
    (tmp_path / "rows.csv").write_text("image\n")
    (tmp_path / "2" / "images").mkdir(parents=True)
    for source, said in (
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "empty", "holds no picture"),
        (tmp_path / "texts", "holds no picture"),
        (some.images / "*.bmp", "holds no picture"),
        (tmp_path / "rows.csv", "holds no picture"),
        (tmp_path / "headless.csv", "no column 'image'"),
        (tmp_path / "broken.jsonl", "is not JSON"),
        (tmp_path / "texts" / "a.txt", "neither a folder"),
    ):
        assert said in refused(tmp_path, "--input", source)
    line = refused(tmp_path, "--input", some.images, "--input", tmp_path / "2" / "images")
    assert "two sources have the base name 'images'" in line
    line = refused(tmp_path, "--input", some.images, "--ground_truth", tmp_path / "nowhere")
    assert line.startswith("--ground_truth")
    line = refused(tmp_path, "--input", some.images, "--ground_truth", some.masks, "--ground_truth", some.masks)
    assert "--ground_truth is given 2 times and --input 1 times" in line


def test_an_output_whose_masks_would_be_pictures(some: Archive, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(some.images)
    (some.images / "to_out").symlink_to(tmp_path / "elsewhere")
    for source, output in (
        (some.images, some.images / "out"),
        (some.images / "**" / "*", some.images / "out"),
        (some.images / "**" / "*[fg]", some.images),
        (some.images / "**" / "pal*", some.images),
        (tmp_path / "link", some.images / "out"),
        (some.images, tmp_path / "link" / "out"),
        (tmp_path / "link" / "**", some.images / "out"),
        (some.images / "**" / "*.*", tmp_path / "link" / "out"),
    ):
        line = refused(tmp_path, "--input", source, output=output)
        assert line == f"--output {output} is within {source}: its masks would be taken for pictures"
    # Patterns that no mask matches, and a link that the walk does not follow.
    for number, (source, output) in enumerate(
        (
            (some.images / "*.gif", some.images / "out"),
            (some.images / "**" / "*.gif", some.images / "out"),
            (some.images / "**" / "*", tmp_path / "images_too"),
            (some.images / "north" / "*", some.images / "out"),
            (some.images / "pal*", some.images),
            (some.images, tmp_path / "elsewhere"),
        )
    ):
        assert run_job(output, "--input", source, "--existing", "overwrite").status == 0, number


def test_models_that_are_none(some: Archive, tmp_path: Path) -> None:
    assert "neither a folder nor one of the carried models" in refused(tmp_path, "--input", some.images, model="unet")
    assert "metadata.json can't be read" in refused(tmp_path, "--input", some.images, model=some.images)
    spoiled = Path(shutil.copytree(TINY_MODEL, tmp_path / "spoiled"))
    with (spoiled / "model.tflite").open("ab") as file:
        file.write(b"\0")
    assert "digest" in refused(tmp_path, "--input", some.images, model=spoiled)


def test_labels_that_do_not_fit_the_model(some: Archive, tmp_path: Path) -> None:
    for label_map, said in (
        ("0=3", "class id 3"),
        ("x=1", "neither a value"),
        ("0", "RAW=CLASS_ID"),
        ("", "RAW=CLASS_ID"),
    ):
        line = refused(tmp_path, "--input", some.images, "--ground_truth", some.masks, "--label_map", label_map)
        assert said in line


def test_an_output_that_cannot_be_written(some: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        line = refused(tmp_path, "--input", some.images, output=output)
        assert line.startswith("--output")
        assert f"{output} can't be " in line
    assert (tmp_path / "file").read_text() == "kept"


# What is said where the job breaks: one line, status 1.


def unlike_its_metadata(folder: Path) -> str:
    metadata = json.loads((folder / "metadata.json").read_text("utf-8"))
    metadata["classes"].append({"class_id": 3, "name": "white", "color": "#ffffff"})
    (folder / "metadata.json").write_text(json.dumps(metadata), "utf-8")
    return "the engine's output has shape (1, 32, 32, 3), but the metadata has 4 classes"


def no_model_at_all(folder: Path) -> str:
    metadata = json.loads((folder / "metadata.json").read_text("utf-8")) | {"files": {}}
    (folder / "metadata.json").write_text(json.dumps(metadata), "utf-8")
    (folder / "model.tflite").write_bytes(b"garbage")
    return "the engine fails on a plain picture: LiteRT can't load the model"


@pytest.mark.parametrize("spoil", [unlike_its_metadata, no_model_at_all])
@pytest.mark.parametrize("mode", ["in_memory", "multi_threading", "multi_processing"])
def test_a_broken_engine_ends_the_job_at_once(
    some: Archive, tmp_path: Path, mode: str, spoil: Callable[[Path], str]
) -> None:
    if mode == "multi_processing" and spoil is no_model_at_all:
        pytest.skip("processes take seconds to start; the other model is enough")
    folder = Path(shutil.copytree(TINY_MODEL, tmp_path / "model"))
    said = spoil(folder)
    done = run_job(
        *(tmp_path / "out", "--input", some.images, "--direct_running_mode", mode, "--direct_num_workers", 2),
        model=folder,
    )
    assert (done.status, done.out) == (1, "")
    *before, stopped, line = done.err.splitlines()
    assert all(SLOW_MACHINE.fullmatch(other) for other in before)
    assert stopped.startswith("maskbeam: stopped after 0 ")
    assert line.startswith(f"maskbeam: {said}")
    assert "while running" not in line
    assert not (done.output / "summary.json").exists()


def test_an_output_that_breaks_on_the_way_ends_the_job(
    some: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.storage import storage

    write_bytes = storage.write_bytes

    def full(uri: str, data: bytes, *more: Any) -> None:
        if "/masks/" in uri:
            raise OSError(28, "No space left on device")
        write_bytes(uri, data, *more)

    monkeypatch.setattr(storage, "write_bytes", full)
    done = run_job(tmp_path / "out", "--input", some.images)
    assert done.status == 1
    line = done.err.splitlines()[-1]
    assert line.startswith("maskbeam: the output can't be written: masks/")
    assert line.endswith("No space left on device")


def test_a_bug_is_never_suppressed(some: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.output import mask_output

    def defect(*_: object) -> None:
        raise AssertionError("this was never to happen")

    monkeypatch.setattr(mask_output, "encode_mask", defect)
    with pytest.raises((AssertionError, RuntimeError), match="this was never to happen"):
        run_job(tmp_path / "out", "--input", some.images)


@pytest.mark.parametrize(
    "mode",
    ["in_memory", *(pytest.param(mode, marks=pytest.mark.full) for mode in ("multi_threading", "multi_processing"))],
)
def test_ctrl_c_ends_the_job_with_one_line_and_no_partial_files(some: Archive, tmp_path: Path, mode: str) -> None:
    picture = some.images / "sideways.jpg"
    for number in range(4_000):
        (some.images / f"{number}.jpg").hardlink_to(picture)
    output = tmp_path / "out"
    options = ["--direct_running_mode", mode, "--direct_num_workers", "1" if mode == "in_memory" else "2"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pipeline", "--input", str(some.images), "--model", str(TINY_MODEL)),
            *("--output", str(output), *options),
        ],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("masks/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # As a terminal does it: the whole group of processes.
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    *before, stopped, said = err.splitlines()
    assert all(SLOW_MACHINE.fullmatch(other) for other in before), err
    assert stopped.startswith("maskbeam: stopped after ")
    assert said.startswith("maskbeam: interrupted")
    assert not (output / "summary.json").exists()
    for mask in list(output.glob("masks/*.png"))[:50]:
        Image.open(mask).load()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_an_unknown_runner_is_refused(some: Archive, tmp_path: Path) -> None:
    assert refused(tmp_path, "--input", some.images, "--runner", "NoSuchRunner").startswith("--runner NoSuchRunner: ")


@pytest.mark.parametrize("name", ["DirectRunner", "FnApiRunner", "direct", "directrunner"])
def test_the_local_runner_by_all_its_names(name: str) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from pipeline.app.runner import choose_runner

    runner = choose_runner(PipelineOptions(["--runner", name]))
    assert (runner.name, runner.is_local, runner.is_waited_for) == ("DirectRunner", True, True)
    assert type(runner.runner) is FnApiRunner


def test_parquet_reads_as_one_table(scored_job: Finished) -> None:
    table = pq.read_table(scored_job.output / "images")
    assert table.num_rows == 20
    assert table.schema.field("image_id").type == "string"


def test_secrets_of_the_options_are_written_nowhere(some: Archive, tmp_path: Path) -> None:
    secrets = {"--s3_secret_access_key": "SECRET-KEY-e1f9", "--s3_session_token": "SESSION-TOKEN-77ab"}
    (some.images / "broken.png").write_bytes(b"no picture")
    for number, mode in enumerate(("in_memory", "multi_processing")):
        options = [f"{name}={value}" for name, value in secrets.items()]
        options += [f"--direct_running_mode={mode}", "--direct_num_workers=2"]
        done = run_process(tmp_path / "out", "--input", some.images, "--overlays", 2, *options, "--existing=overwrite")
        assert done.status == 3, done.err
        assert done.summary["run"]["options"]["overlays"] == 2
        written = [path for path in done.output.rglob("*") if path.is_file()]
        assert {path.name for path in written} >= {"summary.json", "report.html", "failures.jsonl"}
        contents = {path: path.read_bytes() for path in written}
        contents |= {path: gzip.decompress(content) for path, content in contents.items() if path.name.endswith(".gz")}
        for secret in secrets.values():
            assert secret not in done.out + done.err
            assert [path for path, content in contents.items() if secret.encode() in content] == [], number


def test_worker_processes_get_the_options() -> None:
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
    from google.protobuf.json_format import MessageToDict

    from pipeline.app.runner import choose_runner

    arguments = [
        "--direct_running_mode=multi_processing",
        "--direct_num_workers=2",
        "--s3_endpoint_url=http://localhost:1",
    ]
    options = PipelineOptions(arguments)
    runner = choose_runner(options)
    assert runner.is_local
    # Without these a worker would look for the bucket where it is not.
    sent = MessageToDict(runner.runner._provision_info.provision_info.pipeline_options)
    assert sent["beam:option:s3_endpoint_url:v1"] == "http://localhost:1"
    # Left as it was, the runner would put Beam's own worker in the place of ours.
    assert options.view_as(DirectOptions).direct_running_mode == "in_memory"
    assert runner.runner._default_environment.command_string.endswith("-m pipeline.app.local_worker")
