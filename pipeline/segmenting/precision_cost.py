"""The loss of accuracy by int8: some of the job's pictures with ground truth, segmented in both precisions."""

import tempfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.core.measures.confusion import CONFUSION
from pipeline.core.measures.measure import WITHOUT_INTERVALS
from pipeline.core.recipe import Recipe
from pipeline.core.records import Located, PictureRecord
from pipeline.core.statistics import statistics
from pipeline.core.totals import Totals
from pipeline.engines.backends import FLOAT32, INT8, backend_named
from pipeline.engines.base import Engine
from pipeline.engines.load import load_engine
from pipeline.engines.model_folder import ModelFolder, open_model
from pipeline.output.outputs import Destination
from pipeline.segmenting.segmenter import Segmenter
from pipeline.sources.reading import FileReader
from pipeline.storage import filesystem

COMPARED_PICTURES = 64
"""Number of compared pictures: a few seconds of one core, and three digits of a mean IoU."""


def draw_rank(picture: Located) -> int:
    """The rank by which pictures are sampled: a checksum of the id, so that the sample is reproducible."""
    return zlib.crc32(picture.image_id.encode("utf-8", "surrogateescape"))


def precision_cost(pictures: Sequence[Located], model: ModelFolder, recipe: Recipe, output: str) -> dict[str, Any]:
    """Scores pictures in int8 and in float32.

    Args:
        pictures: pictures with ground truth; those that fail are left out of both scores.
        model: the int8 model of the job.
        recipe: the job's.
        output: the job's absolute folder or bucket prefix, which has the spool of compressed archives.

    Returns:
        `pictures`, the number of scored pictures, and the `global_mean_iou` of each precision; empty if none was scored
        or the model folder has only int8.
    """
    if not filesystem.exists(filesystem.join(model.uri, backend_named(model.backend).files[FLOAT32])):
        return {}
    in_order = sorted(pictures, key=lambda picture: picture.image_id)
    whole = open_model(model.location, backend=model.backend, precision=FLOAT32)
    means: dict[str, Any] = {}
    scored = 0
    for name, used in ((INT8, model), (FLOAT32, whole)):
        records = list(_records(in_order, load_engine(used, 1), recipe, output))
        totals = Totals.of(records, recipe.spec.num_classes, WITHOUT_INTERVALS)
        scored = totals.pictures_with(CONFUSION)
        means[f"global_mean_iou_{name}"] = statistics(totals, recipe.spec.classes)["metrics"]["global_mean_iou"]
    return {"pictures": scored, **means} if scored else {}


def _records(pictures: Sequence[Located], engine: Engine, recipe: Recipe, output: str) -> Iterable[PictureRecord]:
    """The records of pictures; no files are written. A temporary folder, because a failure deletes its files."""
    with tempfile.TemporaryDirectory() as nowhere:
        batch = backend_named(recipe.backend).batch_size
        segmenter = Segmenter(recipe, Destination(nowhere, ()), engine, FileReader(output), engine_batch=batch)
        for picture in pictures:
            for outcome in segmenter.segment([replace(picture, overlay=False)])[0]:
                if isinstance(outcome, PictureRecord):
                    yield outcome
