"""Summaries as a job writes them, of made-up pictures."""

from typing import Any

import numpy as np
from records_of import values_of

from pipeline.core.palette import default_colors
from pipeline.core.records import PictureRecord
from pipeline.core.scores import cells_of
from pipeline.core.spec import ClassSpec
from pipeline.core.statistics import statistics
from pipeline.core.totals import Totals


def make_summary(
    names: list[str], *, pictures: int = 6, truth: bool = True, groups: list[str] | None = None, m2: float | None = None
) -> dict[str, Any]:
    """A summary as a job writes it, of made-up pictures; the last class occurs nowhere."""
    count = len(names)
    classes = [
        ClassSpec(k, name, color) for k, (name, color) in enumerate(zip(names, default_colors(count), strict=True))
    ]
    random = np.random.default_rng(7)
    records = []
    for index in range(pictures):
        matrix = random.integers(0, 40, (count, count)) + 300 * np.eye(count, dtype=np.int64)
        matrix[-1] = matrix[:, -1] = 0
        area_px = tuple(matrix.sum(axis=0).tolist())
        group = groups[index % len(groups)] if groups else ""
        values = values_of(area_px, cells_of(matrix) if truth else None)
        records.append(
            PictureRecord(
                image_id=f"{index}.png",
                source_uri="",
                group=group,
                width=sum(area_px),
                height=1,
                source_bytes=0,
                fingerprint="",
                values=values,
                pixel_area_m2=m2,
            )
        )

    def part(group: str) -> dict[str, Any]:
        mine = [record for record in records if record.group == group]
        images = {"segmented": len(mine), "with_ground_truth": len(mine) * truth}
        return {"images": images, **statistics(Totals.of(mine, count), classes)}

    return {
        "schema_version": 1,
        "run": {
            "status": "done",
            "started": "2026-03-04T05:06:07Z",
            "finished": "2026-03-04T05:07:07Z",
            "seconds": 60.0,
            "resumed": 0,
            "model": {"name": "shapes", "digest": "abc"},
            "options": {"input": ["pictures"], "ignore_label": None},
            "versions": {"maskbeam": "0.1.0"},
            "stages": {"read": 1.0, "segment": 3.0},
        },
        "images": {
            "found": pictures,
            "segmented": pictures,
            "failed": 0,
            "ignored": 0,
            "ignored_by_ending": {},
            "with_ground_truth": pictures * truth,
            "unpaired_truth": 0,
            "unused": {},
            "truth_failed": 0,
            "trained_on": None,
            "validated_on": None,
        },
        **statistics(Totals.of(records, count), classes),
        "groups": {name: part(name) for name in groups or []},
    }
