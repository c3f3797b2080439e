"""A training with all its decisions taken."""

from dataclasses import dataclass

from model.dataset import PreparedData
from model.network import NetworkConfig
from model.options import TrainOptions
from model.split import Split
from pipeline.core.split_digests import SplitDigests
from pipeline.core.truth import Labels


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """What is trained on what.

    Attributes:
        options: as given.
        config: the network.
        labels: how masks are read.
        class_names: by id.
        data: the pictures at the model's size.
        split: which picture is for what.
        kept: the ids of the pictures that are scored at the end.
        digests: of the pictures' files, by part.
    """

    options: TrainOptions
    config: NetworkConfig
    labels: Labels
    class_names: tuple[str, ...]
    data: PreparedData
    split: Split
    kept: frozenset[str]
    digests: SplitDigests
