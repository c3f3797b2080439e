"""Tables: rows that say what the masks hold, typed columns, and the same bytes for the same rows."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records_of import random_records, record_of
from small_archive import CLASS_NAMES, Finished

from pipeline.core.layout import shard_name
from pipeline.core.records import Failure, OutputFile, PictureRecord
from pipeline.output.tables import (
    PICTURES_A_SHARD,
    failures_jsonl,
    pictures_parquet,
    shard_count,
    shard_of,
)

NAMES = ["Background", "grass & soil", "grass/soil"]


def table_of(records: list[PictureRecord], names: list[str] = NAMES) -> pa.Table:
    return pq.read_table(io.BytesIO(pictures_parquet(records, names, "digest")))


def row_of(record: PictureRecord, names: list[str] = NAMES) -> dict[str, Any]:
    (row,) = table_of([record], names).to_pylist()
    return row


def test_a_scored_row() -> None:
    record = record_of("b/a.png", [[6, 2, 0], [0, 8, 0], [0, 0, 0]], ignored=[4, 0, 0], pixel_area_m2=0.25)
    row = row_of(replace(record, files=(OutputFile("mask", "", 9),), group="north", source_bytes=77))
    assert list(row) == [
        *("image_id", "source_uri", "group", "width", "height", "mask_uri", "model_digest", "source_bytes"),
        *("area_px_background", "area_px_grass_soil", "area_px_grass_soil_2"),
        *("area_fraction_background", "area_fraction_grass_soil", "area_fraction_grass_soil_2"),
        *("area_m2_background", "area_m2_grass_soil", "area_m2_grass_soil_2"),
        *("iou_background", "iou_grass_soil", "iou_grass_soil_2"),
        *("dice_background", "dice_grass_soil", "dice_grass_soil_2"),
        "pixel_accuracy",
    ]
    assert (row["image_id"], row["source_uri"], row["group"]) == ("b/a.png", "in/b/a.png", "north")
    assert (row["mask_uri"], row["model_digest"], row["source_bytes"]) == ("masks/b/a.png.png", "digest", 77)
    # Ignored pixels have an area, and no part in the scores.
    assert [row[f"area_px_{slug}"] for slug in ("background", "grass_soil", "grass_soil_2")] == [10, 10, 0]
    assert row["area_fraction_background"] == 0.5
    assert row["area_m2_background"] == 2.5
    assert row["iou_background"] == 6 / 8
    assert row["dice_background"] == 12 / 14
    assert row["iou_grass_soil"] == 8 / 10
    assert row["iou_grass_soil_2"] is None
    assert row["pixel_accuracy"] == 14 / 16


def test_a_fraction_is_a_share_of_all_pixels() -> None:
    record = replace(record_of("a", [[6, 0, 0], [0, 18, 0], [0, 0, 0]]), width=8, height=3)
    assert row_of(record)["area_fraction_background"] == 0.25


def test_what_is_not_known_is_null() -> None:
    row = row_of(record_of("a", [[1, 0, 0], [0, 0, 0], [0, 0, 0]], scored=False))
    assert row["area_px_background"] == 1
    for name in ("group", "mask_uri", "area_m2_background", "iou_background", "dice_background", "pixel_accuracy"):
        assert row[name] is None


def test_columns_have_the_same_types_with_rows_and_without() -> None:
    scored = table_of([record_of("a", [[1, 0, 0], [0, 1, 0], [0, 0, 1]])]).schema
    bare = table_of([record_of("a", [[1, 0, 0], [0, 0, 0], [0, 0, 0]], scored=False)]).schema
    assert scored.equals(bare)
    assert scored.equals(table_of([]).schema)
    assert scored.field("area_px_background").type == pa.int64()
    assert scored.field("width").type == pa.int32()


@pytest.mark.parametrize(("classes", "as_columns"), [(1, True), (32, True), (33, False), (150, False)])
def test_many_classes_become_lists(classes: int, as_columns: bool) -> None:
    matrix = [[int(row == column) * (row + 1) for column in range(classes)] for row in range(classes)]
    row = row_of(record_of("a", matrix), [f"c{k}" for k in range(classes)])
    if as_columns:
        assert [row[f"area_px_c{k}"] for k in range(classes)] == list(range(1, classes + 1))
    else:
        assert row["area_px"] == list(range(1, classes + 1))
        assert row["iou"] == [1.0] * classes
        assert "area_px_c0" not in row


def test_equal_rows_give_equal_bytes_however_they_come() -> None:
    records = random_records(3, 60, 3)
    assert pictures_parquet(iter(records), NAMES, "d") == pictures_parquet(records, NAMES, "d")
    assert table_of(records)["image_id"].to_pylist() == [record.image_id for record in records]


def test_more_rows_than_are_encoded_at_a_time() -> None:
    records = [
        replace(record_of(f"{n:05d}", [[n, 1, 0], [0, 1, 0], [0, 0, 0]]), group=f"g{n % 3}") for n in range(9_000)
    ]
    table = table_of(records)
    assert table["image_id"].to_pylist() == [record.image_id for record in records]
    assert table["area_px_background"].to_pylist() == list(range(9_000))


def test_areas_of_each_row_sum_to_its_pixels() -> None:
    for row in table_of(random_records(5, 40, 3)).to_pylist():
        areas = [value for name, value in row.items() if name.startswith("area_px_")]
        assert sum(areas) == row["width"] * row["height"]


def test_shards() -> None:
    assert [shard_count(n) for n in (0, 1, PICTURES_A_SHARD, PICTURES_A_SHARD + 1)] == [1, 1, 1, 2]
    assert shard_name(3, 12) == "images/part-00003-of-00012.parquet"
    shards = [shard_of(f"deep/picture_{n}.jpg", 8) for n in range(4000)]
    assert set(shards) == set(range(8))
    assert max(shards.count(shard) for shard in range(8)) < 600
    # Written down, for a rerun on another machine must find the same.
    assert [shard_of(name, 1000) for name in ("a.png", "b.png", "ünï.png")] == [982, 385, 769]


def test_failures_are_lines_of_json() -> None:
    failures = [
        Failure("", "/in/x.tar", "locate", "Truncated", "名前"),
        Failure("a.png", "/in/a.png", "truth", "SizeMismatch", 'says "no"\nand breaks', "f"),
        Failure("b.png", "/in/b.png", "decode", "Empty", "the file is empty", "f"),
    ]
    text = failures_jsonl(iter(failures)).decode("utf-8")
    lines = text.splitlines()
    assert [json.loads(line)["image_id"] for line in lines] == ["", "a.png", "b.png"]
    assert json.loads(lines[2]) == {
        "image_id": "b.png",
        "source_uri": "/in/b.png",
        "stage": "decode",
        "error_type": "Empty",
        "message": "the file is empty",
    }
    assert "名前" in lines[0]
    assert failures_jsonl([]) == b""


def test_failures_of_names_that_are_not_utf_8_are_json() -> None:
    (line,) = failures_jsonl([Failure("a\udcff.png", "/in/a\udcff.png", "read", "Missing", "gone")]).splitlines()
    assert json.loads(line)["error_type"] == "Missing"


def test_the_documented_way_from_the_tables_to_the_summary(
    scored_job: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "pipeline" / "docs" / "numbers.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run").symlink_to(scored_job.output)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    computed, summed = map(float, lines[0].split())
    assert computed == pytest.approx(summed, abs=1e-9)
    for line in lines[1:]:
        computed_lists, summed_lists = (json.loads(f"{text}]") for text in line.split("]")[:2])
        assert len(computed_lists) == len(CLASS_NAMES)
        assert computed_lists == pytest.approx(summed_lists, abs=1e-9)
