"""The training command: a model folder that the job can run, repeatable, and one clear line for bad input."""

import csv
import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.cli import main  # noqa: E402
from model.figures import can_draw  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.samples.sample import write_sample  # noqa: E402
from model.train import train  # noqa: E402
from pipeline.core.errors import OptionError  # noqa: E402
from pipeline.core.spec import METADATA_FILE, ModelSpec  # noqa: E402
from pipeline.engines.load import load_engine  # noqa: E402
from pipeline.engines.model_folder import open_model  # noqa: E402

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 40, 3)
    return folder


def _options(sample: Path, output: Path, **changes: object) -> TrainOptions:
    plain = TrainOptions(
        str(sample),
        str(output),
        preset="chapter",
        width=8,
        image_size=(48, 64),
        epochs=3,
        batch_size=8,
        seed=1,
        augment="light",
        class_names=("background", "object", "border"),
        val_fraction=0.2,
        test_fraction=0.2,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A model folder of a few seconds' training, and what was said on the way."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    said: list[str] = []
    train(_options(sample, folder), said.append)
    return folder, said


def _log(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "training" / "log.csv").read_text())))


def test_the_folder_is_one_that_the_job_can_run(trained: tuple[Path, list[str]]) -> None:
    folder, _ = trained
    for precision in ("float32", "int8"):
        model = open_model(str(folder), precision=precision)
        assert (model.spec.height, model.spec.width, model.spec.channels) == (48, 64, 3)
        assert model.spec.class_names == ["background", "object", "border"]
        assert model.spec.name == "tiny"
        engine = load_engine(model, 1)
        for batch in (1, 3):
            logits = engine.logits(np.zeros((batch, 48, 64, 3), np.uint8))
            assert logits.shape == (batch, 48, 64, 3)
            assert not np.allclose(logits.sum(axis=-1), 1.0)


def test_the_folder_holds_what_the_contract_names(trained: tuple[Path, list[str]]) -> None:
    names = {path.name for path in trained[0].iterdir()}
    assert names == {"metadata.json", "model.keras", "model.tflite", "model_int8.tflite", "split.json", "training"}
    training = {path.name for path in (trained[0] / "training").iterdir()}
    assert training == {"checkpoint.npz", "log.csv", *(("curves.png", "examples.png") if can_draw() else ())}


def test_without_matplotlib_a_line_says_so_and_the_rest_is_done(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("model.train", "model.finish"):
        monkeypatch.setattr(f"{module}.can_draw", lambda: False)
    said: list[str] = []
    train(_options(sample, tmp_path / "out", epochs=1), said.append)
    warned = said.index("warning: no figures: matplotlib is missing: pip install 'maskbeam[train]'")
    assert warned < next(number for number, line in enumerate(said) if line.startswith("epoch"))
    assert open_model(str(tmp_path / "out")).spec.scores["pictures"] > 0
    assert not list((tmp_path / "out" / "training").glob("*.png"))


def test_the_loss_falls_and_is_logged(trained: tuple[Path, list[str]]) -> None:
    folder, said = trained
    log = _log(folder)
    assert [row["epoch"] for row in log] == ["1", "2", "3"]
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
    assert sum("validation global_mean_iou" in line and line.startswith("epoch") for line in said) == 3


def test_the_metadata_has_training_agreement_and_scores(trained: tuple[Path, list[str]]) -> None:
    spec = ModelSpec.from_json((trained[0] / METADATA_FILE).read_text())
    assert spec.training["preset"] == "chapter"
    assert spec.training["seed"] == 1
    assert spec.agreement["model.tflite"]["equal_pixels"] > 0.999
    assert abs(spec.agreement["model.tflite"]["global_mean_iou_difference"]) < 1e-3
    assert spec.agreement["model_int8.tflite"]["equal_pixels"] > 0.9
    # What the scores mean and how good they must be: tests/test_model_choice.py.
    assert set(spec.scores["classes"]) == {"background", "object", "border"}
    assert spec.scores["left_out"] == 0
    assert {"keras", "tensorflow", "numpy"} <= set(spec.versions)


def test_the_keras_file_holds_no_optimizer_and_ends_in_probabilities(trained: tuple[Path, list[str]]) -> None:
    network = keras.saving.load_model(trained[0] / "model.keras", safe_mode=True)
    assert not network.compiled
    probabilities = keras.ops.convert_to_numpy(network(np.zeros((1, 48, 64, 3), np.uint8)))
    assert np.allclose(probabilities.sum(axis=-1), 1.0, atol=1e-5)
    parameters = 4 * network.count_params()
    assert (trained[0] / "model.keras").stat().st_size < parameters + 100_000


def test_the_same_seed_gives_the_same_log(trained: tuple[Path, list[str]], sample: Path, tmp_path: Path) -> None:
    train(_options(sample, tmp_path / "again"), lambda line: None)
    assert _log(tmp_path / "again") == _log(trained[0])


def test_another_training_is_not_overwritten(trained: tuple[Path, list[str]], sample: Path) -> None:
    with pytest.raises(OptionError, match="has a training"):
        train(_options(sample, trained[0]), lambda line: None)


def test_a_checkpoint_of_other_options_is_refused(trained: tuple[Path, list[str]], sample: Path) -> None:
    with pytest.raises(OptionError, match="other options"):
        train(_options(sample, trained[0], resume=True, learning_rate=1e-3), lambda line: None)


def _fault(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs the command and returns the one line that it must end with."""
    assert main(["train", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    faults = [line for line in lines if line.startswith("maskbeam: ")]
    assert len(faults) == 1
    assert lines[-1] == faults[0]
    return faults[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dataset", "{sample}", "--output", "{out}", "--learning-rate", "1"), "--learning-rate"),
        (("--dataset", "{sample}", "--output", "{out}", "--epoch", "2"), "--epoch"),
        (("--dataset", "{sample}", "--output", "{out}", "--epochs", "0"), "--epochs"),
        (("--dataset", "{sample}", "--output", "{out}", "--warmup_epochs", "nan"), "--warmup_epochs"),
        (("--dataset", "{sample}", "--output", "{out}", "--loss", "mse"), "--loss"),
        (("--dataset", "{sample}", "--output", "{out}", "--preset", "x"), "--preset"),
        (("--dataset", "{sample}", "--output", "{out}", "--augment", "x"), "--augment"),
        (("--dataset", "{sample}", "--output", "{out}", "--image_size", "big"), "--image_size"),
        (("--dataset", "{sample}", "--output", "{out}", "--image_size", "100"), "can't be halved 5 times"),
        (("--dataset", "{sample}", "--output", "{out}", "--val_fraction", "0"), "--val_fraction"),
        (("--dataset", "{sample}", "--output", "{out}", "--label_map", "0=0,1=1"), "2"),
        (("--dataset", "{sample}", "--output", "{out}", "--class_names", "a,a"), "--class_names"),
        (("--dataset", "{sample}", "--output", "{out}", "--class_weights", "1,2"), "--class_weights"),
        (("--dataset", "{sample}/nothing", "--output", "{out}"), "no such file or folder"),
        (("--dataset", "{sample}/images", "--output", "{out}"), "no masks"),
        (
            ("--dataset", "{sample}", "--test_dataset", "{sample}/images", "--output", "{out}"),
            "--test_dataset {sample}/images: no masks",
        ),
        (("--dataset", "tfds:x", "--output", "{out}"), "tfds:NAME"),
        (("--output", "{out}"), "--dataset"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], sample: Path, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    filled = [argument.format(sample=sample, out=tmp_path / "out") for argument in arguments]
    assert words.format(sample=sample) in _fault(capsys, *filled)


def _write_pair(folder: Path, name: str, mask: np.ndarray) -> None:
    for kind, pixels in (("images", np.zeros((*mask.shape, 3), np.uint8)), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / kind / f"{name}.png")


def test_masks_that_fit_no_class_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for number in range(4):
        mask = np.zeros((20, 20), np.uint8)
        mask[5:9] = 255 * (number > 1)
        _write_pair(tmp_path / "data", f"p{number}", mask)
    data = ("--dataset", str(tmp_path / "data"), "--output", str(tmp_path / "out"))
    assert "add --label_map 0=0,255=1" in _fault(capsys, *data)
    assert "2 of 4 masks" in (line := _fault(capsys, *data, "--class_names", "a,b"))
    assert line.endswith("add --label_map 0=0,255=1")


def test_a_test_dataset_of_other_values_stops_before_the_first_epoch(
    capsys: pytest.CaptureFixture[str], sample: Path, tmp_path: Path
) -> None:
    for number in range(10):
        _write_pair(tmp_path / "test", f"p{number}", np.full((20, 20), 0 if number == 4 else 7, np.uint8))
    data = ("--dataset", str(sample), "--test_dataset", str(tmp_path / "test"), "--output", str(tmp_path / "out"))
    line = _fault(capsys, *data, "--class_names", "background,object,border")
    assert line.startswith("maskbeam: --test_dataset: 9 of 10 masks hold values that have no class (7 in 9; first p0")


def test_pictures_that_can_not_be_scored_are_said_and_counted(sample: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    write_sample(kept, 5, 8)
    first, second, *_ = sorted((kept / "images").iterdir())
    first.write_bytes(b"not a picture")
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("epoch"):
            second.unlink(missing_ok=True)

    train(_options(sample, tmp_path / "out", epochs=1, test_dataset=str(kept)), say)
    assert sum(line.startswith(f"left out of --test_dataset: {first.name}: ") for line in said) == 1
    assert [line for line in said if line.startswith(f"warning: not scored: {first.name}: ")]
    assert f"warning: not scored: {second.name}: the picture or its mask was removed during the training" in said
    scores = ModelSpec.from_json((tmp_path / "out" / METADATA_FILE).read_text()).scores
    assert (scores["pictures"], scores["left_out"]) == (3, 2)


def test_kept_pictures_that_are_trained_on_are_warned_of(sample: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    write_sample(kept, 2, 8)
    for name in sorted(path.name for path in (sample / "images").iterdir()):
        shutil.copy(sample / "images" / name, kept / "images" / f"other_{name}")
        shutil.copy(sample / "masks" / f"{Path(name).stem}.png", kept / "masks" / f"other_{Path(name).stem}.png")
    said: list[str] = []
    train(_options(sample, tmp_path / "out", epochs=1, test_dataset=str(kept)), said.append)
    divided = next(line for line in said if "to train on" in line)
    trained_on, chosen_by, count = (int(part.split()[0]) for part in divided.split(", "))
    assert (trained_on + chosen_by, count) == (40, 42)
    warned = f"warning: {trained_on} pictures with the same content are trained on and are kept for the end"
    assert any(line.startswith(warned) for line in said)


def test_too_few_pictures_to_choose_an_epoch_are_warned_of(trained: tuple[Path, list[str]]) -> None:
    split = next(line for line in trained[1] if "to choose the best epoch" in line)
    count = int(split.split(", ")[1].split()[0])
    assert count < 20
    warned = f"warning: the best epoch is chosen on {count} pictures; with fewer than 20 the choice is unreliable"
    assert any(line.startswith(warned) for line in trained[1])
    assert trained[1].index(split) < next(i for i, line in enumerate(trained[1]) if line.startswith("epoch"))


def test_a_class_that_never_occurs_is_warned_of_and_a_broken_picture_left_out(sample: Path, tmp_path: Path) -> None:
    for number in range(6):
        mask = np.zeros((20, 20), np.uint8)
        mask[5:9] = 1
        _write_pair(tmp_path / "data", f"p{number}", mask)
    (tmp_path / "data" / "images" / "p4.png").write_bytes(b"not a picture")
    said: list[str] = []
    options = _options(tmp_path / "data", tmp_path / "out", epochs=1, image_size=(16, 16), augment="none")
    train(replace(options, class_names=("a", "b", "ghost"), batch_size=2), said.append)
    assert any("warning: class 2 (ghost) occurs in no mask" in line for line in said)
    assert any(line.startswith("left out: p4.png") for line in said)
    spec = ModelSpec.from_json((tmp_path / "out" / METADATA_FILE).read_text())
    assert spec.scores["classes"]["ghost"]["iou"] in (None, 0.0)


def test_without_the_extra_one_line_says_so(sample: Path, tmp_path: Path) -> None:
    run = "import sys; sys.modules['keras'] = None\nfrom model.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "train", "--dataset", str(sample), "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 2
    assert done.stderr.strip() == "maskbeam: keras is missing: pip install 'maskbeam[train]'"


def test_mixed_precision_trains_and_exports_in_float32(sample: Path, tmp_path: Path) -> None:
    options = _options(sample, tmp_path / "mixed", epochs=1, precision="mixed_float16", preset="residual", depth=2)
    train(replace(options, loss="focal", class_weights="balanced"), lambda line: None)
    assert keras.mixed_precision.dtype_policy().name == "float32"
    spec = ModelSpec.from_json((tmp_path / "mixed" / METADATA_FILE).read_text())
    assert spec.agreement["model.tflite"]["equal_pixels"] > 0.999
    network = keras.saving.load_model(tmp_path / "mixed" / "model.keras", safe_mode=True)
    assert {layer.dtype_policy.compute_dtype for layer in network.layers} == {"float32"}
