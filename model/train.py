"""The training command from the first picture to the model folder."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.batches import TrainingPictures
from model.classes import balanced_weights, map_text, resolve_classes
from model.dataset import Labels, load_or_fault, map_in_order, prepare
from model.finish import finish
from model.fit import CHECKPOINT_FILE, Fitter
from model.job import Job
from model.label_faults import TruthFault, describe_faults
from model.losses import SegmentationLoss
from model.network import PRESETS, NetworkConfig, build_network, check_config, logits_of
from model.options import TrainOptions, check_class_weights, check_options, parse_class_weights
from model.source import open_source
from model.split import MIN_VALIDATION_PICTURES, split_pictures
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.spec import METADATA_FILE, TRAINING_FOLDER, ModelSpec
from pipeline.core.wording import pictures_text
from pipeline.engines.quiet import quiet
from pipeline.storage import storage

Say = Callable[[str], None]


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
    folder = Path(options.output)
    _check_output(folder, options.resume)
    job = _prepare(options, say)
    _seed_and_precision(options)
    try:
        return _train(job, folder, say)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def _train(job: Job, folder: Path, say: Say) -> ModelSpec:
    options = job.options
    network = build_network(job.config)
    fitter = _fitter(job, network, folder)
    if options.resume and fitter.resume():
        say(f"resumed behind epoch {fitter.progress.epoch}")
    say(f"{job.config.preset} network, {network.count_params():,} parameters, {keras.backend.backend()} backend")
    callbacks: list[Any] = []
    if options.tensorboard:
        callbacks = [keras.callbacks.TensorBoard(folder / TRAINING_FOLDER / "tensorboard", write_graph=False)]
    fitter.run(options.epochs, options.patience, lambda row: say(_epoch_line(row, options.epochs)), callbacks)
    say(f"best epoch {fitter.progress.best_epoch}, validation global_mean_iou {fitter.progress.best_score:.4f}")
    return finish(job, network, fitter.progress, folder, folder / TRAINING_FOLDER, say)


def _check_output(folder: Path, resume: bool) -> None:
    held = [name for name in (METADATA_FILE, f"{TRAINING_FOLDER}/{CHECKPOINT_FILE}") if (folder / name).exists()]
    if held and not resume:
        raise OptionError(f"--output {folder} holds a training ({held[0]}): add --resume or choose another folder")
    probe = folder / TRAINING_FOLDER / f".{os.getpid()}.tmp"
    try:
        storage.write_bytes(os.fspath(probe), b"")
        probe.unlink()
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
    weights = parse_class_weights(options.class_weights)
    if weights is not None:
        check_class_weights(weights, labels.num_classes)
    # Scored after the last epoch only: what is wrong with it is reported before the first.
    kept = _check_test_dataset(options, labels, say) if options.test_dataset else None
    pairs = open_source(options.dataset, options.ground_truth)
    data = prepare(pairs, labels, height, width, options.channels)
    for line in data.left_out:
        say(f"left out: {line}")
    if data.truth_faults:
        # A mask that doesn't fit is a wrong option more often than a bad file; training on the rest would hide it.
        seen = np.flatnonzero(data.store.class_px(np.arange(len(data.store)), labels.num_classes)).tolist()
        raise OptionError(describe_faults(data.truth_faults, data.masks, map_text(options), labels.num_classes, seen))
    test_fraction = 0.0 if options.test_dataset else options.test_fraction
    split = split_pictures(data.store.pair_ids, options.seed, options.val_fraction, test_fraction)
    class_px = data.store.class_px(np.arange(len(data.store)), labels.num_classes)
    for class_id in np.flatnonzero(class_px == 0):
        say(f"warning: class {class_id} ({class_names[class_id]}) occurs in no mask")
    counts = (len(split.train), len(split.validation), len(split.test))
    say("{} pictures to train on, {} to choose the best epoch, {} kept for the end".format(*counts))
    if counts[1] < MIN_VALIDATION_PICTURES:
        say(
            f"warning: the best epoch is chosen on {pictures_text(counts[1])}; with fewer than"
            f" {MIN_VALIDATION_PICTURES} it is chosen by chance: raise --val_fraction"
        )
    if kept is None:
        kept = frozenset(data.store.pair_ids[index] for index in split.test)
    return Job(options, config, labels, class_names, data, split, kept)


def _check_test_dataset(options: TrainOptions, labels: Labels, say: Say) -> frozenset[str]:
    """Reads all pictures and masks of `--test_dataset` and returns their ids; a mask that can't be used is an error."""
    faults: list[TruthFault] = []
    ids: set[str] = set()
    masks = 0
    pairs = open_source(options.test_dataset or "", None, "--test_dataset")
    for pair, loaded in map_in_order(pairs, lambda one: load_or_fault(one, labels, options.channels)):
        ids.add(pair.pair_id)
        masks += not isinstance(loaded, PictureError)
        if isinstance(loaded, TruthFault):
            faults.append(loaded)
        elif isinstance(loaded, PictureError):
            say(f"left out of --test_dataset: {pair.pair_id}: {loaded.message}")
    if faults:
        known = list(labels.label_map.to_metadata().items())
        text = map_text(options) or ",".join(f"{raw}={class_id}" for raw, class_id in known)
        raise OptionError(f"--test_dataset: {describe_faults(faults, masks, text, labels.num_classes, ())}")
    if not masks:
        raise OptionError(f"--test_dataset {options.test_dataset}: not one picture can be read")
    return frozenset(ids)


def _seed_and_precision(options: TrainOptions) -> None:
    # Keras seeds TensorFlow too where it is installed, whatever the backend; its first import is not silent.
    with quiet():
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
        weights = balanced_weights(job.data.store.class_px(job.split.train, job.labels.num_classes))
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
