"""The training command from the first picture to the model folder."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from model.classes import balanced_weights
from model.data.batches import TrainingPictures
from model.epoch_report import EpochReporter, TrainingObserver
from model.figures import can_draw
from model.finish import finish
from model.fit import CHECKPOINT_FILE, Fitter, Progress
from model.job import TrainingJob
from model.losses import SegmentationLoss
from model.networks.distil import DistilledNetwork, Teacher
from model.networks.network import build_network, logits_of
from model.networks.optimizer import EncoderAdam
from model.options import ENCODER_RATE_FACTOR, TrainOptions, check_options, parse_class_weights
from model.preparation import prepare_job
from model.self_training import (
    STUDENT_FOLDER,
    Sample,
    decision,
    describe,
    is_student_kept,
    label_pictures,
    metadata_of,
    sample_unlabelled,
    student_job,
)
from pipeline.core.errors import OptionError
from pipeline.core.spec import METADATA_FILE, TRAINING_FOLDER, ModelSpec
from pipeline.engines.quiet import quiet
from pipeline.storage import filesystem

Say = Callable[[str], None]


def train(options: TrainOptions, say: Say, observer: TrainingObserver | None = None) -> ModelSpec:
    """Trains a network and writes its model folder.

    Args:
        options: of the training.
        say: called with a line of progress.
        observer: shows the running training besides the lines; None for lines alone.

    Returns:
        The content of `metadata.json`.

    Raises:
        OptionError: the options, the data or the output can't be used.
    """
    check_options(options)
    folder = Path(options.output)
    _check_output(folder, options.resume)
    job = prepare_job(options, say)
    unlabelled = None
    if options.unlabelled is not None:
        unlabelled = sample_unlabelled(options.unlabelled, len(job.split.train))
    set_seed_and_precision(options)
    try:
        return _train(job, unlabelled, folder, say, observer)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def _train(
    job: TrainingJob, unlabelled: Sample | None, folder: Path, say: Say, observer: TrainingObserver | None
) -> ModelSpec:
    network = new_network(job, say)
    say(f"{job.config.preset} network, {network.count_params():,} parameters, {keras.backend.backend()} backend")
    if not can_draw():
        say("warning: no figures: matplotlib is missing: pip install 'maskbeam[train]'")
    training = folder / TRAINING_FOLDER
    progress = _fit(job, network, training, say, observer)
    if unlabelled is None:
        return finish(job, network, progress, folder, training, say)
    labelled = label_pictures(job, network, unlabelled.pictures, say)
    for line in describe(job, labelled, unlabelled.available):
        say(line)
    # Whatever was drawn for the teacher, a resumed training gives the student the same numbers.
    set_seed_and_precision(job.options)
    student = build_network(job.config)
    student.set_weights(network.get_weights())
    student_progress = _fit(student_job(job, labelled), student, training / STUDENT_FOLDER, say, observer)
    more = metadata_of(job, labelled, progress.best_score, student_progress.best_score)
    say(decision(progress.best_score, student_progress.best_score))
    if is_student_kept(progress.best_score, student_progress.best_score):
        network, progress = student, student_progress
    return finish(job, network, progress, folder, training, say, more)


def _fit(
    job: TrainingJob, network: keras.Model, training: Path, say: Say, observer: TrainingObserver | None
) -> Progress:
    """Trains a network to the end, and leaves it with the weights of the best epoch."""
    options = job.options
    fitter = make_fitter(job, network, training)
    if options.resume and fitter.resume():
        say(f"resumed after epoch {fitter.progress.epoch}")
    steps = fitter.pictures.steps
    reporter = EpochReporter(job, fitter.progress, fitter.network, steps, training, say, observer)
    callbacks: list[Any] = [reporter.callback()]
    if options.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(training / "tensorboard", write_graph=False))
    fitter.run(options.epochs, options.patience, reporter.epoch_done, callbacks)
    if observer is not None:
        observer.stop()
    say(f"best epoch {fitter.progress.best_epoch}, validation global_mean_iou {fitter.progress.best_score:.4f}")
    return fitter.progress


def _check_output(folder: Path, resume: bool) -> None:
    held = [name for name in (METADATA_FILE, f"{TRAINING_FOLDER}/{CHECKPOINT_FILE}") if (folder / name).exists()]
    if held and not resume:
        raise OptionError(f"--output {folder} has a training ({held[0]}): add --resume or choose another folder")
    probe = folder / TRAINING_FOLDER / f".{os.getpid()}.tmp"
    try:
        filesystem.write_bytes(os.fspath(probe), b"")
        probe.unlink()
    except OSError as error:
        raise OptionError(f"--output {folder} can't be written: {error.strerror or error}") from error


def set_seed_and_precision(options: TrainOptions) -> None:
    """Sets the process' random seeds and the dtype policy of networks that are built afterwards."""
    # Keras also seeds TensorFlow if it is installed, with any backend; its first import prints messages.
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


def new_network(job: TrainingJob, say: Say) -> keras.Model:
    """The network of a job before its first epoch.

    Args:
        job: the training.
        say: called with a line that says what it starts from.
    """
    network = build_network(job.config)
    if (line := job.start.apply(network, job.class_names)) is not None:
        say(line)
    return network


def make_fitter(job: TrainingJob, network: keras.Model, training: Path) -> Fitter:
    """Compiles a network with the loss, optimizer and schedule of a job.

    Args:
        job: the training.
        network: as `build_network` made it.
        training: the folder of the checkpoint and the log.
    """
    options = job.options
    store = job.data.store
    items = store.items_of(job.split.train)
    pictures = TrainingPictures(store, items, options.augment, options.batch_size, options.seed)
    weights = parse_class_weights(options.class_weights)
    if options.class_weights == "balanced":
        weights = balanced_weights(store.class_px(job.split.train, job.labels.num_classes))
    loss = SegmentationLoss(options.loss, job.labels.num_classes, weights)
    rate = _learning_rate(options, pictures.steps)
    optimizer = keras.optimizers.Adam(rate)
    if job.start.has_encoder:
        factor = options.encoder_rate_factor
        optimizer = EncoderAdam(rate, ENCODER_RATE_FACTOR if factor is None else factor)
    trained = logits_of(network)
    if job.teacher is not None:
        trained = DistilledNetwork(trained, Teacher(job.teacher.network, job.teacher.config))
    # XLA made a CPU step two to four times as slow as TensorFlow's own kernels.
    jit: str | bool = False if keras.backend.backend() == "tensorflow" else "auto"
    trained.compile(optimizer, loss, jit_compile=jit)
    return Fitter(
        trained,
        pictures,
        store.items_of(job.split.validation),
        job.labels.num_classes,
        training,
        _fingerprint(job),
    )


def _learning_rate(options: TrainOptions, steps: int) -> Any:
    """A linear warm-up from a hundredth, then a cosine decay to a hundredth, or a constant rate."""
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


def _fingerprint(job: TrainingJob) -> str:
    """Identifies trainings that can continue from each other's checkpoints."""
    asked = {name: value for name, value in asdict(job.options).items() if name not in _NOT_IN_FINGERPRINT}
    what = [asked, asdict(job.config), job.labels.label_map.to_metadata(), job.data.store.pair_ids]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


_NOT_IN_FINGERPRINT = frozenset(
    ("dataset", "output", "ground_truth", "test_dataset", "name", "dataset_name", "licence", "resume", "patience")
) | {"tensorboard", "saved_model", "unlabelled"}
