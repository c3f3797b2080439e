"""Resuming: after any earlier run, the next one has the results of an undisturbed one and does only what is missing."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_archive import Archive, Finished, draw_picture, make_archive, run_job, save_mask

from pipeline.output.earlier_run import EXISTING
from pipeline.output.results import ResultsWriter
from pipeline.segmenting import preparing


def numbers(finished: Finished) -> dict[str, Any]:
    """The summary without the part about the run itself."""
    return {name: value for name, value in finished.summary.items() if name != "run"}


def same(first: Finished, second: Finished) -> None:
    """Both left the same masks, tables, failures and numbers."""
    assert first.contents() == second.contents()
    assert numbers(first) == numbers(second)


def run(archive: Archive, output: Path, *arguments: object) -> Finished:
    return run_job(
        output, "--input", archive.images, "--ground_truth", archive.masks, "--max_failure_ratio", 1, *arguments
    )


@dataclass(frozen=True)
class Done:
    """An archive and a finished job on it, which a test may spoil as it likes.

    Args:
        archive: the pictures; one file more is no picture.
        output: the job's folder, as it was when the job ended.
        contents: of the output's files at that time.
        numbers: of its summary.
    """

    archive: Archive
    output: Path
    contents: dict[str, bytes]
    numbers: dict[str, Any]

    def again(self, *arguments: object) -> Finished:
        return run(self.archive, self.output, *arguments)

    def is_as_left(self, finished: Finished) -> bool:
        return (finished.contents(), numbers(finished)) == (self.contents, self.numbers)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One job for all tests of this file; `done` copies it for each."""
    root = tmp_path_factory.mktemp("resume")
    archive = make_archive(root / "archive")
    (archive.images / "north/broken.png").write_bytes(b"no picture")
    finished = run(archive, root / "out")
    shutil.copytree(root, root / "kept")
    return Done(archive, root / "out", finished.contents(), numbers(finished))


@pytest.fixture
def done(kept: Done) -> Done:
    root = kept.output.parent
    for name in ("archive", "out"):
        shutil.rmtree(root / name)
        shutil.copytree(root / "kept" / name, root / name)  # times of change and all
    return kept


def test_a_finished_job_is_not_done_again(done: Done) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done.output / "masks").rglob("*.png")}
    again = done.again()
    assert (again.status, again.summary["run"]["resumed"]) == (0, 20)
    assert done.is_as_left(again)
    assert {path: path.stat().st_mtime_ns for path in (done.output / "masks").rglob("*.png")} == before
    assert "20 by an earlier run" in again.out
    # Few files, not one a picture: a shard's part and that of the failures.
    assert len(list((done.output / "_progress/journal").iterdir())) == 2


def test_changed_pictures_are_done_again_and_removed_ones_deleted(done: Done, tmp_path: Path) -> None:
    images, ids = done.archive.images, done.archive.image_ids
    Image.open(images / ids[0]).rotate(180).save(images / ids[0], "PNG")
    truth = done.archive.mask_path(ids[1])
    truth.write_bytes(truth.read_bytes())
    (images / ids[-2]).write_bytes(b"spoilt")
    shutil.rmtree(images / "north/deep")
    shutil.copy(images / "grey.png", images / "added.png")
    gone = [image_id for image_id in ids if image_id.startswith("north/deep/")]
    again = done.again("--prune")
    # A new truth is only counted.
    assert again.summary["run"]["resumed"] == 20 - len({ids[0], ids[-2], *gone})
    assert again.summary["run"]["updated"] == 1
    assert (done.output / "masks/north").exists()
    assert not (done.output / "masks/north/deep").exists()
    same(again, run(done.archive, tmp_path / "fresh"))


@pytest.mark.full
def test_one_of_395_changed_is_one_done(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "in/images", tmp_path / "in/masks", ())
    for number in range(395):
        pixels = draw_picture(number, 40 + number % 17, 60 - number % 13)
        path = archive.images / f"{number % 9}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        save_mask(archive.masks / f"{number % 9}/{number}.png", pixels.argmax(axis=2).astype(np.uint8))
    run(archive, tmp_path / "out")
    Image.fromarray(draw_picture(1000, 40, 60)).resize((48, 56)).save(archive.images / "1/10.png")
    save_mask(archive.masks / "1/10.png", np.zeros((56, 48), np.uint8))
    again = run(archive, tmp_path / "out")
    assert again.summary["run"]["resumed"] == 394
    same(again, run(archive, tmp_path / "fresh"))


@pytest.mark.parametrize("ending", ["tar.gz", "zip"])
def test_archives_are_resumed_member_by_member(done: Done, tmp_path: Path, ending: str) -> None:
    kind = {"tar.gz": "gztar", "zip": "zip"}[ending]
    packed = shutil.make_archive(str(tmp_path / "packed"), kind, done.archive.images)
    more = ["--max_failure_ratio", 1, "--overlays", 3]
    first = run_job(tmp_path / "out", "--input", packed, *more)
    left = first.contents(), numbers(first)
    taken = sorted((tmp_path / "out/overlays").rglob("*.png"))
    assert len(taken) == 3
    (tmp_path / f"out/masks/{done.archive.image_ids[0]}.png").unlink()
    again = run_job(tmp_path / "out", "--input", packed, *more)
    assert again.summary["run"]["resumed"] == 19
    assert (again.contents(), numbers(again)) == left
    assert sorted((tmp_path / "out/overlays").rglob("*.png")) == taken


def test_a_stopped_run_of_another_model_damages_nothing(done: Done) -> None:
    # Another model's run got as far as two masks, and was killed before it recorded any.
    (done.output / "summary.json").unlink()
    for image_id in done.archive.image_ids[:2]:
        mask = done.output / f"masks/{image_id}.png"
        mask.write_bytes(bytes(len(mask.read_bytes())))
    again = done.again()
    assert again.summary["run"]["resumed"] == 18
    assert done.is_as_left(again)


def test_masks_that_were_deleted_or_changed_are_made_again(done: Done) -> None:
    taken, cut, painted = (done.output / f"masks/{image_id}.png" for image_id in done.archive.image_ids[:3])
    taken.unlink()
    times = cut.stat().st_mtime_ns
    cut.write_bytes(cut.read_bytes()[:-5])
    os.utime(cut, ns=(times, times))
    painted.write_bytes(painted.read_bytes()[::-1])
    again = done.again()
    assert again.summary["run"]["resumed"] == 17
    assert done.is_as_left(again)


def test_failures_are_kept_unless_caused_by_storage(done: Done, tmp_path: Path) -> None:
    images = done.archive.images
    manifest = tmp_path / "list.csv"
    names = [*done.archive.image_ids[:3], "north/broken.png", "missing.png"]
    manifest.write_text("image\n" + "".join(f"{images / name}\n" for name in names))

    def again(*arguments: object) -> Finished:
        return run_job(tmp_path / "out", "--input", manifest, "--max_failure_ratio", 1, *arguments)

    assert [failure["error_type"] for failure in again().failures] == ["Missing", "NotAPicture"]
    shutil.copy(images / "grey.png", images / "missing.png")
    second = again()
    assert [failure["image_id"] for failure in second.failures] == ["north/broken.png"]
    assert second.summary["run"]["resumed"] == 3
    # The failure is remembered with the file's version, so this change of it is seen.
    shutil.copy(images / "grey.png", images / "north/broken.png")
    assert again().failures == []


def test_retry_failed(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    opened = preparing.open_raster
    monkeypatch.setattr(preparing, "open_raster", lambda *a, **k: tried.append(1) or opened(*a, **k))
    assert done.is_as_left(done.again())
    assert tried == []
    assert done.is_as_left(done.again("--retry_failed"))
    assert tried == [1]


def test_existing_overwrite_and_error(done: Done) -> None:
    refused = done.again("--existing", "error")
    assert refused.status == 2
    assert "has results" in refused.err
    assert refused.err.count("\n") == 1
    anew = done.again("--existing", "overwrite")
    assert anew.summary["run"]["resumed"] == 0
    assert done.is_as_left(anew)


def test_an_interrupted_job_leaves_no_summary_and_is_resumed(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise RuntimeError("stopped for the test")

    output = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(ResultsWriter, "write_shard", stop)
        with pytest.raises(RuntimeError):
            run(done.archive, output)
    assert not (output / "summary.json").exists()
    again = run(done.archive, output)
    assert again.summary["run"]["resumed"] == 20
    assert done.is_as_left(again)


@pytest.mark.parametrize(("below", "said"), [("images/out", "is within"), ("", "writes to its folder images")])
def test_an_output_that_is_its_own_input_is_refused(done: Done, below: str, said: str) -> None:
    refused = run(done.archive, done.archive.images.parent / below)
    assert refused.status == 2
    assert said in refused.err


@pytest.mark.parametrize("folder", ["masks", "overlays", "probabilities"])
def test_other_files_are_not_touched(folder: str, done: Done, tmp_path: Path) -> None:
    precious = tmp_path / f"out/{folder}/by_hand.png"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"weeks of work")
    for existing in EXISTING:
        refused = run(done.archive, tmp_path / "out", "--existing", existing)
        assert refused.status == 2
        assert f"a folder {folder} that maskbeam did not write" in refused.err
    assert precious.read_bytes() == b"weeks of work"


def test_partial_files_of_killed_processes_are_deleted(done: Done) -> None:
    left = done.output / "_progress/tmp/.4711-abc.tmp"
    left.write_bytes(b"half a mas")
    assert done.is_as_left(done.again())
    assert list(left.parent.iterdir()) == []
