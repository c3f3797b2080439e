"""A training whose options are resolved and whose data is read."""

from dataclasses import dataclass

from model.data.dataset import PreparedData
from model.data.split import Split
from model.networks.network import NetworkConfig
from model.networks.stored_network import StoredNetwork
from model.options import TrainOptions
from model.start import Start
from pipeline.core.split_digests import SplitDigests
from pipeline.core.truth import Labels


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """A network and its training data.

    Attributes:
        options: as given, those of the network resolved.
        config: the network.
        labels: how raw mask values become class ids.
        class_names: by id.
        data: the pictures at the model's size.
        split: which pictures are for training, validation and test.
        kept: the ids of the pictures that are scored at the end.
        digests: of the pictures' files, by part.
        start: the weights before the first epoch.
        teacher: the model that it learns from besides the masks; None without one.
    """

    options: TrainOptions
    config: NetworkConfig
    labels: Labels
    class_names: tuple[str, ...]
    data: PreparedData
    split: Split
    kept: frozenset[str]
    digests: SplitDigests
    start: Start
    teacher: StoredNetwork | None
