"""Self-training: the network that was trained on the masks labels the archive's own pictures and learns from both.

Student and teacher: Xie et al., "Self-training with noisy student improves ImageNet classification", CVPR 2020. The
student starts from the teacher's weights and is kept only if it scores more on the validation pictures.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model.data.dataset import map_in_order
from model.data.encoded_pairs import EncodedPair
from model.data.image_size import sample_by_hash
from model.data.split import Split
from model.data.unlabelled import OPTION, open_unlabelled
from model.job import TrainingJob
from model.pseudo_labels import calibrate, confident_labels, mirrored_probabilities
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.model_input import model_input
from pipeline.core.raster import open_raster
from pipeline.core.spec import InputSpec
from pipeline.core.split_digests import picture_digest
from pipeline.core.wording import pictures_text

Say = Callable[[str], None]

STUDENT_FOLDER = "student"
"""In the folder of the training: the student's checkpoint, log and figures."""

_MAX_RATIO = 10
"""Unlabelled pictures for each training picture: more would make an epoch long and drown the masks."""
_MIN_PICTURES = 100
_LABELLED_PARTS = 2
"""There is at least one labelled picture for so many unlabelled ones: labelled ones are repeated in an epoch."""
_STUDENT_UPDATES = 2
"""Weight updates of the student for each of the teacher's."""
_MIN_STUDENT_EPOCHS = 5
_BATCH = 16
_SHOWN_LEFT_OUT = 3
_EMPTY_SHARE = 0.01
"""Pictures with fewer confident pixels are left out."""

UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PseudoLabelled:
    """What the teacher has labelled.

    Attributes:
        indices: (n,) int64 the pictures' numbers in the job's store.
        thresholds: by class.
        confident: (num_classes,) share of the pixels of each predicted class that became labels.
        known: pictures that were left out because they have masks or are kept.
    """

    indices: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float32]
    confident: npt.NDArray[np.float64]
    known: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The unlabelled pictures that are used.

    Attributes:
        pictures: with empty masks, by the hash of their ids.
        available: how many the source has.
    """

    pictures: list[EncodedPair]
    available: int


def sample_unlabelled(source: str, training_pictures: int) -> Sample:
    """Draws the unlabelled pictures, by a hash of their ids, at most ten for each training picture.

    Raises:
        OptionError: the source doesn't exist or has no picture.
    """
    limit = max(_MIN_PICTURES, _MAX_RATIO * training_pictures)
    return Sample(*sample_by_hash(open_unlabelled(source), lambda pair_id: False, limit))


def label_pictures(job: TrainingJob, teacher: keras.Model, pairs: Sequence[EncodedPair], say: Say) -> PseudoLabelled:
    """Labels pictures by a network and adds them to the job's store.

    Args:
        job: the training of the teacher; its pictures, by the digest of their files, are left out.
        teacher: ends in probabilities.
        pairs: the unlabelled pictures.
        say: called with a line for pictures that can't be read.

    Raises:
        OptionError: no picture is left.
    """
    store, num_classes = job.data.store, job.labels.num_classes
    thresholds = calibrate(teacher, store, job.split.validation, num_classes).thresholds()
    predicted_px, confident_px = np.zeros((2, num_classes), np.int64)
    first, known, broken = len(store), 0, []
    waiting: list[tuple[str, UInt8Array]] = []

    def label() -> None:
        if not waiting:
            return
        found = mirrored_probabilities(teacher, np.stack([image for _, image in waiting]))
        for (pair_id, image), probabilities in zip(waiting, found, strict=True):
            mask = confident_labels(probabilities, thresholds)
            nonlocal predicted_px, confident_px
            predicted_px = predicted_px + np.bincount(probabilities.argmax(axis=-1).ravel(), minlength=num_classes)
            confident_px = confident_px + np.bincount(mask.ravel(), minlength=num_classes + 1)[:num_classes]
            if (mask < num_classes).mean() >= _EMPTY_SHARE:
                store.append(f"{OPTION}/{pair_id}", image, mask)
        waiting.clear()

    for pair, image in _read_pictures(job, pairs):
        if isinstance(image, str):
            broken.append(f"{pair.pair_id}: {image}")
        elif image is None:
            known += 1
        else:
            waiting.append((pair.pair_id, image))
            if len(waiting) == _BATCH:
                label()
    label()
    for line in broken[:_SHOWN_LEFT_OUT]:
        say(f"left out of {OPTION}: {line}")
    if len(broken) > _SHOWN_LEFT_OUT:
        say(f"left out of {OPTION}: {len(broken) - _SHOWN_LEFT_OUT:,} more that can't be read")
    if len(store) == first:
        raise OptionError(
            f"{OPTION}: none of {pictures_text(len(pairs))} can be used: {len(broken)} can't be read, {known} are also"
            " in --dataset or --test_dataset, the network is confident in none of the others"
        )
    confident = confident_px / np.maximum(predicted_px, 1)
    return PseudoLabelled(np.arange(first, len(store)), thresholds, confident, known)


def student_job(job: TrainingJob, labelled: PseudoLabelled) -> TrainingJob:
    """The job of the student: the training pictures with masks, repeated if they are few, and the labelled ones.

    Args:
        job: of the teacher; repeated pictures are added to its store.
        labelled: the pictures that the teacher labelled.

    Returns:
        A job of as many epochs as make twice the teacher's weight updates, at least 5 if the teacher has as many.
    """
    store, train = job.data.store, job.split.train
    repeats = labelled_repeats(len(train), len(labelled.indices))
    first = len(store)
    for repeat in range(1, repeats):
        for index in train:
            # An entry of its own, so that it is varied in its own way in each epoch.
            store.append(f"{store.pair_ids[index]} ({repeat + 1})", *store[int(index)])
    indices = np.concatenate([train, labelled.indices, np.arange(first, len(store))])
    split = Split(indices, job.split.validation, job.split.test)
    epochs = student_epochs(job.options.epochs, len(train), len(indices))
    return replace(job, split=split, options=replace(job.options, epochs=epochs))


def labelled_repeats(labelled: int, unlabelled: int) -> int:
    """How often the student sees each picture with a mask in an epoch, at least once.

    Args:
        labelled: pictures with masks.
        unlabelled: pictures that the teacher labelled.
    """
    return max(1, round(unlabelled / (_LABELLED_PARTS * labelled)))


def student_epochs(epochs: int, teacher_pictures: int, student_pictures: int) -> int:
    """The student's epochs.

    Args:
        epochs: the teacher's.
        teacher_pictures: in an epoch of the teacher.
        student_pictures: in an epoch of the student.
    """
    wanted = -(-_STUDENT_UPDATES * epochs * teacher_pictures // student_pictures)
    return min(epochs, max(_MIN_STUDENT_EPOCHS, wanted))


def describe(job: TrainingJob, labelled: PseudoLabelled, available: int) -> list[str]:
    """Lines that say how much became labels."""
    count = len(labelled.indices)
    parts = [
        f"{name} from {threshold:.2f} ({share:.0%} of its pixels)" if np.isfinite(threshold) else f"{name} never"
        for name, threshold, share in zip(job.class_names, labelled.thresholds, labelled.confident, strict=True)
    ]
    known = f"; {pictures_text(labelled.known)} left out that are in --dataset or --test_dataset" * bool(labelled.known)
    return [
        f"self-training: {count:,} of {pictures_text(available)} labelled where the network is confident{known}",
        f"self-training: confident is {', '.join(parts)}",
    ]


def metadata_of(
    job: TrainingJob, labelled: PseudoLabelled, teacher_score: float, student_score: float
) -> dict[str, Any]:
    """The entry `self_training` of the metadata's `training`."""
    return {
        "self_training": {
            "pictures": len(labelled.indices),
            "thresholds": {
                name: round(float(threshold), 3) if np.isfinite(threshold) else None
                for name, threshold in zip(job.class_names, labelled.thresholds, strict=True)
            },
            "validation_global_mean_iou_before": round(teacher_score, 6),
            "validation_global_mean_iou_after": round(student_score, 6),
            "kept": "student" if is_student_kept(teacher_score, student_score) else "teacher",
        }
    }


def is_student_kept(teacher_score: float, student_score: float) -> bool:
    """Whether the student replaces the teacher: only if it scores more on the validation pictures."""
    return student_score > teacher_score


def decision(teacher_score: float, student_score: float) -> str:
    """The line that says which network is kept."""
    compared = f"validation global_mean_iou {student_score:.4f} after self-training, {teacher_score:.4f} before"
    if is_student_kept(teacher_score, student_score):
        return f"self-training: {compared}: kept"
    return f"self-training: {compared}: it gained nothing, so the network without it is kept"


def _read_pictures(
    job: TrainingJob, pairs: Sequence[EncodedPair]
) -> Iterator[tuple[EncodedPair, UInt8Array | str | None]]:
    """Reads pictures at the model's size: (H, W, C) uint8, a message if that fails, or None if the job knows it."""
    config = job.config
    spec = InputSpec(config.image_height, config.image_width, config.channels)

    def read(pair: EncodedPair) -> UInt8Array | str | None:
        try:
            content = pair.read()[0]
            if job.digests.part_of(picture_digest(content)) is not None:
                return None
            raster = open_raster(content, channels=config.channels)
            return np.asarray(model_input(raster.read(raster.info.whole), spec), np.uint8)
        except PictureError as error:
            return error.message
        except (OSError, ValueError) as error:
            return getattr(error, "strerror", None) or str(error)

    return map_in_order(iter(pairs), read)
