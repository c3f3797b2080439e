"""Whole runs of the command on an archive whose masks are known: what comes out, however it is run."""

import gzip
import json
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from job_runs import SLOW_MACHINE, but_run, run_process
from small_archive import (
    CLASS_NAMES,
    TINY_MODEL,
    Archive,
    Finished,
    expected_mask,
    run_job,
)

from pipeline.core.scores import confusion_matrix, iou_per_class


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
