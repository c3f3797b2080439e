"""Masks of earlier runs are not taken away in silence, and many only on demand."""

import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from small_archive import TINY_MODEL, Finished, make_archive, run_job

from pipeline.core.errors import OptionError
from pipeline.output.removal import MaskCounts, check_removal, removal_text
from pipeline.output.results import ResultsWriter
from pipeline.transforms.remove_stale import DeleteStale

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 20


def test_a_tenth_may_be_removed() -> None:
    check_removal("out", MaskCounts(), may_remove=False)
    check_removal("out", MaskCounts(30, unlisted=1, unwanted=1, replaced=1), may_remove=False)
    with pytest.raises(
        OptionError, match=r"out: this run would remove 4 of 30 masks of earlier runs: 4 made by another"
    ):
        check_removal("out", MaskCounts(30, replaced=4), may_remove=False)
    check_removal("out", MaskCounts(30, replaced=30), may_remove=True)


def test_the_reasons_are_named() -> None:
    assert removal_text(MaskCounts(7)) == ""
    text = removal_text(MaskCounts(5000, 1200, 3, 40))
    assert text.startswith("1,243 of 5,000 masks of earlier runs: 1,200 of pictures that --input no longer names, 3 ")
    assert "40 made by another model or with other options" in text


def test_counts_add_up() -> None:
    assert MaskCounts.total([]) == MaskCounts()
    assert MaskCounts.total([MaskCounts(1, 1), MaskCounts(2, 0, 1, 1)]) == MaskCounts(3, 1, 1, 1)


def files_of(output: Path) -> dict[Path, bytes]:
    """All results, and the journal."""
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and path.name != "output.json"}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("removal")
    make_archive(root / "archive")
    run_job(root / "out", "--input", root / "archive/images")
    return root


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Path:
    for name in ("archive", "out"):
        shutil.copytree(first / name, tmp_path / name)
    # A copy is another folder with other files: its masks are this test's own.
    assert run_job(tmp_path / "out", "--input", tmp_path / "archive/images", "--prune").status == 0
    return tmp_path


def job(root: Path, *options: object) -> Finished:
    return run_job(root / "out", "--input", root / "archive/images", *options)


def test_another_input_is_refused_before_anything_is_removed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(root / "archive/images/north")
    left = 10
    before = files_of(root / "out")
    refused = job(root)
    assert refused.status == 1
    said = refused.err.splitlines()[-1]
    assert f"would remove {PICTURES - left} of {PICTURES} masks" in said
    assert "pictures that --input no longer names" in said
    assert "nothing was removed" in said
    assert files_of(root / "out") == before
    pruned = job(root, "--prune")
    assert (pruned.status, len(pruned.masks), pruned.summary["run"]["removed_masks"]) == (0, left, PICTURES - left)
    assert f"removing {PICTURES - left} of {PICTURES} masks" in caplog.text


def test_removing_few_masks_prints_a_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "archive/images/grey.png").unlink()
    done = job(root)
    assert (done.status, len(done.masks), done.summary["run"]["removed_masks"]) == (0, PICTURES - 1, 1)
    assert "removing 1 of 20 masks of earlier runs: 1 of pictures that --input no longer names" in caplog.text
    assert job(root).summary["run"]["removed_masks"] == 0


@pytest.mark.parametrize("finished", [False, True])
def test_another_model_is_refused(root: Path, finished: bool) -> None:
    if not finished:  # then only the job itself finds out
        (root / "out/summary.json").unlink()
    before = files_of(root / "out")
    refused = run_other(root)
    assert refused.status == (2 if finished else 1)
    assert "would remove 20 of 20 masks of earlier runs: 20 made by another model" in refused.err.splitlines()[-1]
    assert files_of(root / "out") == before
    replaced = run_other(root, "--existing", "overwrite")
    assert (replaced.status, replaced.summary["run"]["resumed"]) == (0, 0)
    back = job(root, "--prune")
    assert (back.status, back.summary["run"]["removed_masks"]) == (0, PICTURES)


def run_other(root: Path, *options: object) -> Finished:
    """The job with a model whose input is taller."""
    model = root / "model"
    if not model.exists():
        shutil.copytree(TINY_MODEL, model)
        text = (model / "metadata.json").read_text()
        (model / "metadata.json").write_text(text.replace('"height": 32', '"height": 48'))
    return run_job(root / "out", "--input", root / "archive/images", *options, model=model)


def test_no_masks_any_more_is_refused(root: Path) -> None:
    before = files_of(root / "out")
    refused = job(root, "--mask_format", "none")
    assert refused.status == 2
    assert "20 because of --mask_format none" in refused.err
    assert files_of(root / "out") == before
    assert job(root, "--mask_format", "none", "--prune").masks == {}


@pytest.mark.parametrize("mode", ["in_memory", pytest.param("multi_processing", marks=pytest.mark.full)])
def test_the_line_reaches_the_terminal(root: Path, mode: str) -> None:
    (root / "archive/images/grey.png").unlink()
    command = [sys.executable, "-m", "pipeline", "--input", root / "archive/images", "--model", TINY_MODEL]
    command += ["--output", root / "out", "--direct_running_mode", mode, "--direct_num_workers", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.count("removing 1 of 20 masks of earlier runs: 1 of pictures that --input no longer names") == 1


def test_changed_pictures_are_no_removal(root: Path) -> None:
    for path in (root / "archive/images").rglob("*.png"):
        path.write_bytes(path.read_bytes())
    done = job(root)
    assert done.status == 0
    assert done.summary["run"]["removed_masks"] == 0
    assert done.summary["run"]["resumed"] < PICTURES - 5


def test_deletion_comes_after_the_tables(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "archive/images/grey.png").unlink()

    def stop(*_: object, **__: object) -> None:
        raise RuntimeError("stopped for the test")

    with monkeypatch.context() as patched:
        patched.setattr(ResultsWriter, "write_shard", stop)
        with pytest.raises(RuntimeError, match="stopped for the test"):
            job(root)
    assert (root / "out/masks/grey.png.png").exists()
    # But the summary of the previous run is deleted by then.
    assert not (root / "out/summary.json").exists()
    job(root)
    assert not (root / "out/masks/grey.png.png").exists()


def test_files_of_no_picture_are_deleted_and_counted(tmp_path: Path) -> None:
    names = ("masks/a.png", "masks/deep/b.png", "masks/c.png")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mask")
    with beam.Pipeline(runner=FnApiRunner()) as root:
        written = root | "Written" >> beam.Create([1])
        deleted = root | beam.Create(names[:2]) | DeleteStale(str(tmp_path), after=written)
        assert_that(deleted, equal_to([2]))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["masks", "masks/c.png"]
