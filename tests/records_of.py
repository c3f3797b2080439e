"""Picture records for tests: from a confusion matrix, or drawn at random."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.core.records import PictureRecord, Value
from pipeline.core.scores import cells_of
from pipeline.core.spec import ClassSpec


def values_of(area_px: Sequence[int], confusion: Value | None = None) -> tuple[tuple[str, Value], ...]:
    """`PictureRecord.values` of a picture with these areas and, where there is truth, this confusion matrix."""
    areas = ("area_px", tuple(area_px))
    return (areas,) if confusion is None else (areas, ("confusion", confusion))


def record_of(
    image_id: str,
    matrix: npt.ArrayLike,
    *,
    scored: bool = True,
    ignored: npt.ArrayLike = 0,
    pixel_area_m2: float | None = None,
) -> PictureRecord:
    """A picture whose pixels are those of the matrix and, a predicted class, the ignored ones."""
    counts = np.asarray(matrix, np.int64)
    area_px = counts.sum(axis=0) + np.asarray(ignored, np.int64)
    return PictureRecord(
        image_id=image_id,
        source_uri=f"in/{image_id}",
        group="",
        width=int(area_px.sum()),
        height=1,
        source_bytes=1,
        fingerprint="f",
        values=values_of(area_px.tolist(), cells_of(counts) if scored else None),
        pixel_area_m2=pixel_area_m2,
    )


def random_records(seed: int, count: int, num_classes: int) -> list[PictureRecord]:
    """Pictures of all kinds: with and without truth, ignored pixels, known pixel areas, absent classes."""
    rng = np.random.default_rng(seed)
    records = []
    for index in range(count):
        matrix = rng.integers(0, 10 ** rng.integers(1, 8), (num_classes, num_classes))
        matrix *= rng.random((num_classes, num_classes)) < rng.choice([0.0, 0.3, 1.0])
        ignored = rng.integers(0, 50, num_classes) + 1
        area = float(rng.random()) if rng.random() < 0.5 else None
        scored = bool(rng.random() < 0.7)
        records.append(record_of(f"{seed}/{index}.jpg", matrix, scored=scored, ignored=ignored, pixel_area_m2=area))
    return records


def classes_of(num_classes: int) -> list[ClassSpec]:
    """Classes by the names a, b, c …"""
    return [ClassSpec(class_id, chr(97 + class_id), "#123456") for class_id in range(num_classes)]
