"""Single pictures from Python, and the command `maskbeam`: the job's masks without the job."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import jaccard_score
from small_archive import Archive, Finished

from pipeline.core.errors import ModelError, OptionError, PictureError
from pipeline.maskbeam import Model, load_model
from pipeline.maskbeam.command import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return load_model(tiny_model)


def test_masks_and_areas_are_the_jobs(model: Model, archive: Archive, scored_job: Finished) -> None:
    rows = {row["image_id"]: row for row in scored_job.rows}
    for image_id, mask in scored_job.masks.items():
        found = model.segment(archive.images / image_id)
        np.testing.assert_array_equal(found.mask, mask)
        assert list(found.area_px.values()) == [rows[image_id][f"area_px_{name}"] for name in model.spec.class_names]
        assert sum(found.area_fraction.values()) == pytest.approx(1)
        assert found.mask_png() == (scored_job.output / f"masks/{image_id}.png").read_bytes()


def test_scores_are_the_jobs_and_scikit_learns(model: Model, archive: Archive, scored_job: Finished) -> None:
    for row in scored_job.rows:
        found = model.segment(archive.images / row["image_id"])
        score = found.score(archive.mask_path(row["image_id"]))
        assert score["iou"] == {name: row[f"iou_{name}"] for name in model.spec.class_names}
        assert score["dice"] == {name: row[f"dice_{name}"] for name in model.spec.class_names}
        assert score["pixel_accuracy"] == row["pixel_accuracy"]
        present = [value for value in score["iou"].values() if value is not None]
        assert score["mean_iou"] == pytest.approx(np.mean(present))
        truth = archive.truth(row["image_id"])
        labels = [k for k, value in enumerate(score["iou"].values()) if value is not None]
        expected = jaccard_score(truth.reshape(-1), found.mask.reshape(-1), average=None, labels=labels)
        assert present == pytest.approx(expected.tolist())


def test_every_form_of_a_picture_gives_the_same_mask(model: Model, archive: Archive) -> None:
    image_id = next(image_id for image_id in archive.image_ids if image_id.endswith(".png"))
    pixels = archive.pixels(image_id)
    expected = model.segment(pixels).mask
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    for form in (buffer.getvalue(), Image.fromarray(pixels), np.asfortranarray(pixels)):
        np.testing.assert_array_equal(model.segment(form).mask, expected)
    grey = pixels[..., 0]
    threefold = model.segment(np.repeat(grey[..., None], 3, axis=2)).mask
    np.testing.assert_array_equal(model.segment(grey).mask, threefold)
    np.testing.assert_array_equal(model.segment(grey[..., None]).mask, threefold)


def test_probabilities_come_where_they_are_asked_for(model: Model, archive: Archive) -> None:
    pixels = archive.pixels(archive.image_ids[0])
    assert model.segment(pixels).probabilities is None
    found = model.segment(pixels, probabilities=True)
    assert found.probabilities is not None
    assert found.probabilities.shape == (3, *pixels.shape[:2])
    sums = found.probabilities.astype(int).sum(axis=0)
    assert np.abs(sums - 255).max() <= 1
    # The winner has the largest probability, to within 8 bits.
    winner = np.take_along_axis(found.probabilities, found.mask[None].astype(int), axis=0)[0]
    assert (winner == found.probabilities.max(axis=0)).all()


def test_an_overlay_is_an_rgb_picture_of_the_same_size(model: Model, archive: Archive) -> None:
    found = model.segment(archive.images / archive.image_ids[0])
    drawn = found.overlay()
    assert drawn.shape == found.pixels.shape
    assert (drawn != found.pixels).any()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(16, np.uint8),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(model: Model, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a picture"):
        model.segment(array)


def test_faults_are_said(model: Model, archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="can't be read"):
        model.segment(tmp_path / "missing.png")
    with pytest.raises(PictureError) as caught:
        model.segment(b"no picture")
    assert caught.value.error_type == "NotAPicture"
    with pytest.raises(PictureError, match="max_pixels"):
        model.segment(archive.images / archive.image_ids[0], max_pixels=3)
    found = model.segment(archive.pixels(archive.image_ids[0]))
    with pytest.raises(PictureError, match="the mask is 2x2 px"):
        found.score(np.zeros((2, 2), np.uint8))
    with pytest.raises(PictureError) as caught:
        found.score(np.full(found.mask.shape, 99, np.uint8))
    assert caught.value.error_type == "UnknownLabels"
    with pytest.raises(ModelError, match="neither a folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(OptionError, match="--precision int8"):
        load_model("shapes", backend="tensorflow", precision="int8")


def test_importing_the_interface_imports_no_beam_and_no_tensorflow() -> None:
    program = "import sys, pipeline.maskbeam; print({'apache_beam', 'tensorflow', 'keras'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_command_starts_the_job_and_the_models_commands(
    tiny_model: Path, archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["run", "--input", str(archive.images), "--model", str(tiny_model), "--output", str(output)]) == 0
    assert (output / "summary.json").is_file()
    assert main(["run", "--inptu", "x"]) == 2
    assert main(["sample", "--output", str(tmp_path / "sample"), "--count", "2"]) == 0
    assert len(list((tmp_path / "sample/images").iterdir())) == 2
    assert main(["train"]) == 2
    assert main(["segmnt"]) == 2
    assert "unknown command 'segmnt'" in capsys.readouterr().err
    assert main([]) == main(["--help"]) == main(["--version"]) == 0
    assert "maskbeam 0." in capsys.readouterr().out


def test_the_command_is_installed_with_the_package() -> None:
    command = Path(sys.executable).parent / "maskbeam"
    if not command.exists():
        pytest.skip("the package is not installed in this environment")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("maskbeam 0.")
    program = "import maskbeam; print(maskbeam.load_model('shapes').spec.name)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == "shapes\n"
