"""The way of one picture, with engines that do what a test wants: one bad picture costs one picture."""

import errno
import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segmented import CountedBudget, PassingEngine, file_ref, written_mask
from small_archive import Archive, draw_picture, expected_mask, save_mask

from pipeline.core.errors import EngineError, StorageError
from pipeline.core.labels import LabelMap
from pipeline.core.limits import max_file_bytes
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, FileRef, Located, OutputFile, PictureRecord
from pipeline.core.scores import confusion_matrix, matrix_of
from pipeline.core.spec import ClassSpec
from pipeline.engines.base import Batch, Logits
from pipeline.engines.model_folder import open_model
from pipeline.output.mask_output import MaskOutput
from pipeline.output.outputs import Destination
from pipeline.segmenting.byte_budget import ByteBudget
from pipeline.segmenting.segmenter import Outcome, Segmenter
from pipeline.segmenting.stage_threads import Done, StageThreads
from pipeline.storage import filesystem

POISON = 77
"""The level of a plain picture that breaks `PoisonedEngine`."""


class PoisonedEngine(PassingEngine):
    """Breaks on every batch that holds a picture of level `POISON` alone."""

    def logits(self, batch: Batch) -> Logits:
        logits = super().logits(batch)
        if (batch == POISON).all(axis=(1, 2, 3)).any():
            raise RuntimeError("a poisoned picture")
        return logits


@pytest.fixture
def recipe(tiny_model: Path) -> Recipe:
    model = open_model(str(tiny_model))
    return Recipe(model.spec, model.digest, LabelMap.identity(3), ignore_label=None, max_pixels=1_000_000)


@pytest.fixture
def destination(recipe: Recipe, tmp_path: Path) -> Destination:
    return Destination(str(tmp_path / "out"), (MaskOutput(recipe),))


@pytest.fixture
def located(archive: Archive) -> list[Located]:
    return [locate(archive.images / image_id, image_id, archive.mask_path(image_id)) for image_id in archive.image_ids]


def locate(path: Path, image_id: str, mask: Path | None = None) -> Located:
    return Located(image_id, file_ref(path), mask and file_ref(mask))


def plain(folder: Path, levels: Sequence[int]) -> list[Located]:
    """Pictures of one level each, named by their place."""
    pictures = []
    for place, level in enumerate(levels):
        path = folder / f"{place:02d}.png"
        Image.new("RGB", (40, 30), (level,) * 3).save(path)
        pictures.append(locate(path, path.name))
    return pictures


def only(outcomes: list[Outcome]) -> Failure:
    (failure,) = outcomes
    assert isinstance(failure, Failure)
    return failure


def test_records_say_what_the_masks_hold(
    archive: Archive, recipe: Recipe, destination: Destination, located: list[Located]
) -> None:
    outcomes, seconds = Segmenter(recipe, destination, PassingEngine()).segment(located)
    assert [outcome.image_id for outcome in outcomes] == list(archive.image_ids)
    for outcome in outcomes:
        assert isinstance(outcome, PictureRecord)
        mask, truth = written_mask(destination, outcome.image_id), archive.truth(outcome.image_id)
        expected, sure = expected_mask(archive.pixels(outcome.image_id))
        assert np.array_equal(mask[sure], expected[sure])
        assert mask.shape == (outcome.height, outcome.width)
        assert outcome.value("area_px") == tuple(np.bincount(mask.ravel(), minlength=3))
        assert sum(outcome.value("area_px")) == outcome.width * outcome.height
        assert np.array_equal(matrix_of(outcome.value("confusion"), 3), confusion_matrix(truth, mask, 3))
        data = (Path(destination.root) / f"masks/{outcome.image_id}.png").read_bytes()
        (output,) = destination.outputs
        assert outcome.files == (OutputFile("mask", output.digest(), len(data), zlib.crc32(data)),)
        assert outcome.source_bytes == (archive.images / outcome.image_id).stat().st_size
    assert set(seconds) == {"read", "decode", "truth", "resize", "infer", "mask", "count", "encode", "write"}
    assert all(value >= 0 for value in seconds.values())


def test_masks_are_indexed_png_with_the_models_colours(
    recipe: Recipe, destination: Destination, located: list[Located]
) -> None:
    Segmenter(recipe, destination, PassingEngine()).segment(located[:1])
    mask = Image.open(Path(destination.root) / "masks" / f"{located[0].image_id}.png")
    palette = mask.getpalette()
    assert (mask.format, mask.mode) == ("PNG", "P")
    assert palette is not None
    assert palette[:9] == [0xC0, 0x20, 0x20, 0x20, 0xC0, 0x20, 0x20, 0x20, 0xC0]


def test_without_truth_there_are_only_areas(recipe: Recipe, destination: Destination, located: list[Located]) -> None:
    (record,), seconds = Segmenter(recipe, destination, PassingEngine()).segment([replace(located[0], truth=None)])
    assert isinstance(record, PictureRecord)
    assert record.value("confusion") is None
    assert sum(record.value("area_px")) == record.width * record.height
    assert "truth" not in seconds


def test_more_than_256_classes_give_16_bit_masks(recipe: Recipe, destination: Destination, tmp_path: Path) -> None:
    classes = tuple(ClassSpec(class_id, f"c{class_id}", "#102030") for class_id in range(300))

    class Last(PassingEngine):
        """Says class 299 on the left half and class 256 on the right."""

        def logits(self, batch: Batch) -> Logits:
            logits = np.zeros((len(batch), 2, 2, 300), np.float32)
            logits[:, :, 0, 299] = logits[:, :, 1, 256] = 1
            return logits

    (picture,) = plain(tmp_path, [9])
    truth = np.full((30, 40), 299, np.uint16)
    truth[:2] = 65535
    Image.fromarray(truth).save(tmp_path / "truth.png")
    recipe = replace(
        recipe,
        spec=replace(recipe.spec, classes=classes),
        label_map=LabelMap.identity(300),
        ignore_label=65535,
    )
    segmenter = Segmenter(recipe, destination, Last())
    (record,), _ = segmenter.segment([replace(picture, truth=file_ref(tmp_path / "truth.png"))])
    assert isinstance(record, PictureRecord)
    mask = Image.open(Path(destination.root) / "masks" / "00.png.png")
    assert mask.mode == "I;16"
    assert np.array_equal(np.asarray(mask), np.repeat([[299, 256]], 20, axis=1).repeat(30, axis=0))
    assert (record.value("area_px")[299], record.value("area_px")[256], sum(record.value("area_px"))) == (
        600,
        600,
        1200,
    )
    assert matrix_of(record.value("confusion"), 300)[299, [256, 299]].tolist() == [560, 560]
    assert matrix_of(record.value("confusion"), 300).sum() == 1120


def test_a_batch_of_nothing_never_reaches_the_engine(recipe: Recipe, destination: Destination, tmp_path: Path) -> None:
    engine = PassingEngine()
    segmenter = Segmenter(recipe, destination, engine)
    assert segmenter.segment([])[0] == []
    assert only(segmenter.segment([Located("a.png", FileRef(str(tmp_path / "none.png")))])[0]).error_type == "Missing"
    assert engine.batch_sizes == []


def test_ignored_pixels_count_as_area_and_not_as_truth(
    archive: Archive, recipe: Recipe, destination: Destination, located: list[Located], tmp_path: Path
) -> None:
    image_id = archive.image_ids[0]
    truth = archive.truth(image_id).copy()
    truth[:5] = 255
    save_mask(tmp_path / "mask.png", truth)
    picture = replace(located[0], truth=file_ref(tmp_path / "mask.png"))
    (record,), _ = Segmenter(replace(recipe, ignore_label=255), destination, PassingEngine()).segment([picture])
    assert isinstance(record, PictureRecord)
    assert sum(record.value("area_px")) == truth.size
    assert sum(record.value("confusion")[1::2]) == (truth != 255).sum()
    (record,), _ = Segmenter(recipe, destination, PassingEngine()).segment([picture])
    assert isinstance(record, PictureRecord)
    assert record.truth_failure is not None
    assert record.truth_failure.error_type == "UnknownLabels"
    assert "255" in record.truth_failure.message


def test_one_bad_picture_of_32_is_one_failure(recipe: Recipe, destination: Destination, tmp_path: Path) -> None:
    levels = [10 + n for n in range(32)]
    levels[13] = POISON
    engine = PoisonedEngine()
    pictures = plain(tmp_path, levels)
    outcomes, _ = Segmenter(recipe, destination, engine).segment(pictures)
    assert [outcome.image_id for outcome in outcomes] == [picture.image_id for picture in pictures]
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [(failure.image_id, failure.stage, failure.error_type) for failure in failures] == [
        ("13.png", "segment", "EngineFailed")
    ]
    assert "RuntimeError: a poisoned picture" in failures[0].message
    assert len(list(Path(destination.root, "masks").iterdir())) == 31
    # Halving: the whole, then both halves of what broke, down to the bad picture and its neighbour.
    assert sorted(engine.batch_sizes, reverse=True) == [32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


@pytest.mark.parametrize("bad", [[0], [7], [0, 7], [3, 4], range(8)])
def test_several_bad_pictures_are_the_only_failures(
    recipe: Recipe, destination: Destination, tmp_path: Path, bad: Sequence[int]
) -> None:
    levels = [POISON if place in bad else 10 + place for place in range(8)]
    outcomes, _ = Segmenter(recipe, destination, PoisonedEngine()).segment(plain(tmp_path, levels))
    assert [place for place, outcome in enumerate(outcomes) if isinstance(outcome, Failure)] == list(bad)


def test_masks_do_not_depend_on_the_neighbours_in_a_batch(
    recipe: Recipe, destination: Destination, located: list[Located]
) -> None:
    segmenter = Segmenter(recipe, destination, PassingEngine())
    together, _ = segmenter.segment(located)
    alone = [segmenter.segment([picture])[0][0] for picture in reversed(located)]
    assert together == alone[::-1]


def test_an_answer_that_is_not_finite_costs_its_picture(
    recipe: Recipe, destination: Destination, tmp_path: Path
) -> None:
    class Unbound(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            logits = super().logits(batch)
            logits[1, 5, 5, 2] = np.inf
            return logits

    outcomes, _ = Segmenter(recipe, destination, Unbound()).segment(plain(tmp_path, [1, 2, 3]))
    assert [isinstance(outcome, Failure) for outcome in outcomes] == [False, True, False]
    assert only(outcomes[1:2]).error_type == "NotFinite"
    assert not (Path(destination.root) / "masks" / "01.png.png").exists()


def test_an_engine_that_is_broken_stops_the_job(recipe: Recipe, destination: Destination, tmp_path: Path) -> None:
    class Broken(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            raise EngineError("no engine at all")

    with pytest.raises(EngineError, match="no engine at all"):
        Segmenter(recipe, destination, Broken()).segment(plain(tmp_path, [1, 2]))


def broken_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Files that are no pictures, and the stage and type of their failure."""
    whole = folder / "whole.png"
    Image.fromarray(draw_picture(1, 80, 60)).save(whole)
    jpeg = folder / "whole.jpg"
    Image.fromarray(draw_picture(1, 80, 60)).save(jpeg)
    contents = {
        "empty.png": b"",
        "text.png": b"this is no picture\n",
        "cut.png": whole.read_bytes()[:200],
        "cut.jpg": jpeg.read_bytes()[:-300],
        "html.jpg": b"<!DOCTYPE html><title>404</title>",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    Image.new("L", (1001, 1000)).save(folder / "large.png")
    return {
        "empty.png": ("decode", "Empty"),
        "text.png": ("decode", "NotAPicture"),
        "cut.png": ("decode", "Truncated"),
        "cut.jpg": ("decode", "Truncated"),
        "html.jpg": ("decode", "NotAPicture"),
        "large.png": ("decode", "TooLarge"),
    }


def test_broken_files_between_good_ones(
    recipe: Recipe, destination: Destination, located: list[Located], tmp_path: Path
) -> None:
    expected = broken_files(tmp_path)
    broken = [locate(tmp_path / name, name) for name in expected]
    mixed = [picture for pair in zip(broken, located, strict=False) for picture in pair]
    engine = PassingEngine()
    outcomes, _ = Segmenter(recipe, destination, engine).segment(mixed)
    assert [outcome.image_id for outcome in outcomes] == [picture.image_id for picture in mixed]
    found = {o.image_id: (o.stage, o.error_type) for o in outcomes if isinstance(o, Failure)}
    assert found == expected
    assert engine.batch_sizes == [len(located[: len(broken)])]


def test_a_faulty_truth_costs_the_score_and_not_the_mask(
    archive: Archive, recipe: Recipe, destination: Destination, located: list[Located], tmp_path: Path
) -> None:
    (without_truth,), _ = Segmenter(recipe, destination, PassingEngine()).segment([replace(located[0], truth=None)])
    assert isinstance(without_truth, PictureRecord)
    assert without_truth.truth_failure is None
    expected = written_mask(destination, located[0].image_id)
    (tmp_path / "broken.png").write_bytes(b"no mask")
    save_mask(tmp_path / "small.png", np.zeros((7, 9), np.uint8))
    save_mask(tmp_path / "strange.png", np.full_like(archive.truth(archive.image_ids[0]), 7))
    for name, error_type, said in (
        ("broken.png", "NotAPicture", "not a picture format"),
        ("small.png", "SizeMismatch", "9x7"),
        ("strange.png", "UnknownLabels", "7"),
        ("gone.png", "Missing", "gone.png"),
    ):
        path = tmp_path / name
        truth = file_ref(path) if path.exists() else FileRef(str(path))
        (record,), _ = Segmenter(recipe, destination, PassingEngine()).segment([replace(located[0], truth=truth)])
        assert isinstance(record, PictureRecord)
        assert record.value("area_px") == without_truth.value("area_px")
        assert record.value("confusion") is None
        assert np.array_equal(written_mask(destination, record.image_id), expected)
        failure = record.truth_failure
        assert failure is not None
        assert (failure.image_id, failure.source_uri) == (record.image_id, record.source_uri)
        assert (failure.stage, failure.error_type) == ("truth", error_type)
        assert said in failure.message


def test_a_file_that_cannot_be_read_costs_its_picture(recipe: Recipe, destination: Destination, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for uri, error_type in ((tmp_path / "none.png", "Missing"), (tmp_path / "folder.png", "Unreadable")):
        failure = only(
            Segmenter(recipe, destination, PassingEngine()).segment([Located("a.png", FileRef(str(uri)))])[0]
        )
        assert (failure.stage, failure.error_type) == ("read", error_type)
        assert str(uri) in failure.message
        assert "\n" not in failure.message


def test_a_name_too_long_for_the_output_costs_its_picture(
    recipe: Recipe, destination: Destination, tmp_path: Path
) -> None:
    (picture,) = plain(tmp_path, [9])
    long_id = "x" * 252 + ".png"
    failure = only(Segmenter(recipe, destination, PassingEngine()).segment([replace(picture, image_id=long_id)])[0])
    assert (failure.stage, failure.error_type) == ("write", "UnwritableName")


def test_a_mask_whose_path_is_another_ids_folder_is_a_failure(
    recipe: Recipe, destination: Destination, tmp_path: Path
) -> None:
    (picture,) = plain(tmp_path, [9])
    segmenter = Segmenter(recipe, destination, PassingEngine())
    segmenter.segment([replace(picture, image_id="a.png.png/b.png")])
    failure = only(segmenter.segment([replace(picture, image_id="a.png")])[0])
    assert (failure.stage, failure.error_type) == ("write", "UnwritableName")


def test_an_output_that_is_full_stops_the_job(
    recipe: Recipe, destination: Destination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filesystem, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        Segmenter(recipe, destination, PassingEngine()).segment(plain(tmp_path, [9]))


def test_the_engine_takes_no_more_at_a_time_than_it_is_given(
    recipe: Recipe, destination: Destination, tmp_path: Path
) -> None:
    pictures = plain(tmp_path, range(10, 17))
    whole, parts = PassingEngine(), PassingEngine()
    together, _ = Segmenter(recipe, destination, whole).segment(pictures)
    apart, _ = Segmenter(recipe, destination, parts, engine_batch=3).segment(pictures)
    assert together == apart
    assert (whole.batch_sizes, parts.batch_sizes) == ([7], [3, 3, 1])


def test_a_batch_holds_its_files_until_they_are_written(
    recipe: Recipe, destination: Destination, located: list[Located]
) -> None:
    budget = CountedBudget()
    segmenter = Segmenter(recipe, destination, PassingEngine(), budget=budget)
    batch = segmenter.fetch(located)
    files = [file for picture in located for file in (picture.image, picture.truth) if file is not None]
    assert sum(size for _, size in budget.shares) == sum(Path(file.uri).stat().st_size for file in files)
    outcomes, _ = segmenter.deliver(segmenter.compute(batch))
    records = [outcome for outcome in outcomes if isinstance(outcome, PictureRecord)]
    written = sum(file.size_bytes for record in records for file in record.files)
    assert -budget.shares[-1][1] == written > 0
    assert (sum(n for n, _ in budget.shares), sum(size for _, size in budget.shares)) == (0, 0)


def test_files_larger_than_the_budget_never_block_writers(
    recipe: Recipe, destination: Destination, tmp_path: Path
) -> None:
    pictures = plain(tmp_path, range(100))
    threads = StageThreads(Segmenter(recipe, destination, PassingEngine(), budget=ByteBudget(1)), 1)
    done: list[Done] = []

    def run() -> None:
        stream = threads.stream(1)
        for picture in pictures:
            done.extend(stream.add(picture))
        done.extend(stream.finish())

    # A thread that need not end, so that a deadlock fails the test instead of blocking it.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert sorted(outcome.image_id for outcomes, _ in done for outcome in outcomes) == [p.image_id for p in pictures]
    threads.shutdown()


def test_a_batch_that_breaks_the_job_gives_its_share_back(
    recipe: Recipe, destination: Destination, tmp_path: Path
) -> None:
    class Broken(PassingEngine):
        def logits(self, batch: Batch) -> Logits:
            raise EngineError("no engine at all")

    budget = CountedBudget()
    with pytest.raises(EngineError):
        Segmenter(recipe, destination, Broken(), budget=budget).segment(plain(tmp_path, [1, 2]))
    assert (sum(n for n, _ in budget.shares), sum(size for _, size in budget.shares)) == (0, 0)


def test_a_file_of_unknown_size_is_read_up_to_the_maximum_picture_size(
    recipe: Recipe, destination: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int | None] = []

    def noted(uri: str, most_bytes: int | None = None) -> bytes:
        asked.append(most_bytes)
        return b"no picture"

    monkeypatch.setattr(filesystem, "read_bytes", noted)
    located = Located("a.png", FileRef("s3://bucket/a.png"))
    assert only(Segmenter(recipe, destination, PassingEngine()).segment([located])[0]).error_type == "NotAPicture"
    assert asked == [max_file_bytes(recipe.max_pixels)]
