"""`python -m model export`: writes a model folder's exports again from its Keras file."""

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.agreement import Probe
from model.data.crops import CropStore
from model.data.dataset import PairStore, load_pair
from model.data.encoded_pairs import open_source
from model.export import export_network
from model.networks.stored_network import config_of, load_network
from model.samples.sample import draw_samples
from model.versions import library_versions
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.model_input import model_input
from pipeline.core.spec import KERAS_MODEL_FILE, METADATA_FILE, ModelSpec
from pipeline.core.truth import Labels
from pipeline.core.usage import TILE
from pipeline.engines.model_folder import read_spec
from pipeline.storage import filesystem

_PICTURES = 100
_SAMPLE_SEED = 11


def export_model(folder: Path, dataset: str | None, ground_truth: str | None, *, saved_model: bool) -> ModelSpec:
    """Exports the Keras file of a model folder again and updates its metadata.

    Args:
        folder: a model folder with `model.keras`.
        dataset: pictures like those in training, for the int8 ranges and the comparison with Keras; without it, the
            comparison uses the embedded sample, and there is no int8 file.
        ground_truth: the masks' folder of the data set.
        saved_model: whether to write `saved_model/` too.

    Returns:
        The new content of `metadata.json`.

    Raises:
        ModelError: the folder is not a model folder, or its Keras file was not made by maskbeam.
        OptionError: the data set can't be used.
    """
    spec = read_spec(os.fspath(folder), os.fspath(folder.absolute()))
    config = config_of(spec)
    network = load_network(folder / KERAS_MODEL_FILE, config)
    probes = _dataset_probes(dataset, ground_truth, spec) if dataset else _sample_probes(spec)
    calibration = [image for image, _ in probes] if dataset else []
    exported = export_network(network, config, folder, calibration, probes, saved_model=saved_model)
    spec = replace(
        spec,
        files=spec.files | exported.files,
        agreement=spec.agreement | exported.agreement,
        versions=library_versions(),
    )
    filesystem.write_bytes(os.fspath(folder / METADATA_FILE), spec.to_json().encode())
    return spec


def _dataset_probes(dataset: str, ground_truth: str | None, spec: ModelSpec) -> list[Probe]:
    labels = Labels(spec.labels(), spec.num_classes, spec.ignore_label)
    size = spec.height, spec.width
    store = CropStore(*size, spec.num_classes) if spec.usage.mode == TILE else PairStore(*size, spec.channels)
    for pair in islice(open_source(dataset, ground_truth), _PICTURES):
        try:
            loaded = load_pair(pair, labels, spec.channels)
        except PictureError as error:
            if error.stage == "truth":
                raise OptionError(f"{pair.pair_id}: {error.message}") from error
            continue
        store.append(pair.pair_id, *store.fitted(loaded.image, loaded.mask))
    if not len(store):
        raise OptionError(f"--dataset {dataset}: no picture can be used")
    return [store[item] for item in store.examples(np.arange(len(store)), _PICTURES)]


def _sample_probes(spec: ModelSpec) -> list[Probe]:
    images = (picture.image for picture in draw_samples(_PICTURES, _SAMPLE_SEED))
    if spec.channels == 1:
        images = (image.mean(axis=2, keepdims=True).astype(np.uint8) for image in images)
    return [(_small(image, spec), None) for image in images]


def _small(image: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """A picture at the model's size, (height, width, channels) uint8, the only input of maskbeam's networks."""
    return np.asarray(model_input(image, spec.input), np.uint8)
