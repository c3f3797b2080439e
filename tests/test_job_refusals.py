"""Whole runs that can't be: one line on standard error, status 2 before any work, 1 where the job breaks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from job_runs import ROOT, SLOW_MACHINE, refused
from PIL import Image
from small_archive import (
    TINY_MODEL,
    Archive,
    run_job,
)


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
        (tmp_path / "empty", "has no picture"),
        (tmp_path / "texts", "has no picture"),
        (some.images / "*.bmp", "has no picture"),
        (tmp_path / "rows.csv", "has no picture"),
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
        assert line == f"--output {output} is within {source}: its masks would be read as pictures"
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
    from pipeline.storage import filesystem

    write_bytes = filesystem.write_bytes

    def full(uri: str, data: bytes, *more: Any) -> None:
        if "/masks/" in uri:
            raise OSError(28, "No space left on device")
        write_bytes(uri, data, *more)

    monkeypatch.setattr(filesystem, "write_bytes", full)
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
