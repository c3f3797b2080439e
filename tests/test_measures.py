"""Measures: what they find in strips, and what it takes to add one."""

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records_of import classes_of
from small_archive import CLASS_NAMES, Archive, run_job

from pipeline.core import strips
from pipeline.core.measures import measures
from pipeline.core.measures.measure import Column, Detail, Number, SummaryPart
from pipeline.core.records import PictureRecord, Value
from pipeline.core.scores import confusion_matrix, matrix_of
from pipeline.core.statistics import statistics
from pipeline.core.strips import Strip, strip_bounds
from pipeline.core.totals import Totals

Mask = npt.NDArray[np.uint8]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5_000), st.integers(1, 70_000))
def test_strips_are_the_whole_picture_without_gaps(height: int, width: int) -> None:
    with mock.patch.object(strips, "MAX_STRIP_PIXELS", 100_000):
        bounds = list(strip_bounds(height, width))
    assert [row for top, end in bounds for row in (top, end)] == [
        row for top, end in itertools.pairwise([0, *(end for _, end in bounds)]) for row in (top, end)
    ]
    assert bounds[-1][1] == height
    heights = [end - top for top, end in bounds]
    assert min(heights) > 0
    # As few as hold the limit; a row is never divided.
    assert max(heights) * width <= 100_000
    assert len(bounds) == -(-height // (100_000 // width))


def test_a_row_longer_than_a_strip_is_a_strip() -> None:
    with mock.patch.object(strips, "MAX_STRIP_PIXELS", 10):
        assert list(strip_bounds(3, 11)) == [(0, 1), (1, 2), (2, 3)]


def _strips(mask: Mask, truth: Mask | None, cuts: list[int]) -> list[Strip]:
    edges = [0, *sorted(set(cuts) & set(range(1, len(mask)))), len(mask)]

    def no_probabilities() -> npt.NDArray[np.uint8]:
        raise AssertionError("not requested")

    return [
        Strip(top, mask[top:end], None, None if truth is None else truth[top:end], no_probabilities)
        for top, end in itertools.pairwise(edges)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.lists(st.integers(1, 29), max_size=6), st.booleans())
def test_a_picture_has_the_same_values_for_any_strips(
    seed: int, num_classes: int, cuts: list[int], has_truth: bool
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, num_classes, (30, 7)).astype(np.uint8)
    # Some rows are all ignored: a strip of them has an empty matrix.
    truth = np.where(rng.random((30, 1)) < 0.3, num_classes, rng.integers(0, num_classes, (30, 7))).astype(np.uint8)
    values = dict(
        measures.measure_picture(_strips(mask, truth if has_truth else None, cuts), measures.measures_for(num_classes))
    )
    assert values["area_px"] == tuple(np.bincount(mask.ravel(), minlength=num_classes).tolist())
    assert ("confusion" in values) == has_truth
    if has_truth:
        expected = confusion_matrix(truth, mask, num_classes)
        np.testing.assert_array_equal(matrix_of(values["confusion"], num_classes), expected)
        assert list(values["confusion"][0::2]) == np.flatnonzero(expected).tolist()
    assert all(type(number) is int for value in values.values() for number in value)


# A measure as a developer would add it: where a class begins and ends in a picture.


@dataclass(frozen=True, slots=True)
class RowsOfClasses:
    """First row and row count of each class; the value is first row, last row + 1 a class, both 0 without pixels."""

    num_classes: int
    name = "rows"
    columns = (Column("first_row", "int64"), Column("rows", "int64"), Column("tallest", "int64", by_class=False))

    def of(self, strip: Strip) -> Value:
        bounds: list[int] = []
        for class_id in range(self.num_classes):
            rows = np.flatnonzero((strip.mask == class_id).any(axis=1)).tolist()
            bounds += [strip.top + rows[0], strip.top + rows[-1] + 1] if rows else [0, 0]
        return tuple(bounds)

    def combined(self, above: Value, below: Value) -> Value:
        bounds: list[int] = []
        for first, last, next_first, next_last in zip(above[::2], above[1::2], below[::2], below[1::2], strict=True):
            bounds += [first if last else next_first, next_last or last]
        return tuple(bounds)

    def row(self, value: Value, picture: PictureRecord) -> tuple[list[Number] | Number, ...]:
        firsts: list[Number] = [first if last else None for first, last in zip(value[::2], value[1::2], strict=True)]
        counts: list[Number] = [last - first for first, last in zip(value[::2], value[1::2], strict=True)]
        return firsts, counts, max(filter(None, counts))

    def sums(self, detail: Detail) -> "RowSums":
        return RowSums([0] * self.num_classes)


@dataclass(slots=True)
class RowSums:
    """The largest number of rows of each class."""

    most: list[int]
    pictures: int = field(default=0)

    def add(self, value: Value, picture: PictureRecord) -> None:
        self.merge(RowSums([last - first for first, last in zip(value[::2], value[1::2], strict=True)], 1))

    def merge(self, other: "RowSums") -> None:
        self.pictures += other.pictures
        self.most = list(map(max, self.most, other.most))

    def summary(self) -> SummaryPart:
        return SummaryPart([{"most_rows": rows} for rows in self.most], {"most_rows": max(self.most)})


def test_a_new_measure_is_one_class_and_one_line(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "MEASURES", (*measures.MEASURES, RowsOfClasses))
    options = ["--input", archive.images, "--group_by_regex", "^([^/]+)/"]
    job = run_job(tmp_path / "out", *options)
    assert job.status == 0, job.err
    expected: dict[str, list[int]] = {name: [] for name in CLASS_NAMES}
    for row in job.rows:
        mask = job.masks[row["image_id"]]
        for class_id, name in enumerate(CLASS_NAMES):
            rows = np.flatnonzero((mask == class_id).any(axis=1))
            assert row[f"first_row_{name}"] == (rows[0] if rows.size else None)
            assert row[f"rows_{name}"] == (rows[-1] + 1 - rows[0] if rows.size else 0)
            expected[name].append(row[f"rows_{name}"])
        assert row["tallest"] == max(row[f"rows_{name}"] for name in CLASS_NAMES)
    assert [row["most_rows"] for row in job.summary["classes"]] == [max(rows) for rows in expected.values()]
    assert job.summary["metrics"]["most_rows"] == max(map(max, expected.values()))
    assert {"most_rows"} < set(job.summary["groups"]["north"]["classes"][0])
    header, *lines = (job.output / "summary.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[header.split(",").index("most_rows")] for line in lines] == [
        str(row["most_rows"]) for row in job.summary["classes"]
    ]
    # A resume takes the values from the journal.
    again = run_job(tmp_path / "out", *options)
    assert again.summary["run"]["resumed"] == len(archive.image_ids)
    assert again.rows == job.rows
    assert again.summary["classes"] == job.summary["classes"]


@given(st.lists(st.integers(1, 29), max_size=6))
def test_the_new_measure_adds_up_over_strips(cuts: list[int]) -> None:
    mask = (np.arange(30) // 13).astype(np.uint8)[:, None].repeat(3, axis=1)
    values = dict(measures.measure_picture(_strips(mask, None, cuts), (RowsOfClasses(4),)))
    assert values["rows"] == (0, 13, 13, 26, 26, 30, 0, 0)


@dataclass(frozen=True, slots=True)
class Corner:
    """The class in the first pixel: a measure that says nothing of classes, but something of the whole job."""

    num_classes: int
    name = "corner"
    columns = (Column("corner", "int64", by_class=False),)

    def of(self, strip: Strip) -> Value:
        return (int(strip.mask[0, 0]),)

    def combined(self, above: Value, below: Value) -> Value:
        return above

    def row(self, value: Value, picture: PictureRecord) -> tuple[list[Number] | Number, ...]:
        return value

    def sums(self, detail: Detail) -> "CornerSums":
        return CornerSums()


@dataclass(slots=True)
class CornerSums:
    """The largest of the classes in the first pixels."""

    pictures: int = 0
    largest: int = 0

    def add(self, value: Value, picture: PictureRecord) -> None:
        self.merge(CornerSums(1, value[0]))

    def merge(self, other: "CornerSums") -> None:
        self.pictures, self.largest = self.pictures + other.pictures, max(self.largest, other.largest)

    def summary(self) -> SummaryPart:
        return SummaryPart(metrics={"largest_corner": self.largest}, keys={"corners": self.pictures})


def test_the_parts_of_all_measures_are_in_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.array([[2, 1], [1, 0]], np.uint8)
    monkeypatch.setattr(measures, "MEASURES", (Corner, *measures.MEASURES, RowsOfClasses))
    values = measures.measure_picture(_strips(mask, mask, [1]), measures.measures_for(3))
    record = PictureRecord("a", "", "", 2, 2, "", 0, values=values)
    summary = statistics(Totals.of([record, replace(record, image_id="b")], 3), classes_of(3))
    assert (summary["metrics"]["largest_corner"], summary["corners"]) == (2, 2)
    assert summary["metrics"]["pixel_accuracy"] == 1.0
    assert summary["metrics"]["most_rows"] == 2
    assert summary["confusion_matrix"]["counts"] == [[2, 0, 0], [0, 4, 0], [0, 0, 2]]
    assert [(row["name"], row["area"]["px"], row["iou"], row["most_rows"]) for row in summary["classes"]] == [
        ("a", 2, 1.0, 1), ("b", 4, 1.0, 2), ("c", 2, 1.0, 1),
    ]  # fmt: skip


def test_no_two_measures_use_the_same_key() -> None:
    found = measures.measures_for(3)
    names = [measure.name for measure in found]
    columns = [column.name for measure in found for column in measure.columns]
    parts = [measure.sums(Detail()).summary() for measure in found]
    keys = [key for part in parts for key in (*(part.classes[0] if part.classes else ()), *part.metrics, *part.keys)]
    for every in (names, columns, keys):
        assert len(set(every)) == len(every)
