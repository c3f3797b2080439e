"""--unlabelled: thresholds from validation pictures, what becomes a label, what is left out, which network is kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")

from model.cli import main  # noqa: E402
from model.data.unlabelled import open_unlabelled  # noqa: E402
from model.options import TrainOptions  # noqa: E402
from model.pseudo_labels import ConfidenceCounts, confident_labels, mirrored_probabilities  # noqa: E402
from model.samples.sample import CLASS_NAMES, write_sample  # noqa: E402
from model.self_training import decision, is_student_kept, sample_unlabelled, student_epochs  # noqa: E402
from model.train import train  # noqa: E402
from pipeline.core.errors import OptionError  # noqa: E402


def _counted(confidences: list[float], right: list[bool], num_classes: int = 2) -> ConfidenceCounts:
    """Predictions of class 0 of these confidences."""
    counts = ConfidenceCounts(num_classes)
    probabilities = np.zeros((1, len(confidences), num_classes), np.float32)
    probabilities[0, :, 0] = confidences
    truth = np.where(right, 0, 1).astype(np.uint8)[None]
    counts.add(probabilities, truth)
    return counts


def test_the_threshold_is_the_lowest_at_which_enough_is_right() -> None:
    confidences = [0.95] * 9 + [0.85] * 9 + [0.7] * 9
    right = [True] * 9 + [True] * 8 + [False] + [False] * 9
    thresholds = _counted(confidences, right).thresholds(min_precision=0.9, min_share=0.0)
    assert 0.7 < thresholds[0] <= 0.85
    assert np.isinf(thresholds[1])
    assert 0.85 < _counted(confidences, right).thresholds(1.0, 0.0)[0] <= 0.95


def test_a_class_that_is_often_wrong_still_keeps_its_surest_share() -> None:
    confidences = np.linspace(0.5, 0.99, 100).tolist()
    thresholds = _counted(confidences, [False] * 100).thresholds(min_precision=0.9, min_share=0.2)
    share = np.mean(np.array(confidences) >= thresholds[0])
    assert 0.2 <= share <= 0.23


@given(
    st.integers(2, 4),
    st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 4)), min_size=1, max_size=60),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_every_threshold_gives_the_precision_or_the_share(
    num_classes: int, pixels: list[tuple[float, int]], min_precision: float, min_share: float
) -> None:
    rng = np.random.default_rng(len(pixels))
    probabilities = rng.random((1, len(pixels), num_classes)).astype(np.float32)
    truth = np.array([[min(true, num_classes) for _, true in pixels]], np.uint8)
    counts = ConfidenceCounts(num_classes)
    counts.add(probabilities, truth)
    thresholds = counts.thresholds(min_precision, min_share)
    predicted, confidence = probabilities.argmax(-1), probabilities.max(-1)
    scored = truth < num_classes
    for class_id in range(num_classes):
        of_class = scored & (predicted == class_id)
        if not of_class.any():
            assert np.isinf(thresholds[class_id])
            continue
        # Confidences are counted in thousandths.
        kept = of_class & (np.floor(confidence * 1000) >= np.round(thresholds[class_id] * 1000))
        assert kept.any()
        precision, share = (truth == predicted)[kept].mean(), kept.sum() / of_class.sum()
        assert precision >= min_precision or share >= min_share


def test_labels_are_the_confident_predictions_and_the_rest_is_ignored() -> None:
    probabilities = np.array([[[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.45, 0.55]]], np.float32)
    labels = confident_labels(probabilities, np.array([0.75, 0.5], np.float32))
    assert labels.tolist() == [[0, 2, 1, 1]]
    assert labels.dtype == np.uint8
    many = np.zeros((1, 1, 300), np.float32)
    many[0, 0, 280] = 1.0
    assert confident_labels(many, np.full(300, 0.5, np.float32)).tolist() == [[280]]


class _Leftmost:
    """A network that gives the first class to the left half of a picture, and is unsure in the rest."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        probabilities = np.full((*images.shape[:3], 2), 0.5, np.float32)
        probabilities[:, :, : images.shape[2] // 2] = (1.0, 0.0)
        return probabilities


def test_mirror_images_are_turned_back() -> None:
    found = mirrored_probabilities(_Leftmost(), np.zeros((2, 3, 8, 3), np.uint8))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, np.full((2, 3, 8, 2), (0.75, 0.25)))


def test_only_a_better_student_is_kept() -> None:
    assert is_student_kept(0.5, 0.51)
    assert not is_student_kept(0.5, 0.5)
    assert not is_student_kept(0.5, 0.49)
    assert "so the network without it is kept" in decision(0.5, 0.49)


def test_the_student_makes_twice_the_teachers_updates() -> None:
    assert student_epochs(40, 35, 396) == 8
    assert student_epochs(40, 35, 4000) == 5
    assert student_epochs(3, 35, 396) == 3
    assert student_epochs(40, 300, 400) == 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`labelled/` with masks; `archive/`, pictures alone: new ones and a copy of each that has a mask."""
    folder = tmp_path_factory.mktemp("data")
    write_sample(folder / "labelled", 16, 3)
    write_sample(folder / "new", 24, 9)
    shutil.copytree(folder / "new" / "images", folder / "archive")
    for path in sorted((folder / "labelled" / "images").iterdir()):
        shutil.copy(path, folder / "archive" / f"copy_{path.name}")
    return folder


def _options(data: Path, output: Path, **changes: object) -> TrainOptions:
    plain = TrainOptions(
        str(data / "labelled"),
        str(output),
        preset="residual",
        width=8,
        depth=2,
        image_size=(48, 64),
        epochs=4,
        batch_size=4,
        learning_rate=5e-3,
        warmup_epochs=0.5,
        augment="flip",
        seed=1,
        class_names=CLASS_NAMES,
        val_fraction=0.2,
        test_fraction=0.2,
        unlabelled=str(data / "archive"),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def _files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("model.tflite", "training/log.csv")}


def test_an_archive_without_masks_raises_the_score(data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    spec = train(_options(data, tmp_path / "out"), said.append)
    line = next(line for line in said if "of 40 pictures labelled where the network is confident" in line)
    assert "16 pictures left out that are in --dataset or --test_dataset" in line
    entry = spec.training["self_training"]
    assert 15 <= entry["pictures"] <= 24
    assert set(entry["thresholds"]) == set(CLASS_NAMES)
    # The teacher saw 40 pictures in all; the student goes on from there.
    assert entry["kept"] == "student"
    assert entry["validation_global_mean_iou_after"] > entry["validation_global_mean_iou_before"] + 0.02
    assert spec.training["best_validation_global_mean_iou"] == entry["validation_global_mean_iou_after"]
    assert spec.training["pictures"] < 16
    assert "--unlabelled SOURCE" in spec.training["command"]
    assert (tmp_path / "out" / "training" / "student" / "log.csv").exists()
    written = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert written["training"]["self_training"] == entry

    # Trained without the archive, then with it, interrupted in the student's epochs and resumed: the same model.
    class Stop(Exception):
        pass

    train(_options(data, tmp_path / "halves", unlabelled=None), lambda line: None)
    seen: list[str] = []

    def stop(line: str) -> None:
        seen.append(line)
        if line.startswith("epoch   2/4") and any("self-training" in one for one in seen):
            raise Stop

    with pytest.raises(Stop):
        train(_options(data, tmp_path / "halves", resume=True), stop)
    seen.clear()
    train(_options(data, tmp_path / "halves", resume=True), seen.append)
    assert [line for line in seen if line.startswith("resumed")] == ["resumed after epoch 4", "resumed after epoch 2"]
    assert _files(tmp_path / "halves") == _files(tmp_path / "out")


def test_a_student_that_scores_less_is_not_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = _options(data, tmp_path / "plain", unlabelled=None, epochs=10)
    alone = train(options, lambda line: None)

    def wrong(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        return ((confident_labels(probabilities, thresholds * 0) + 1) % 3).astype(np.uint8)

    monkeypatch.setattr("model.self_training.confident_labels", wrong)
    monkeypatch.setattr("model.self_training._LABELLED_PARTS", 1000)
    said: list[str] = []
    spec = train(replace(options, output=str(tmp_path / "out"), unlabelled=str(data / "archive")), said.append)
    assert any(line.endswith("it gained nothing, so the network without it is kept") for line in said)
    entry = spec.training["self_training"]
    assert entry["kept"] == "teacher"
    assert entry["validation_global_mean_iou_after"] <= entry["validation_global_mean_iou_before"]
    assert spec.scores == alone.scores
    assert _files(tmp_path / "out") == _files(tmp_path / "plain")


def test_the_sample_is_bounded_by_the_training_pictures(data: Path) -> None:
    assert len(sample_unlabelled(str(data / "archive"), 1).pictures) == 40
    manifest = data / "many.csv"
    picture = sorted((data / "archive").iterdir())[0]
    rows = [f"id{number},{picture}" for number in range(500)]
    manifest.write_text("\n".join(["image_id,image", *rows]))
    sample = sample_unlabelled(str(manifest), 20)
    assert (len(sample.pictures), sample.available) == (200, 500)
    assert len(sample_unlabelled(str(manifest), 2).pictures) == 100


def test_sources_without_pictures_are_refused_before_the_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", tmp_path / "nothing"):
        with pytest.raises(OptionError, match="--unlabelled"):
            list(open_unlabelled(str(source)))
        said: list[str] = []
        with pytest.raises(OptionError, match="--unlabelled"):
            train(_options(data, tmp_path / "out", unlabelled=str(source)), said.append)
        assert not any(line.startswith("epoch") for line in said)


def test_crops_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--unlabelled needs --mode resize"):
        train(_options(data, tmp_path / "out", mode="tile"), lambda line: None)


def test_pictures_that_can_not_be_read_or_are_known_are_named(data: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for number in range(5):
        (archive / f"broken{number}.png").write_bytes(b"not a picture")
    shutil.copytree(data / "labelled" / "images", archive / "known")
    said: list[str] = []
    options = _options(data, tmp_path / "out", unlabelled=str(archive), epochs=1)
    with pytest.raises(
        OptionError, match=r"none of 21 pictures can be used: 5 can't be read, 16 are also in --dataset"
    ):
        train(options, said.append)
    assert sum(line.startswith("left out of --unlabelled: broken") for line in said) == 3
    assert "left out of --unlabelled: 2 more that can't be read" in said


def test_the_command_takes_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--dataset", str(data / "labelled"), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--unlabelled", str(tmp_path / "nothing")]) == 2
    assert "--unlabelled" in capsys.readouterr().err.splitlines()[-1]
