"""int8 against float32: what it costs is measured on the job's own pictures, and said."""

import shutil
from pathlib import Path

import pytest
from small_archive import Archive, Finished, run_job

from pipeline.engines.backends import backend_named
from pipeline.engines.model_folder import folder_of


@pytest.fixture(scope="module")
def pair(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """The same archive in both precisions, fewer pictures than are compared."""
    folder = tmp_path_factory.mktemp("precision")
    sources = ("--input", archive.images, "--ground_truth", archive.masks)
    return {
        precision: run_job(folder / precision, *sources, "--precision", precision, model="shapes")
        for precision in ("int8", "float32")
    }


def test_the_cost_is_that_of_two_whole_jobs(pair: dict[str, Finished]) -> None:
    int8, whole = pair["int8"].summary, pair["float32"].summary
    assert int8["run"]["precision_cost"] == {
        "pictures": int8["images"]["with_ground_truth"],
        "global_mean_iou_int8": int8["metrics"]["global_mean_iou"],
        "global_mean_iou_float32": whole["metrics"]["global_mean_iou"],
    }
    assert int8["metrics"]["global_mean_iou"] != whole["metrics"]["global_mean_iou"]
    assert "precision_cost" not in whole["run"]


def test_the_terminal_says_it(pair: dict[str, Finished]) -> None:
    (line,) = [line for line in pair["int8"].out.splitlines() if line.startswith("int8: ")]
    scores = [pair[precision].summary["metrics"]["global_mean_iou"] for precision in ("int8", "float32")]
    assert f"mean IoU {scores[0]:.3f} in place of float32's {scores[1]:.3f}" in line
    assert f"({scores[0] - scores[1]:+.4f})" in line
    assert "int8: " not in pair["float32"].out


def test_nothing_is_compared_without_truth_or_without_the_float_file(archive: Archive, tmp_path: Path) -> None:
    alone = run_job(tmp_path / "alone", "--input", archive.images, "--precision", "int8", model="shapes")
    assert alone.status == 0
    assert "precision_cost" not in alone.summary["run"]
    model = tmp_path / "model"
    shutil.copytree(folder_of("shapes"), model)
    (model / "model.tflite").unlink()
    sources = ("--input", archive.images, "--ground_truth", archive.masks)
    int8 = run_job(tmp_path / "int8", *sources, "--precision", "int8", model=model)
    assert int8.status == 0
    assert "precision_cost" not in int8.summary["run"]


def test_what_is_compared_leaves_the_outputs_alone(pair: dict[str, Finished]) -> None:
    assert set(pair["int8"].contents()) == set(pair["float32"].contents())


def test_litert_takes_a_picture_at_a_time_and_tensorflow_many() -> None:
    assert [backend_named(name).batch_size for name in ("auto", "litert", "tensorflow")] == [1, 1, 32]
