"""The training command from the first picture to the model folder."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.batches import TrainingPictures
from model.classes import balanced_weights, resolve_classes
from model.dataset import Labels, PreparedData, prepare
from model.evaluate import PictureScore, load_engine, score_pictures, summarise
from model.export import export_network
from model.fit import CHECKPOINT_FILE, Fitter
from model.losses import SegmentationLoss
from model.network import PRESETS, NetworkConfig, build_network, check_config, logits_of
from model.options import TrainOptions, check_options, parse_class_weights
from model.source import EncodedPair, open_source
from model.split import Split, split_pictures
from model.versions import library_versions
from pipeline.core.errors import OptionError
from pipeline.core.palette import default_colors
from pipeline.core.spec import FLOAT_MODEL_FILE, METADATA_FILE, ClassSpec, ModelSpec
from pipeline.stages import storage

TRAINING_FOLDER = "training"

_CALIBRATION_PICTURES = 100
_PROBE_PICTURES = 50

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A training with all its decisions taken.

    Attributes:
        options: as given.
        config: the network.
        labels: how masks are read.
        class_names: by id.
        data: the pictures at the model's size.
        split: which picture is for what.
    """

    options: TrainOptions
    config: NetworkConfig
    labels: Labels
    class_names: tuple[str, ...]
    data: PreparedData
    split: Split


def train(options: TrainOptions, say: Say) -> ModelSpec:
    """Trains a network and writes its model folder.

    Args:
        options: what to do.
        say: takes a line of progress.

    Returns:
        What stands in `metadata.json`.

    Raises:
        OptionError: the options, the data or the output can't be used.
    """
    check_options(options)
    SegmentationLoss(options.loss, 2)
    folder = Path(options.output)
    _check_output(folder, options.resume)
    job = _prepare(options, say)
    _set_up_backend(options)
    network = build_network(job.config)
    fitter = _fitter(job, network, folder)
    if options.resume and fitter.resume():
        say(f"resumed behind epoch {fitter.progress.epoch}")
    say(f"{job.config.preset} network, {network.count_params():,} parameters, {keras.backend.backend()} backend")
    callbacks = [keras.callbacks.TensorBoard(folder / TRAINING_FOLDER / "tensorboard")] if options.tensorboard else []
    fitter.run(options.epochs, options.patience, lambda row: say(_epoch_line(row, options.epochs)), callbacks)
    say(f"best epoch {fitter.progress.best_epoch}, validation global_mean_iou {fitter.progress.best_score:.4f}")
    return _finish(job, network, fitter, folder, say)


def _check_output(folder: Path, resume: bool) -> None:
    held = [name for name in (METADATA_FILE, f"{TRAINING_FOLDER}/{CHECKPOINT_FILE}") if (folder / name).exists()]
    if held and not resume:
        raise OptionError(f"--output {folder} holds a training ({held[0]}): add --resume or choose another folder")
    try:
        (folder / TRAINING_FOLDER).mkdir(parents=True, exist_ok=True)
        storage.check_writable(os.fspath(folder))
    except OSError as error:
        raise OptionError(f"--output {folder} can't be written: {error.strerror or error}") from error


def _prepare(options: TrainOptions, say: Say) -> Job:
    if options.preset not in PRESETS:
        raise OptionError(f"--preset {options.preset} is none of {', '.join(PRESETS)}")
    preset = PRESETS[options.preset]
    height, width = options.image_size or (preset.image_size, preset.image_size)
    config = NetworkConfig(
        options.preset,
        preset.width if options.width is None else options.width,
        preset.depth if options.depth is None else options.depth,
        height,
        width,
        options.channels,
        num_classes=2,
    )
    check_config(config)
    labels, class_names = resolve_classes(options)
    config = replace(config, num_classes=labels.num_classes)
    pairs = open_source(options.dataset, options.ground_truth)
    data = prepare(pairs, labels, height, width, options.channels)
    for line in data.left_out:
        say(f"left out: {line}")
    for class_id in np.flatnonzero(data.class_px == 0):
        say(f"warning: class {class_id} ({class_names[class_id]}) occurs in no mask")
    test_fraction = 0.0 if options.test_dataset else options.test_fraction
    split = split_pictures(data.store.pair_ids, options.seed, options.val_fraction, test_fraction)
    counts = (len(split.train), len(split.validation), len(split.test))
    say("{} pictures to train on, {} to choose the best epoch, {} kept for the end".format(*counts))
    return Job(options, config, labels, class_names, data, split)


def _set_up_backend(options: TrainOptions) -> None:
    keras.utils.set_random_seed(options.seed)
    on_gpu = False
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        on_gpu = bool(gpus)
    mixed = options.precision == "mixed_float16" or (options.precision == "auto" and on_gpu)
    keras.mixed_precision.set_dtype_policy("mixed_float16" if mixed else "float32")


def _fitter(job: Job, network: keras.Model, folder: Path) -> Fitter:
    options = job.options
    pictures = TrainingPictures(job.data.store, job.split.train, options.augment, options.batch_size, options.seed)
    weights = parse_class_weights(options.class_weights)
    if options.class_weights == "balanced":
        weights = balanced_weights(job.data.class_px)
    loss = SegmentationLoss(options.loss, job.labels.num_classes, weights)
    optimizer = keras.optimizers.Adam(_learning_rate(options, pictures.steps))
    trained = logits_of(network)
    # XLA made a CPU step two to four times as slow as TensorFlow's own kernels.
    jit: str | bool = False if keras.backend.backend() == "tensorflow" else "auto"
    trained.compile(optimizer, loss, jit_compile=jit)
    return Fitter(
        trained, pictures, job.split.validation, job.labels.num_classes, folder / TRAINING_FOLDER, _fingerprint(job)
    )


def _learning_rate(options: TrainOptions, steps: int) -> Any:
    """A rise from a hundredth over the warm-up, then half a cosine down to a hundredth, or a constant rate."""
    peak, warmup = options.learning_rate, round(options.warmup_epochs * steps)
    if options.schedule == "constant":
        return peak
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 100 if warmup else peak,
        decay_steps=max(1, options.epochs * steps - warmup),
        alpha=0.01,
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )


def _fingerprint(job: Job) -> str:
    """Tells trainings apart that could not go on from each other's checkpoints."""
    asked = {name: value for name, value in asdict(job.options).items() if name not in _NOT_IN_FINGERPRINT}
    what = [asked, asdict(job.config), job.labels.label_map.to_metadata(), job.data.store.pair_ids]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


_NOT_IN_FINGERPRINT = frozenset(
    ("dataset", "output", "ground_truth", "test_dataset", "name", "dataset_name", "licence", "resume", "patience")
) | {"tensorboard", "saved_model"}


def _epoch_line(row: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {int(row['epoch']):3d}/{epochs}  loss {row['loss']:.4f}  "
        f"validation global_mean_iou {row['val_global_mean_iou']:.4f}  {row['seconds']:.1f} s"
    )


def _finish(job: Job, network: keras.Model, fitter: Fitter, folder: Path, say: Say) -> ModelSpec:
    """Exports, evaluates on what training never saw, and writes the metadata last."""
    store, split = job.data.store, job.split
    probes = [store[int(index)] for index in split.validation[:_PROBE_PICTURES]]
    calibration = [store[int(index)][0] for index in split.train[:_CALIBRATION_PICTURES]]
    exported = export_network(network, job.config, folder, calibration, probes, saved_model=job.options.saved_model)
    spec = _spec(job, fitter, folder)
    spec = replace(spec, files=exported.files, agreement=exported.agreement)
    pictures = _score_test(job, spec, folder)
    if pictures:
        spec = replace(spec, scores=summarise(pictures, spec))
        say(f"kept pictures: {_score_line(spec.scores)}")
    storage.write_bytes(os.fspath(folder / METADATA_FILE), spec.to_json().encode())
    return spec


def _score_line(scores: dict[str, Any]) -> str:
    named = ("pictures", "global_mean_iou", "global_mean_dice", "pixel_accuracy")
    return ", ".join(f"{name} {scores[name]}" for name in named)


def _score_test(job: Job, spec: ModelSpec, folder: Path) -> list[PictureScore]:
    engine = load_engine((folder / FLOAT_MODEL_FILE).read_bytes(), spec.height, spec.width, spec.channels)
    return list(score_pictures(_test_pairs(job), job.labels, engine, spec))


def _test_pairs(job: Job) -> Iterator[EncodedPair]:
    if job.options.test_dataset:
        return open_source(job.options.test_dataset, None)
    kept = {job.data.store.pair_ids[int(index)] for index in job.split.test}
    return (pair for pair in open_source(job.options.dataset, job.options.ground_truth) if pair.pair_id in kept)


def _spec(job: Job, fitter: Fitter, folder: Path) -> ModelSpec:
    options, config = job.options, job.config
    colors = default_colors(config.num_classes)
    training = {
        "dataset": options.dataset_name or options.dataset.rstrip("/").rpartition("/")[2],
        "licence": options.licence or "not given",
        "pictures": len(job.split.train),
        "validation_pictures": len(job.split.validation),
        "epochs": fitter.progress.epoch,
        "best_epoch": fitter.progress.best_epoch,
        "preset": config.preset,
        "width": config.width,
        "depth": config.depth,
        "loss": options.loss,
        "augment": options.augment,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "val_fraction": options.val_fraction,
        "test_fraction": 0.0 if options.test_dataset else options.test_fraction,
    }
    return ModelSpec(
        name=options.name or folder.resolve().name,
        height=config.image_height,
        width=config.image_width,
        channels=config.channels,
        classes=tuple(ClassSpec(class_id, name, colors[class_id]) for class_id, name in enumerate(job.class_names)),
        label_map=job.labels.label_map.to_metadata(),
        ignore_label=job.labels.ignore_label,
        training=training,
        versions=library_versions(),
    )
