"""Encodes tables: a Parquet file per shard of pictures, and JSON lines of failures. Equal rows give equal bytes."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.measures.measure import Measure
from pipeline.core.measures.measures import measures_for
from pipeline.core.records import Failure, PictureRecord
from pipeline.core.spec import class_slugs
from pipeline.output.delivery import file_uri
from pipeline.output.mask_output import MASK

PICTURES_A_SHARD = 20_000
_ROWS_A_GROUP = 4_096
_MAX_CLASSES_AS_COLUMNS = 32
_KINDS = {"int64": pa.int64(), "float64": pa.float64()}


def shard_count(pictures: int) -> int:
    """The number of Parquet files for a number of pictures: at least 1, with about 20,000 rows each at most."""
    return max(1, -(-pictures // PICTURES_A_SHARD))


def shard_of(image_id: str, shards: int) -> int:
    """The shard of a picture: a hash of its id modulo the number of shards."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big") % shards


def pictures_parquet(records: Iterable[PictureRecord], class_names: Sequence[str], model_digest: str) -> bytes:
    """Encodes the rows of pictures, a few thousand at a time.

    Args:
        records: the pictures of one shard, in order of their ids.
        class_names: the model's, by class id: suffixes of columns up to 32 classes; above, columns are lists.
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
        "mask_uri": pa.array([_uri_of(row, MASK) for row in rows], pa.string()),
        "model_digest": pa.array([model_digest] * len(rows), pa.string()),
        "source_bytes": pa.array([row.source_bytes for row in rows], pa.int64()),
    }
    for measure in measures_for(len(class_names)):
        columns |= _measured(rows, measure, class_names)
    return pa.table(columns)


def _uri_of(row: PictureRecord, output: str) -> str | None:
    file = row.file(output)
    return file_uri(row.image_id, file) if file is not None else None


def _measured(
    rows: Sequence[PictureRecord], measure: Measure, class_names: Sequence[str]
) -> Iterator[tuple[str, pa.Array]]:
    """The columns of one measure; null in the rows of pictures that have no value of it."""
    values = [row.value(measure.name) for row in rows]
    cells = [None if v is None else measure.row(v, row) for v, row in zip(values, rows, strict=True)]
    for position, column in enumerate(measure.columns):
        kind = _KINDS[column.kind]
        if not column.by_class:
            yield column.name, pa.array([row and row[position] for row in cells], kind)
            continue
        lists: list[Any] = [[None] * len(class_names) if row is None else row[position] for row in cells]
        if len(class_names) > _MAX_CLASSES_AS_COLUMNS:
            yield column.name, pa.array(lists, pa.list_(kind))
            continue
        for class_id, slug in enumerate(class_slugs(list(class_names))):
            yield f"{column.name}_{slug}", pa.array([values_by_class[class_id] for values_by_class in lists], kind)


def failures_jsonl(failures: Iterable[Failure]) -> bytes:
    """Encodes failures, one JSON object per line.

    Args:
        failures: in the order of the lines; iterated once.

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
