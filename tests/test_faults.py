"""Faults: of a picture, of the engine, of a store, of a bundle. Each costs what it must and nothing more."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_archive import TINY_MODEL, Archive, Finished, run_job

from pipeline.core.errors import EngineError
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, FileRef, Located, PictureRecord
from pipeline.engines.base import Batch, Engine, Logits
from pipeline.engines.model_folder import open_model
from pipeline.output.mask_output import MaskOutput
from pipeline.output.outputs import Destination
from pipeline.segmenting.segmenter import Segmenter
from pipeline.storage import filesystem, local_files, retries

POISON = 255


class FakeEngine:
    """Says class 0 everywhere, unless a batch holds poison or is too large.

    Args:
        most: larger batches need too much memory.
        raises: what poison does.
    """

    def __init__(self, most: int = 1000, raises: Exception | None = None) -> None:
        self._most = most
        self._raises = raises or RuntimeError("the network divides by zero")
        self.batches: list[int] = []

    def logits(self, batch: Batch) -> Logits:
        self.batches.append(len(batch))
        if len(batch) > self._most:
            raise MemoryError
        if (batch.reshape(len(batch), -1).min(axis=1) == POISON).any():
            raise self._raises
        return np.repeat(np.float32([[[[1, 0, 0]]]]), len(batch), axis=0)


def pictures(folder: Path, count: int, poison: int | None = None) -> list[Located]:
    located = []
    for number in range(count):
        path = folder / f"{number:02d}.png"
        level = POISON if number == poison else 7 * number
        Image.new("RGB", (9, 5), (level, level, level)).save(path)
        located.append(Located(path.name, FileRef(str(path), path.stat().st_size)))
    return located


def segmenter(engine: Engine, output: Path, read: Callable[[FileRef], bytes] | None = None) -> Segmenter:
    model = open_model(str(TINY_MODEL))
    recipe = Recipe(model.spec, model.digest, model.spec.labels(), None, 10_000)
    return Segmenter(recipe, Destination(str(output), (MaskOutput(recipe),)), engine, read)


@pytest.mark.parametrize("poison", [0, 13, 16, 31])
def test_one_bad_picture_in_a_batch_of_32_is_one_failure(tmp_path: Path, poison: int) -> None:
    engine = FakeEngine()
    outcomes, _ = segmenter(engine, tmp_path / "out").segment(pictures(tmp_path, 32, poison))
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [failure.image_id for failure in failed] == [f"{poison:02d}.png"]
    assert (failed[0].stage, failed[0].error_type) == ("segment", "EngineFailed")
    assert "divides by zero" in failed[0].message
    masks = sorted(path.name for path in (tmp_path / "out/masks").iterdir())
    assert masks == [f"{number:02d}.png.png" for number in range(32) if number != poison]
    assert [outcome.image_id for outcome in outcomes] == [f"{number:02d}.png" for number in range(32)]
    assert len(engine.batches) == 11  # 32, then two halves at each of five levels


def test_a_batch_too_large_for_memory_is_halved_and_the_size_remembered(tmp_path: Path) -> None:
    engine = FakeEngine(most=10)
    work = segmenter(engine, tmp_path / "out")
    located = pictures(tmp_path, 32)
    assert all(isinstance(outcome, PictureRecord) for outcome in work.segment(located)[0])
    assert engine.batches[0] == 32
    engine.batches.clear()
    assert all(isinstance(outcome, PictureRecord) for outcome in work.segment(located)[0])
    assert engine.batches == [8, 8, 8, 8]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("failed to allocate 2 GB"), RuntimeError("CUDA out of memory")]
)
def test_a_picture_alone_too_large_for_memory_says_so(tmp_path: Path, error: Exception) -> None:
    outcomes, _ = segmenter(FakeEngine(raises=error), tmp_path / "out").segment(pictures(tmp_path, 4, 2))
    assert [getattr(outcome, "error_type", "") for outcome in outcomes] == ["", "", "OutOfMemory", ""]


def test_a_broken_engine_is_not_a_failure_of_pictures(tmp_path: Path) -> None:
    work = segmenter(FakeEngine(raises=EngineError("gone")), tmp_path / "out")
    with pytest.raises(EngineError):
        work.segment(pictures(tmp_path, 4, 2))


def test_an_engine_that_fails_its_self_test_stops_the_job_at_once(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.engines.litert import LiteRTEngine

    def nothing_finite(_: object, batch: Batch) -> Logits:
        return np.full((len(batch), 4, 4, 3), np.nan, np.float32)

    monkeypatch.setattr(LiteRTEngine, "logits", nothing_finite)
    finished = run_job(tmp_path / "out", "--input", archive.images)
    assert finished.status == 1
    lines = [line for line in finished.err.splitlines() if "stopped after" not in line]
    assert lines == ["maskbeam: the engine's output for a plain picture is not finite"]
    assert not (tmp_path / "out/summary.json").exists()
    assert not (tmp_path / "out/masks").exists()


# Stores.


@pytest.mark.parametrize(
    ("number", "passes"),
    [(errno.EIO, True), (errno.ESTALE, True), (errno.ETIMEDOUT, True), (errno.ENOSPC, False), (errno.EACCES, False)],
)
def test_which_faults_of_a_disk_may_pass(number: int, passes: bool) -> None:
    assert retries.is_transient_local(OSError(number, "")) is passes


def test_waits_double_with_jitter_and_end() -> None:
    waits: list[float] = []
    faults = iter([OSError(errno.ETIMEDOUT, "")] * 20)

    def act() -> None:
        raise next(faults)

    with pytest.raises(TimeoutError):
        retries.with_retries(act, retries.is_transient_local, sleep=waits.append, draw=lambda: 0.0)
    assert waits == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert len(list(faults)) == 20 - retries.ATTEMPTS
    waits.clear()
    with pytest.raises(KeyError):
        retries.with_retries(lambda: {}["a"], retries.is_transient_local, sleep=waits.append)
    assert waits == []


@pytest.mark.parametrize(("seconds", "count"), [(retries.JOB_PATIENCE_S, 4), (retries.CHECK_PATIENCE_S, 1)])
def test_patience_ends_where_each_attempt_takes_long(seconds: float, count: int) -> None:
    times = iter(range(0, 10_000, 50))
    attempts: list[int] = []

    def act() -> None:
        attempts.append(1)
        raise OSError(errno.ETIMEDOUT, "")

    with retries.patience(seconds), pytest.raises(TimeoutError):
        retries.with_retries(act, retries.is_transient_local, sleep=lambda _: None, clock=lambda: float(next(times)))
    assert len(attempts) == count


def test_a_store_that_fails_twice_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries.time, "sleep", lambda _: None)
    monkeypatch.setattr(retries, "FIRST_DELAY_S", 0.0)
    faults = {"read": 2, "write": 2}
    read, write = local_files._read, local_files._write_new

    def failing_read(*arguments: Any) -> bytes:
        faults["read"] -= 1
        if faults["read"] >= 0:
            raise OSError(errno.EIO, "Input/output error")
        return read(*arguments)

    def failing_write(path: str, data: bytes) -> None:
        write(path, data[:3])
        faults["write"] -= 1
        if faults["write"] >= 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        os.unlink(path)
        write(path, data)

    monkeypatch.setattr(local_files, "_read", failing_read)
    monkeypatch.setattr(local_files, "_write_new", failing_write)
    filesystem.write_bytes(str(tmp_path / "a/b"), b"content", str(tmp_path / "tmp"))
    assert filesystem.read_bytes(str(tmp_path / "a/b")) == b"content"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_a_store_never_gives_is_a_failure_that_is_retried(tmp_path: Path) -> None:
    from pipeline.output.resume import RETRIED_ERRORS

    faults: dict[str, Exception] = {
        "00.png": FileNotFoundError("gone"),
        "01.png": PermissionError(errno.EACCES, "Permission denied"),
        "02.png": filesystem.StoreFaultError(errno.EIO, "503 Slow Down"),
        "03.png": ValueError("the archive's member can't be unpacked"),
    }

    def read(file: FileRef) -> bytes:
        if os.path.basename(file.uri) in faults:
            raise faults[os.path.basename(file.uri)]
        return filesystem.read_bytes(file.uri)

    outcomes, _ = segmenter(FakeEngine(), tmp_path / "out", read).segment(pictures(tmp_path, 5))
    types = [getattr(outcome, "error_type", "") for outcome in outcomes]
    assert types == ["Missing", "Unreadable", "StoreFault", "Unreadable", ""]
    assert set(types[:4]) <= RETRIED_ERRORS


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    manifest = tmp_path / "list.csv"
    manifest.write_text("image,image_id\npipe.jpg,pipe.jpg\n/dev/zero,zero.jpg\n")
    finished = run_job(tmp_path / "out", "--input", manifest, "--max_failure_ratio", 1)
    assert [(f["image_id"], f["error_type"]) for f in finished.failures] == [
        ("pipe.jpg", "Unreadable"),
        ("zero.jpg", "Unreadable"),
    ]


def test_a_file_too_large_for_any_picture_is_not_read(tmp_path: Path) -> None:
    giant = tmp_path / "in/giant.jpg"
    giant.parent.mkdir()
    with giant.open("wb") as file:
        file.truncate(300 << 30)  # takes no room on the disk
    asked: list[str] = []
    work = segmenter(FakeEngine(), tmp_path / "out", lambda file: asked.append(file.uri) or b"")
    (outcome,), _ = work.segment([Located("giant.jpg", FileRef(str(giant), 300 << 30))])
    assert isinstance(outcome, Failure)
    assert outcome.error_type == "FileTooLarge"
    assert asked == []


# Bundles.


def in_bundles_that(happen: Callable[[Any, Callable[[bool], Any]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts `happen` between Beam's local runner and its bundles; its argument does the bundle, as a dry run or not."""
    from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager

    process = BundleManager.process_bundle

    def process_bundle(self: Any, *arguments: Any) -> Any:
        return happen(self, lambda dry: process(self, *arguments[:4], dry or (arguments[4:] or (False,))[0]))

    monkeypatch.setattr(BundleManager, "process_bundle", process_bundle)


def left_by(finished: Finished) -> tuple[Any, ...]:
    return finished.status, finished.contents(), {k: v for k, v in finished.summary.items() if k != "run"}


def test_bundles_done_twice_count_once(archive: Archive, tmp_path: Path, scored_job: Finished) -> None:
    sources = ["--input", archive.images, "--ground_truth", archive.masks]
    repeated = run_job(tmp_path / "out", *sources, "--direct_runner_bundle_repeat=1")
    assert left_by(repeated) == left_by(scored_job)
    assert repeated.summary["run"]["resumed"] == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_bundles_that_fail_once_at_random_change_nothing(
    archive: Archive, tmp_path: Path, scored_job: Finished, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    from pipeline.output.results import ResultsWriter
    from pipeline.transforms import locate_pictures as locate
    from pipeline.transforms import segment_images as segment

    draw = random.Random(seed)
    failing, faults = [False], list[str]()

    def sometimes(act: Callable[..., Any], share: float) -> Callable[..., Any]:
        def acts(*arguments: Any, **named: Any) -> Any:
            result = act(*arguments, **named)
            if failing[0] and draw.random() < share:
                raise RuntimeError("a worker was lost")
            return result

        return acts

    for holder, name, share in (
        (segment._SegmentDoFn, "process", 0.1),
        (segment._SegmentDoFn, "finish_bundle", 0.5),
        (locate._PairDoFn, "process", 0.1),
        (ResultsWriter, "write_shard", 0.5),
        (ResultsWriter, "write_failures", 0.5),
        (ResultsWriter, "write_summary", 0.5),
    ):
        monkeypatch.setattr(holder, name, sometimes(getattr(holder, name), share))

    def fail_first(_: Any, process: Callable[[bool], Any]) -> Any:
        failing[0] = True
        try:
            process(True)  # what the lost attempt has put out counts for nothing
        except RuntimeError as error:
            faults.append(str(error))
        finally:
            failing[0] = False
        return process(False)

    in_bundles_that(fail_first, monkeypatch)
    finished = run_job(tmp_path / "out", "--input", archive.images, "--ground_truth", archive.masks)
    assert len(faults) >= 2
    assert all("a worker was lost" in fault for fault in faults)
    assert left_by(finished) == left_by(scored_job)
