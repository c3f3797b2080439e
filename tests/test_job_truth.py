"""Whole runs with ground truth: broken truth is a failure, and truth that can't pair is refused."""

import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from job_runs import break_five, but_run, refused
from small_archive import (
    Archive,
    Finished,
    run_job,
    save_mask,
)


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
        (tmp_path / "empty", "has no mask"),
        (some.masks / "*.bmp", "has no mask"),
        (some.masks / "*.tar", "has no mask"),
        (tmp_path / "texts.tar", "has no mask"),
        (tmp_path / "rows.csv", "has no mask"),
        (tmp_path / "noise.tar", "has no mask that can be read: "),
        (tmp_path / "lzma.zip", "has no mask that can be read: "),
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
