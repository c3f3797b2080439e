"""Compares two precisions on a sample of the pictures."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.transforms.combiners import Top

from pipeline.core.process import prepare_process
from pipeline.core.recipe import Recipe
from pipeline.core.records import Located
from pipeline.engines.model_folder import ModelFolder
from pipeline.segmenting.precision_cost import COMPARED_PICTURES, draw_rank, precision_cost


class ComparePrecisions(beam.PTransform[Any, Any]):
    """Takes located pictures; emits the cost of int8 on a sample of those with ground truth, nothing if there are none.

    Args:
        model: the job's int8 model.
        recipe: the job's.
        output: the job's absolute folder or bucket prefix.
    """

    def __init__(self, model: ModelFolder, recipe: Recipe, output: str) -> None:
        super().__init__()
        self._model = model
        self._recipe = recipe
        self._output = output

    def expand(self, located: PCollection[Located]) -> PCollection[dict[str, Any]]:
        model, recipe, output = self._model, self._recipe, self._output

        def compare(pictures: list[Located]) -> Iterable[dict[str, Any]]:
            prepare_process()
            cost = precision_cost(pictures, model, recipe, output) if pictures else {}
            return [cost] if cost else []

        costs: PCollection[dict[str, Any]] = (
            located
            | "WithTruth" >> beam.Filter(lambda picture: picture.truth is not None)
            | "Draw" >> Top.Smallest(COMPARED_PICTURES, key=draw_rank)
            | "Compare" >> beam.FlatMap(compare)
        )
        return costs
