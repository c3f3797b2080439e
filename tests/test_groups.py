"""Groups: scores and areas for parts of an archive, named by a manifest's column or found in the ids."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_archive import Archive, Finished, run_job

from pipeline.core import groups as core_groups


def _manifest(archive: Archive, path: Path) -> Path:
    """A manifest that gives each picture's mask and a colour by the number of letters in its id."""
    rows = [
        {
            "image": str(archive.images / image_id),
            "image_id": image_id,
            "mask": str(archive.mask_path(image_id)),
            "camera": ["left", "right"][len(image_id) % 2],
        }
        for image_id in archive.image_ids
    ]
    rows[0].pop("camera")
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["camera", "image_id", "mask", "image"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_manifest_column_groups_pictures(ending: str, archive: Archive, scored_job: Finished, tmp_path: Path) -> None:
    manifest = _manifest(archive, tmp_path / f"m{ending}")
    job = run_job(tmp_path / "out", "--input", manifest, "--group_by", "camera")
    assert job.status == 0, job.err
    groups = job.summary["groups"]
    assert set(groups) == {"", "left", "right"}
    assert groups[""]["images"]["segmented"] == 1
    matrices = [np.array(group["confusion_matrix"]["counts"]) for group in groups.values()]
    assert np.array_equal(sum(matrices), scored_job.summary["confusion_matrix"]["counts"])
    assert job.summary["confusion_matrix"] == scored_job.summary["confusion_matrix"]
    for name, group in groups.items():
        rows = [row for row in job.rows if (row["group"] or "") == name]
        assert group["images"] == {"segmented": len(rows), "with_ground_truth": len(rows)}
        assert group["classes"][0]["area"]["px"] == sum(row["area_px_red"] for row in rows)
    assert "right" in (job.output / "report.html").read_text("utf-8")


def test_a_regular_expression_groups_pictures_by_their_ids(archive: Archive, tmp_path: Path) -> None:
    job = run_job(tmp_path / "out", "--input", archive.images, "--group_by_regex", "^([^/]+)/")
    groups = job.summary["groups"]
    north = [image_id for image_id in archive.image_ids if image_id.startswith("north/")]
    assert {name: group["images"]["segmented"] for name, group in groups.items()} == {
        "north": len(north),
        "": len(archive.image_ids) - len(north),
    }
    assert groups["north"]["metrics"]["global_mean_iou"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group_by", "camera"], "no manifest of --input has such a column"),
        (["--group_by", "image"], "each picture would be a group"),
        (["--group_by", "image_id"], "each picture would be a group"),
        (["--group_by", "mask"], "each picture would be a group"),
        (["--group_by_regex", "no group"], "has no group"),
        (["--group_by_regex", "(open"], "not a regular expression"),
        (["--group_by_regex", "(a)", "--group_by", "b"], "not allowed with"),
    ],
)
def test_impossible_groups_are_reported_before_any_work(
    options: list[str], message: str, archive: Archive, tmp_path: Path
) -> None:
    job = run_job(tmp_path / "out", "--input", archive.images, *options)
    assert job.status == 2
    assert message in job.err
    assert len(job.err.splitlines()) == 1


def test_colour_masks_are_scored_by_their_colours(archive: Archive, scored_job: Finished, tmp_path: Path) -> None:
    colors = np.array([(255, 0, 0), (1, 2, 3), (0, 0, 254)], np.uint8)
    for image_id in archive.image_ids:
        path = (tmp_path / "masks" / image_id).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors[archive.truth(image_id)]).save(path)
    sources = ["--input", archive.images, "--ground_truth", tmp_path / "masks"]
    job = run_job(tmp_path / "out", *sources, "--label_map", "#ff0000=0,#010203=1,#0000FE=2")
    assert job.status == 0
    assert job.summary["confusion_matrix"] == scored_job.summary["confusion_matrix"]
    unnamed = run_job(tmp_path / "unnamed", *sources, "--label_map", "#ff0000=0,#010203=1")
    assert unnamed.status == 3
    assert {failure["error_type"] for failure in unnamed.failures} == {"UnknownLabels"}
    assert all("#0000fe" in failure["message"] for failure in unnamed.failures)


def test_many_groups_have_no_intervals_and_too_many_are_not_summed(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--input", archive.images, "--ground_truth", archive.masks, "--group_by_regex", "(picture_[0-9]+)"]
    few = run_job(tmp_path / "few", *options).summary
    assert len(few["groups"]) == 16  # fifteen, and one without a name of the five other pictures
    note = "too few pictures: 5, and an interval needs 10"
    assert few["groups"][""]["metrics"]["pixel_accuracy_ci95_note"] == note
    monkeypatch.setattr(core_groups, "MAX_GROUP_CLASSES_WITH_INTERVALS", 47)
    many = run_job(tmp_path / "many", *options).summary
    assert list(many["groups"]) == list(few["groups"])
    for name, group in many["groups"].items():
        expected = few["groups"][name]
        for row, expected_row in zip(group["classes"], expected["classes"], strict=True):
            assert row["area"] == expected_row["area"]
            assert {**row, "iou_ci95": 0, "iou_ci95_note": 0, "dice_ci95": 0, "dice_ci95_note": 0} == {
                **expected_row, "iou_ci95": 0, "iou_ci95_note": 0, "dice_ci95": 0, "dice_ci95_note": 0,
            }  # fmt: skip
            assert row["iou_ci95"] is None
        assert group["metrics"]["pixel_accuracy"] == expected["metrics"]["pixel_accuracy"]
        assert group["metrics"]["pixel_accuracy_ci95"] is None
        assert group["metrics"]["pixel_accuracy_ci95_note"] == "not computed for so many groups"
        assert group["confusion_matrix"] == expected["confusion_matrix"]
    assert many["metrics"] == few["metrics"]
    monkeypatch.setattr(core_groups, "MAX_GROUPS", 15)
    none = run_job(tmp_path / "none", *options)
    assert none.status == 0
    assert none.summary["groups"] == {}
    assert none.summary["groups_note"].startswith("16 groups are too many to sum; at most 15 are")
    assert none.summary["groups_note"] in (none.output / "report.html").read_text("utf-8")
    assert {"groups_note"} & (set(few) | set(many)) == set()
    assert none.summary["metrics"] == few["metrics"]
    assert len({row["group"] for row in none.rows}) == 16
