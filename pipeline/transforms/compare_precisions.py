"""Drawing the pictures on which two precisions are compared."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.transforms.combiners import Top

from pipeline.core.process import prepare_process
from pipeline.core.records import Located
from pipeline.core.settings import SegmentSettings
from pipeline.engines.model_folder import ModelFolder
from pipeline.segmenting.precision_cost import COMPARED_PICTURES, draw_rank, precision_cost


class ComparePrecisions(beam.PTransform[Any, Any]):
    """Takes located pictures; emits what int8 costs on some of those with ground truth, nothing where there are none.

    Args:
        model: the job's int8 model.
        settings: the job's.
    """

    def __init__(self, model: ModelFolder, settings: SegmentSettings) -> None:
        super().__init__()
        self._model = model
        self._settings = settings

    def expand(self, located: PCollection[Located]) -> PCollection[dict[str, Any]]:
        model, settings = self._model, self._settings

        def compare(pictures: list[Located]) -> Iterable[dict[str, Any]]:
            prepare_process()
            cost = precision_cost(pictures, model, settings) if pictures else {}
            return [cost] if cost else []

        costs: PCollection[dict[str, Any]] = (
            located
            | "WithTruth" >> beam.Filter(lambda picture: picture.truth is not None)
            | "Draw" >> Top.Smallest(COMPARED_PICTURES, key=draw_rank)
            | "Compare" >> beam.FlatMap(compare)
        )
        return costs
