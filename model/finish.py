"""The end of a training: exports, scores on held-out pictures, figures, and the metadata last."""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.agreement import KerasEngine
from model.classes import known_dataset
from model.data.dataset import LoadedPair, load_or_fault
from model.data.encoded_pairs import EncodedPair, open_source
from model.early_warnings import swap_warnings, swapped_pictures
from model.evaluate import PictureScore, load_engine, score_pictures, summarise
from model.export import Exported, export_network, file_entry, keras_file
from model.figures import Example, can_draw, curves_figure, examples_figure, png_of
from model.fit import Progress
from model.job import TrainingJob
from model.networks.network import logits_of
from model.start import teacher_metadata
from model.versions import library_versions
from pipeline.core.overlay import background_id
from pipeline.core.palette import default_colors
from pipeline.core.spec import FLOAT_MODEL_FILE, INT8_MODEL_FILE, KERAS_MODEL_FILE, METADATA_FILE, ClassSpec, ModelSpec
from pipeline.core.split_digests import SPLIT_FILE
from pipeline.core.usage import DEFAULT_TILE_OVERLAP, TILE, Usage
from pipeline.engines.base import Engine
from pipeline.segmenting.segmentation import Model
from pipeline.storage import filesystem

CURVES_FILE, EXAMPLES_FILE = "curves.png", "examples.png"

_CALIBRATION_PICTURES = 100
_PROBE_PICTURES = 50
_ROWS_PER_KIND = 2

Say = Callable[[str], None]


def finish(
    job: TrainingJob,
    network: keras.Model,
    progress: Progress,
    folder: Path,
    figures: Path,
    say: Say,
    more: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Turns a trained network into a model folder.

    Args:
        job: the training.
        network: softmax at the end, with the weights of the best epoch.
        progress: the training's log and best epoch.
        folder: the model folder.
        figures: the folder of the figures.
        say: called with a line of progress.
        more: further entries of the metadata's `training`.

    Returns:
        The content of `metadata.json`.
    """
    exported = _export(job, network, folder, say)
    spec = replace(_spec(job, progress, folder, more or {}), files=exported.files, agreement=exported.agreement)
    engine: Engine = KerasEngine(logits_of(network))
    if FLOAT_MODEL_FILE in exported.files:
        content = (folder / FLOAT_MODEL_FILE).read_bytes()
        engine = load_engine(content, spec.height, spec.width, spec.channels)
    if can_draw():
        curves = curves_figure(progress.log, progress.best_epoch, spec.classes)
        filesystem.write_bytes(os.fspath(figures / CURVES_FILE), png_of(curves))
    left_out: dict[str, str] = {}
    pictures = list(score_pictures(_test_pairs(job), job.labels, engine, spec, left_out))
    gone = job.kept - left_out.keys() - {one.pair_id for one in pictures}
    left_out |= dict.fromkeys(sorted(gone), "the picture or its mask was removed during the training")
    for pair_id, message in left_out.items():
        say(f"warning: not scored: {pair_id}: {message}")
    swapped, score_of_others = swapped_pictures({one.pair_id: one.matrix for one in pictures})
    if len(swapped) == len(pictures):
        score_of_others = progress.best_score
    for line in swap_warnings(swapped, score_of_others, len(pictures), job.class_names, "kept"):
        say(f"warning: {line}")
    if pictures:
        spec = replace(spec, scores=summarise(pictures, spec, len(left_out)))
        if can_draw() and (examples := _examples(job, pictures, engine, spec)):
            filesystem.write_bytes(os.fspath(figures / EXAMPLES_FILE), png_of(examples_figure(examples, spec.classes)))
        named = ("pictures", "left_out", "global_mean_iou", "global_mean_dice", "pixel_accuracy")
        say("kept pictures: " + ", ".join(f"{name} {spec.scores[name]}" for name in named))
    elif left_out:
        spec = replace(spec, scores={"pictures": 0, "left_out": len(left_out)})
        say(f"warning: no scores: none of {len(left_out)} kept pictures can still be read")
    split = job.digests.to_json().encode()
    filesystem.write_bytes(os.fspath(folder / SPLIT_FILE), split)
    spec = replace(spec, files=spec.files | {SPLIT_FILE: file_entry(split)})
    filesystem.write_bytes(os.fspath(folder / METADATA_FILE), spec.to_json().encode())
    return spec


def _export(job: TrainingJob, network: keras.Model, folder: Path, say: Say) -> Exported:
    if keras.backend.backend() != "tensorflow":
        content = keras_file(network, job.config)
        filesystem.write_bytes(os.fspath(folder / KERAS_MODEL_FILE), content)
        say("no LiteRT file yet: run `python -m model export` with KERAS_BACKEND=tensorflow")
        return Exported({KERAS_MODEL_FILE: file_entry(content)}, {})
    store, split = job.data.store, job.split
    probes = [store[item] for item in store.examples(split.validation, _PROBE_PICTURES)]
    calibration = [store[item][0] for item in store.examples(split.train, _CALIBRATION_PICTURES)]
    exported = export_network(network, job.config, folder, calibration, probes, saved_model=job.options.saved_model)
    if INT8_MODEL_FILE not in exported.files:
        say("warning: no int8 file: the outputs of a layer are all zero; a lower --learning_rate may prevent that")
    return exported


def _test_pairs(job: TrainingJob) -> Iterator[EncodedPair]:
    if job.options.test_dataset:
        pairs = open_source(job.options.test_dataset, None, "--test_dataset")
    else:
        pairs = open_source(job.options.dataset, job.options.ground_truth)
    return (pair for pair in pairs if pair.pair_id in job.kept)


def _examples(job: TrainingJob, pictures: list[PictureScore], engine: Engine, spec: ModelSpec) -> list[Example]:
    """The best, the middle and the worst of the scored pictures."""
    ranked = sorted((one for one in pictures if not np.isnan(one.mean_iou)), key=lambda one: -one.mean_iou)
    middle = max(0, (len(ranked) - _ROWS_PER_KIND) // 2)
    title_of: dict[str, str] = {}
    kinds = {"best": ranked, "median": ranked[middle:], "worst": ranked[::-1]}
    for kind, candidates in kinds.items():
        for one in candidates[:_ROWS_PER_KIND]:
            title_of.setdefault(one.pair_id, f"{kind}, mean IoU {one.mean_iou:.3f}, {one.pair_id}")
    found: dict[str, Example] = {}
    for pair in _test_pairs(job):
        if pair.pair_id not in title_of:
            continue
        loaded = load_or_fault(pair, job.labels, spec.channels)
        if isinstance(loaded, LoadedPair):  # a scored picture may have been removed since
            prediction = Model(spec, engine).segment(loaded.image).mask
            found[pair.pair_id] = Example(title_of[pair.pair_id], loaded.image, loaded.mask, prediction)
    return [found[pair_id] for pair_id in title_of if pair_id in found]


def _spec(job: TrainingJob, progress: Progress, folder: Path, more: Mapping[str, Any]) -> ModelSpec:
    options, config = job.options, job.config
    known = known_dataset(options.dataset)
    training: dict[str, Any] = {
        "dataset": options.dataset_name or (known.title if known else filesystem.base_name(options.dataset)),
        "licence": options.licence or (known.licence if known else "not given"),
        "pictures": len(job.split.train),
        "validation_pictures": len(job.split.validation),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_validation_global_mean_iou": round(progress.best_score, 6),
        "preset": config.preset,
        "width": config.width,
        "depth": config.depth,
        **({"encoder": config.encoder} if config.encoder else {}),
        **job.start.metadata(),
        **teacher_metadata(job.teacher),
        **more,
        "seed": options.seed,
        "command": _command(job),
    }
    return ModelSpec(
        name=options.name or folder.resolve().name,
        height=config.image_height,
        width=config.image_width,
        channels=config.channels,
        classes=class_specs(job.class_names),
        label_map=job.labels.label_map.to_metadata(),
        ignore_label=job.labels.ignore_label,
        usage=Usage(TILE, DEFAULT_TILE_OVERLAP) if options.mode == TILE else Usage(),
        training=training,
        versions=library_versions(),
    )


def class_specs(class_names: Sequence[str]) -> tuple[ClassSpec, ...]:
    """The classes with their default colours, by id."""
    colors = class_colors(class_names)
    return tuple(ClassSpec(class_id, name, colors[class_id]) for class_id, name in enumerate(class_names))


def class_colors(class_names: Sequence[str]) -> list[str]:
    """The default colours, the dark one for the class named background, whatever its id."""
    colors = default_colors(len(class_names))
    background = background_id(class_names)
    return [*colors[1 : background + 1], colors[0], *colors[background + 1 :]]


def _command(job: TrainingJob) -> str:
    """The command that reproduces the model, with placeholders for the data's and the model's paths."""
    words = ["python", "-m", "model", "train", "--dataset", "SOURCE", "--output", "DIR"]
    for name, field in type(job.options).__dataclass_fields__.items():
        value = getattr(job.options, name)
        if name in _NOT_IN_COMMAND or value == field.default:
            continue
        if name == "unlabelled":
            value = "SOURCE"
        if name == "image_size":
            value = "x".join(str(side) for side in value)
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        option = _OPTION_OF.get(name, f"--{name}")
        words += [option] if value is True else [option, text]
    return shlex.join(words)


_OPTION_OF = {"from_model": "--from"}
_NOT_IN_COMMAND = frozenset(
    ("dataset", "output", "ground_truth", "test_dataset", "name", "dataset_name", "licence", "resume")
)
