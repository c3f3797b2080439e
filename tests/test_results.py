"""The files of failures, the status of a run and what a file that can't be written costs, without Beam."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from records_of import classes_of, record_of

from pipeline.core.errors import PictureError, StorageError
from pipeline.core.records import Failure
from pipeline.core.spec import ModelSpec
from pipeline.core.totals import Totals
from pipeline.output.delivery import Delivery
from pipeline.output.outputs import Destination, EncodedFile
from pipeline.output.removal import MaskCounts
from pipeline.output.results import ResultsWriter, RunInfo, WrittenFailures
from pipeline.storage import filesystem

SCORED, UNSCORED = record_of("a.png", [[3, 0], [0, 1]]), record_of("b.png", [[3, 0], [0, 1]], scored=False)


def _writer(output: Path, **run: Any) -> ResultsWriter:
    info = RunInfo(0.0, {}, {}, **{"max_failure_ratio": 0.0, **run})
    spec = ModelSpec("m", 8, 8, 3, tuple(classes_of(2)))
    return ResultsWriter(Destination(str(output), ()), spec, "m", "digest", info)


def _failure(number: int, stage: str, error_type: str) -> Failure:
    return Failure(f"{number:03d}.png", f"/in/{number:03d}.png", stage, error_type, "it is broken", "")


def test_failures_of_pictures_and_of_truths_are_counted_apart(tmp_path: Path) -> None:
    failures = [_failure(number, "decode", "Broken") for number in range(3)]
    failures += [_failure(3, "truth", "SizeMismatch"), _failure(4, "truth", "Broken")]
    written = _writer(tmp_path).write_failures(failures)
    assert (written.count, written.truth_count) == (3, 2)
    assert written.by_type == {"Broken": 4, "SizeMismatch": 1}
    assert written.first == tuple(failures)
    lines = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["image_id"] for line in lines] == [failure.image_id for failure in failures]


@pytest.mark.parametrize("count", [0, 99, 100, 101, 150])
def test_the_report_shows_the_first_hundred(tmp_path: Path, count: int) -> None:
    failures = [_failure(number, "decode", "Broken") for number in range(count)]
    written = _writer(tmp_path).write_failures(failures)
    assert written.first == tuple(failures[:100])
    assert written.count == len((tmp_path / "failures.jsonl").read_text().splitlines()) == count


@pytest.mark.parametrize(
    ("pictures", "failures", "truth_failures", "max_ratio", "status"),
    [
        (0, 0, 0, 0.0, "done"),
        (4, 0, 0, 0.0, "done"),
        (4, 1, 0, 0.0, "too_many_failures"),
        # A share that is met is not exceeded; the pictures are those that were found, failures included.
        (3, 1, 0, 0.25, "done"),
        (3, 1, 0, 0.24, "too_many_failures"),
        (4, 0, 1, 0.25, "done"),
        (4, 0, 1, 0.24, "too_many_failures"),
        (3, 1, 1, 0.5, "done"),
        (3, 1, 1, 0.49, "too_many_failures"),
        (0, 0, 1, 0.0, "too_many_failures"),
    ],
)
def test_the_status_is_that_of_the_share_of_failures(
    tmp_path: Path, pictures: int, failures: int, truth_failures: int, max_ratio: float, status: str
) -> None:
    assert _status(tmp_path, [SCORED] * pictures, failures, truth_failures, max_failure_ratio=max_ratio) == status


@pytest.mark.parametrize(
    ("records", "wants_truth", "status"),
    [
        ([UNSCORED], True, "no_ground_truth"),
        ([UNSCORED, SCORED], True, "done"),
        ([UNSCORED], False, "done"),
        ([], True, "done"),
    ],
)
def test_asked_for_truth_that_scores_nothing_is_a_status(
    tmp_path: Path, records: list[Any], wants_truth: bool, status: str
) -> None:
    assert _status(tmp_path, records, 0, 0, wants_truth=wants_truth) == status


def _status(output: Path, records: list[Any], failures: int, truth_failures: int, **run: Any) -> str:
    # Tables and journal are written before.
    for folder in ("images", "_progress/journal"):
        (output / folder).mkdir(parents=True)
    written = WrittenFailures(failures, (), {}, truth_failures)
    writer = _writer(output, **run)
    totals = Totals.of(records, 2)
    summary = writer.write_summary(totals, written, (), removed=MaskCounts(), counts={}, groups={})
    assert json.loads((output / "summary.json").read_text()) == json.loads(json.dumps(summary))
    images = summary["images"]
    assert (images["found"], images["failed"], images["truth_failed"]) == (
        len(records) + failures,
        failures,
        truth_failures,
    )
    return str(summary["run"]["status"])


@pytest.mark.parametrize(
    ("root", "number", "costs_the_picture"),
    [
        ("/out", errno.ENAMETOOLONG, True),
        ("/out", errno.EILSEQ, True),
        ("/out", errno.ENOSPC, False),
        ("/out", errno.EACCES, False),
        # A store's error of such a number says nothing about the name.
        ("s3://bucket/out", errno.EINVAL, False),
    ],
)
def test_a_name_that_is_not_accepted_costs_its_picture(
    monkeypatch: pytest.MonkeyPatch, root: str, number: int, costs_the_picture: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no")

    for name in ("write_bytes", "delete"):
        monkeypatch.setattr(filesystem, name, fail)
    delivery = Delivery(root)
    with pytest.raises(PictureError if costs_the_picture else StorageError) as caught:
        delivery.write("a.png", [EncodedFile("mask", "digest", "masks/a.png.png", b"data")])
    if isinstance(caught.value, PictureError):
        assert (caught.value.stage, caught.value.error_type) == ("write", "UnwritableName")
        delivery.remove("a.png")
    else:
        with pytest.raises(StorageError, match=r"the output can't be written: a\.png: no"):
            delivery.remove("a.png")
