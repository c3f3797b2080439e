"""Model folders: found by path or name, digest checked, and refused in one line where something is wrong."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import ModelError
from pipeline.engines import model_folder as modelfolder
from pipeline.engines.model_folder import ModelFolder, carried_names, open_model


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(folder: Path, **changes: Any) -> None:
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), encoding="utf-8")


def refusal(name: object, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        open_model(str(name), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_opened(tiny_model: Path) -> None:
    model = open_model(str(tiny_model))
    content = (tiny_model / "model.tflite").read_bytes()
    assert (model.spec.name, model.spec.num_classes, model.file) == ("tiny", 3, "model.tflite")
    assert model.digest == hashlib.sha256(content).hexdigest()
    assert model.location == model.uri == str(tiny_model)
    assert model.read() == content


def test_metadata_and_one_model_file_are_enough(folder: Path) -> None:
    (folder / "model.keras").unlink()
    change(folder, files={}, training={}, scores={}, versions={})
    assert open_model(str(folder)).read()


def test_a_relative_path_and_a_closing_slash_name_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert open_model("model/") == open_model("./model") == open_model(str(folder))


def test_carried_models_are_found_by_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = tmp_path / "carried"
    (carried / "no_model").mkdir(parents=True)
    shutil.copytree(folder, carried / "tiny")
    monkeypatch.setattr(modelfolder, "_CARRIED", str(carried))
    monkeypatch.chdir(tmp_path)
    assert carried_names() == ["tiny"]
    model = open_model("tiny")
    # A worker on another machine finds it by its name, wherever the package is installed.
    assert (model.location, model.uri) == ("tiny", str(carried / "tiny"))
    assert model.read() == (folder / "model.tflite").read_bytes()
    assert "one of the carried models (tiny)" in refusal("no_model")


def test_a_folder_wins_over_a_carried_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = tmp_path / "carried"
    shutil.copytree(folder, carried / "model")
    monkeypatch.setattr(modelfolder, "_CARRIED", str(carried))
    monkeypatch.chdir(tmp_path)
    assert open_model("model").location == str(folder)


def test_carried_models_are_complete() -> None:
    for name in carried_names():
        model = open_model(name)
        assert model.file in model.spec.files
        assert model.spec.training


def test_a_name_that_is_nothing(tmp_path: Path) -> None:
    assert "neither a folder nor one of the carried models" in refusal("no_such_model")
    assert "neither a folder" in refusal(tmp_path / "nowhere")
    assert "metadata.json can't be read" in refusal(tmp_path)


def test_what_is_in_the_folder_must_fit(folder: Path) -> None:
    original = (folder / "metadata.json").read_bytes()
    for content, said in (
        (b"", "metadata.json is not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (original.replace(b'"schema_version": 1', b'"schema_version": 2'), "schema_version 2"),
        (original.replace(b'"classes"', b'"kinds"'), "'classes' is missing"),
    ):
        (folder / "metadata.json").write_bytes(content)
        message = refusal(folder)
        assert said in message
        assert message.startswith(f"--model {folder}: ")


def test_another_file_than_the_metadata_names_is_refused(folder: Path) -> None:
    (folder / "model.tflite").write_bytes(b"something else")
    assert "model.tflite has another digest than in metadata.json" in refusal(folder)
    (folder / "model.tflite").unlink()
    assert "model.tflite can't be read" in refusal(folder)


def test_the_quantised_file_is_asked_for_by_precision(folder: Path) -> None:
    assert "model_int8.tflite can't be read" in refusal(folder, precision="int8")
    shutil.copy(folder / "model.tflite", folder / "model_int8.tflite")
    assert open_model(str(folder), precision="int8").file == "model_int8.tflite"


def test_a_file_that_changes_while_the_job_runs_is_noticed(folder: Path) -> None:
    model: ModelFolder = open_model(str(folder))
    (folder / "model.tflite").write_bytes(b"swapped")
    with pytest.raises(ModelError, match="has changed since the job began"):
        model.read()


@pytest.mark.parametrize("has_checkpoint", [True, False])
def test_an_unfinished_training_says_how_to_finish_it(tmp_path: Path, has_checkpoint: bool) -> None:
    folder = tmp_path / "mine"
    (folder / "training").mkdir(parents=True)
    if has_checkpoint:
        (folder / "training" / "checkpoint.npz").write_bytes(b"PK")
    said = refusal(folder)
    assert "its training has not finished" in said
    assert f"`python -m model train … --output {folder}` with --resume" in said


def test_a_folder_without_a_model_is_no_unfinished_training(tmp_path: Path) -> None:
    said = refusal(tmp_path)
    assert "metadata.json can't be read" in said
    assert "training" not in said
