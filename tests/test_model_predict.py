"""Predicting one's own pictures, the scores at the end, the figures, and the export command."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.cli import main
from model.data.encoded_pairs import open_source
from model.evaluate import PictureScore, load_engine, score_pictures, summarise
from model.predict import predict
from model.samples.sample import draw_sample, write_sample
from pipeline.core.errors import OptionError
from pipeline.core.overlay import overlay
from pipeline.core.palette import default_colors
from pipeline.core.spec import ClassSpec, ModelSpec
from pipeline.core.truth import Labels
from pipeline.engines.model_folder import open_model
from pipeline.segmenting.segmentation import Model, load_model

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, 12, 7)
    return folder


def _spec(num_classes: int = 3) -> ModelSpec:
    colors = default_colors(num_classes)
    return ModelSpec("m", 8, 8, 3, tuple(ClassSpec(i, f"class {i}", colors[i]) for i in range(num_classes)))


def test_predict_writes_a_mask_of_every_pictures_own_size(sample: Path, tmp_path: Path) -> None:
    done, failures = predict("shapes", [str(sample / "images")], tmp_path, "float32")
    assert (done, failures) == (12, [])
    for path in sorted((sample / "images").iterdir()):
        mask = Image.open(tmp_path / "masks" / f"{path.name}.png")
        picture = draw_sample(7, int(path.stem.rpartition("_")[2]))
        assert mask.mode == "P"
        assert mask.size == picture.mask.shape[::-1]
        assert (np.asarray(mask) == picture.mask).mean() > 0.95
        assert Image.open(tmp_path / "overlays" / f"{path.name}.jpg").size == mask.size


def test_predict_takes_the_mode_of_the_job(sample: Path, tmp_path: Path) -> None:
    picture = sorted((sample / "images").iterdir())[0]
    model = load_model("shapes")
    masks = []
    for options in ({}, {"mode": "tile"}, {"mode": "tile", "tile_overlap": 0.5, "tta": "d4"}):
        output = tmp_path / str(len(masks))
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        assert main(["predict", str(picture), "--model", "shapes", "--output", str(output), *words]) == 0
        masks.append(np.asarray(Image.open(output / "masks" / f"{picture.name}.png")))
        assert np.array_equal(masks[-1], model.segment(picture, **options).mask)  # type: ignore[arg-type]
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mode", "stretch"], "--mode stretch is not one of"),
        (["--mode", "tile", "--tile_overlap", "2"], "--tile_overlap 2.0 is not between 0 and 0.9"),
        (["--tta", "turn"], "--tta turn is not one of"),
    ],
)
def test_predict_refuses_modes_that_do_not_exist(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["predict", str(sample / "images"), "--model", "shapes", "--output", str(tmp_path), *options]) == 2
    assert said in capsys.readouterr().err


def test_predict_needs_no_tensorflow(sample: Path, tmp_path: Path) -> None:
    block = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
    run = block + "from model.cli import main; sys.exit(main(sys.argv[1:]))"
    picture = str(next((sample / "images").iterdir()))
    command = [sys.executable, "-c", run, "predict", picture, "--model", "shapes", "--output", str(tmp_path)]
    done = subprocess.run([*command, "--precision", "int8"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(list((tmp_path / "masks").iterdir())) == 1


def test_a_broken_picture_costs_itself_alone(sample: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    (tmp_path / "folder" / "album.jpg").mkdir(parents=True)
    good = str(next((sample / "images").iterdir()))
    done, failures = predict("shapes", [str(broken), str(tmp_path / "folder"), good], tmp_path / "out", "float32")
    assert done == 1
    assert len(failures) == 2
    assert "broken.png" in failures[0]
    assert failures[1] == f"{tmp_path / 'folder' / 'album.jpg'}: can't be read: Is a directory"


def test_what_cannot_be_predicted_is_refused(sample: Path, tmp_path: Path) -> None:
    picture = next((sample / "images").iterdir())
    with pytest.raises(OptionError, match="no such file"):
        predict("shapes", [str(tmp_path / "nothing.png")], tmp_path, "float32")
    twin = tmp_path / "twin" / picture.name
    twin.parent.mkdir()
    shutil.copy(picture, twin)
    with pytest.raises(OptionError, match="two pictures have the name"):
        predict("shapes", [str(picture), str(twin)], tmp_path, "float32")
    with pytest.raises(OptionError, match="neither a folder nor"):
        predict("no such model", [str(picture)], tmp_path, "float32")


def test_the_overlay_shows_the_picture_where_nothing_is() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    mask = np.zeros((4, 4), np.uint8)
    mask[0] = 1
    laid = overlay(image, mask, _spec().classes)
    assert (laid[1:] == 100).all()
    assert (laid[0] != 100).any()
    assert overlay(image[..., :1], mask, _spec().classes).shape == (4, 4, 3)


def test_the_background_is_the_class_of_that_name() -> None:
    spec = open_model("pets").spec
    assert spec.class_names[1] == "background"
    image = np.full((4, 4, 3), 100, np.uint8)
    mask = np.ones((4, 4), np.uint8)
    mask[0] = 0
    laid = overlay(image, mask, spec.classes)
    assert (laid[1:] == 100).all()
    assert (laid[0] != 100).any()


def test_the_carried_model_keeps_its_promise(sample: Path) -> None:
    """The scores that the job must reach on the sample, by the same code as at the end of a training."""
    for precision in ("float32", "int8"):
        model = open_model("shapes", precision=precision)
        spec = model.spec
        engine = load_engine(model.read(), spec.height, spec.width, spec.channels)
        labels = Labels(spec.labels(), spec.num_classes, spec.ignore_label)
        left_out: dict[str, str] = {}
        pictures = list(score_pictures(open_source(str(sample), None), labels, engine, spec, left_out))
        assert (len(pictures), left_out) == (12, {})
        assert summarise(pictures, spec, 0)["global_mean_iou"] > 0.92


def test_the_summary_is_that_of_the_summed_matrix() -> None:
    spec = _spec(3)
    first = PictureScore("a", 0.45, np.array([[90, 10, 0], [0, 0, 0], [0, 0, 0]]))
    second = PictureScore("b", 1.0, np.array([[50, 0, 0], [0, 50, 0], [0, 0, 0]]))
    summary = summarise([first, second], spec, 4)
    assert summary["global_mean_iou"] == pytest.approx(0.8833, abs=1e-4)
    assert summary["samplewise_mean_iou"] == pytest.approx(0.725)
    assert summary["classes"]["class 2"] == {"iou": None, "dice": None}
    assert (summary["pictures"], summary["left_out"]) == (2, 4)


def test_export_writes_the_same_lite_model_again(sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="the extra `train` is not installed")
    from model.reexport import export_model

    carried = ROOT / "model" / "pretrained" / "shapes"
    shutil.copytree(carried, tmp_path / "copy")
    (tmp_path / "copy" / "model.tflite").unlink()
    spec = export_model(tmp_path / "copy", str(sample), None, saved_model=True)
    assert spec.agreement["model.tflite"]["equal_pixels"] > 0.9999
    assert spec.agreement["model_int8.tflite"]["equal_pixels"] > 0.98
    assert (tmp_path / "copy" / "saved_model" / "saved_model.pb").is_file()
    assert spec.agreement["saved_model"]["equal_pixels"] > 0.9999
    picture = draw_sample(7, 3)
    masks = []
    for folder in (carried, tmp_path / "copy"):
        model = open_model(str(folder))
        engine = load_engine(model.read(), spec.height, spec.width, spec.channels)
        masks.append(Model(spec, engine).segment(picture.image).mask)
    assert (masks[0] == masks[1]).mean() > 0.9999


def test_nothing_in_a_model_folder_steers_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="the extra `train` is not installed")
    spec = replace(_spec(), name="red \x1b[31m")
    (tmp_path / "metadata.json").write_text(spec.to_json())
    assert main(["export", "--model", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "red \\x1b[31m" in said
    assert "\x1b" not in said


def test_export_of_what_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("keras", reason="the extra `train` is not installed")
    from model.reexport import export_model

    with pytest.raises(OptionError, match=r"metadata\.json"):
        export_model(tmp_path, None, None, saved_model=False)
    carried = ROOT / "model" / "pretrained" / "shapes"
    shutil.copy(carried / "metadata.json", tmp_path)
    (tmp_path / "model.keras").write_bytes(b"none")
    with pytest.raises(OptionError, match="not a Keras file"):
        export_model(tmp_path, None, None, saved_model=False)
