"""Rows to tables: Parquet a shard of pictures, and JSON lines of failures. The same rows give the same bytes."""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import scores
from pipeline.core.records import Failure, PictureRecord
from pipeline.core.spec import class_slugs
from pipeline.core.totals import matrix_of

PICTURES_A_SHARD = 20_000
_ROWS_A_GROUP = 4_096
_MOST_CLASSES_AS_COLUMNS = 32
_SCORED = ("iou", "dice")


def shard_count(pictures: int) -> int:
    """How many Parquet files hold the rows of so many pictures: at least 1, at most about 20,000 rows each."""
    return max(1, -(-pictures // PICTURES_A_SHARD))


def shard_of(image_id: str, shards: int) -> int:
    """The shard of a picture: a hash of its id modulo the number of shards."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big") % shards


def shard_name(shard: int, shards: int) -> str:
    """The name of a shard's file below the output."""
    return f"images/part-{shard:05d}-of-{shards:05d}.parquet"


def pictures_parquet(records: Iterable[PictureRecord], class_names: Sequence[str], model_digest: str) -> bytes:
    """Encodes pictures' rows, a few thousand at a time.

    Args:
        records: the pictures of one shard, in order of their ids.
        class_names: the model's, by class id; they become the columns' endings, or above 32 classes lists.
        model_digest: SHA-256 of the model file.

    Returns:
        A Parquet file.
    """
    remaining = iter(records)
    buffer = io.BytesIO()
    first = _table(list(islice(remaining, _ROWS_A_GROUP)), class_names, model_digest)
    with pq.ParquetWriter(buffer, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        while rows := list(islice(remaining, _ROWS_A_GROUP)):
            writer.write_table(_table(rows, class_names, model_digest))
    return buffer.getvalue()


def _table(rows: list[PictureRecord], class_names: Sequence[str], model_digest: str) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "image_id": pa.array([row.image_id for row in rows], pa.string()),
        "source_uri": pa.array([row.source_uri for row in rows], pa.string()),
        "group": pa.array([row.group or None for row in rows], pa.string()),
        "width": pa.array([row.width for row in rows], pa.int32()),
        "height": pa.array([row.height for row in rows], pa.int32()),
        "mask_uri": pa.array([row.mask_uri or None for row in rows], pa.string()),
        "model_digest": pa.array([model_digest] * len(rows), pa.string()),
        "source_bytes": pa.array([row.source_bytes for row in rows], pa.int64()),
    }
    columns |= _class_columns([_class_values(row) for row in rows], class_names)
    columns["pixel_accuracy"] = pa.array([_accuracy(row) for row in rows], pa.float64())
    return pa.table(columns)


def _class_values(row: PictureRecord) -> dict[str, list[Any]]:
    """One list a quantity, by class id."""
    picture_px, pixel_m2 = row.width * row.height, row.pixel_area_m2
    values: dict[str, list[Any]] = {
        "area_px": list(row.area_px),
        "area_fraction": [area_px / picture_px for area_px in row.area_px],
        "area_m2": [None if pixel_m2 is None else area_px * pixel_m2 for area_px in row.area_px],
    }
    if row.confusion is None:
        return values | {name: [None] * row.num_classes for name in _SCORED}
    matrix = matrix_of(row)
    both = {"iou": scores.iou_per_class(matrix), "dice": scores.dice_per_class(matrix)}
    return values | {name: [None if np.isnan(v) else float(v) for v in both[name]] for name in _SCORED}


def _class_columns(rows: list[dict[str, list[Any]]], class_names: Sequence[str]) -> dict[str, pa.Array]:
    types = {"area_px": pa.int64(), "area_fraction": pa.float64(), "area_m2": pa.float64()}
    types |= dict.fromkeys(_SCORED, pa.float64())
    columns: dict[str, pa.Array] = {}
    for name, kind in types.items():
        if len(class_names) > _MOST_CLASSES_AS_COLUMNS:
            columns[name] = pa.array([row[name] for row in rows], pa.list_(kind))
            continue
        for class_id, slug in enumerate(class_slugs(list(class_names))):
            columns[f"{name}_{slug}"] = pa.array([row[name][class_id] for row in rows], kind)
    return columns


def _accuracy(row: PictureRecord) -> float | None:
    accuracy = float("nan") if row.confusion is None else scores.pixel_accuracy(matrix_of(row))
    return None if np.isnan(accuracy) else accuracy


def failures_jsonl(failures: Iterable[Failure]) -> bytes:
    """Encodes failures, one JSON object a line.

    Args:
        failures: in the order of their lines; none is kept.

    Returns:
        UTF-8 text; empty without failures.
    """
    text = io.BytesIO()
    for failure in failures:
        line = {
            "image_id": failure.image_id,
            "source_uri": failure.source_uri,
            "stage": failure.stage,
            "error_type": failure.error_type,
            "message": failure.message,
        }
        text.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace"))
    return text.getvalue()
