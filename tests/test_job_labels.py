"""Whole runs with label maps and ignore labels, of numbers and of colours."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from small_archive import (
    TINY_MODEL,
    Archive,
    Finished,
    run_job,
    save_mask,
)


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
