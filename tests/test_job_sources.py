"""Whole runs over every shape of folders, globs and manifests."""

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_runs import but_run
from permissions import forbid
from PIL import Image
from small_archive import (
    EXIF_ORIENTATION,
    Archive,
    Finished,
    draw_picture,
    draw_truth,
    expected_mask,
    run_job,
    save_mask,
    upright_pixels,
)


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


@pytest.mark.parametrize("pattern", ["", "**/*", "*/*"])
def test_a_folder_without_permission_is_a_failure_and_the_others_are_segmented(
    pattern: str, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("images/a", "images/lost+found", "masks/a", "masks/lost+found"):
        (tmp_path / name).mkdir(parents=True)
    image_id = archive.image_ids[0]
    picture = tmp_path / "images" / "a" / Path(image_id).name
    shutil.copy(archive.images / image_id, picture)
    shutil.copy(archive.mask_path(image_id), tmp_path / "masks" / "a" / f"{picture.stem}.png")
    forbid(tmp_path / "images" / "lost+found", monkeypatch)
    forbid(tmp_path / "masks" / "lost+found", monkeypatch)
    images, masks = tmp_path / "images" / pattern, tmp_path / "masks" / pattern
    done = run_job(tmp_path / "out", "--input", images, "--ground_truth", masks)
    assert done.status == 3, done.err
    assert [row["image_id"] for row in done.rows] == [f"a/{picture.name}"]
    counted = {name: done.summary["images"][name] for name in ("found", "segmented", "failed", "truth_failed")}
    assert counted == {"found": 2, "segmented": 1, "failed": 1, "truth_failed": 1}
    assert done.summary["images"]["with_ground_truth"] == 1
    assert sorted(
        (line["image_id"], line["source_uri"], line["stage"], line["error_type"]) for line in done.failures
    ) == [
        ("", str(tmp_path / "images" / "lost+found"), "locate", "Unreadable"),
        ("", str(tmp_path / "masks" / "lost+found"), "truth", "Unreadable"),
    ]
    accepted = run_job(tmp_path / "out", "--input", images, "--ground_truth", masks, "--max_failure_ratio", "1")
    assert (accepted.status, accepted.summary["run"]["resumed"]) == (0, 1)
