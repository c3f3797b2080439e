"""The options of a training, checked before any work."""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.data.augment import check_augmentation
from pipeline.core.errors import OptionError
from pipeline.core.labels import IgnoreLabel
from pipeline.core.usage import RESIZE, TILE

DEFAULT_PRESET = "efficientnet_lite"
ENCODER_RATE_FACTOR = 0.2
LOSSES = ("ce", "ce_dice", "focal")
SCHEDULES = ("cosine", "constant")
ENCODERS = ("lite0", "lite1", "lite2")
RANDOM_ENCODER = "none"
MODES = (RESIZE, TILE)
PRECISIONS = ("auto", "float32", "mixed_float16")


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """All options of `python -m model train`; None for the default of the data set or preset.

    Attributes:
        dataset: the source of pictures.
        output: the model folder to write.
        ground_truth: the folder of masks beside a folder of pictures.
        test_dataset: a separate source for the evaluation at the end.
        unlabelled: a source of pictures without masks for self-training.
        label_map: `1=0,2=1`, raw mask values to class ids.
        ignore_label: the raw mask value of pixels to ignore.
        class_names: the classes by id.
        name: the model's name; None for the output folder's.
        dataset_name: the training data's name, for the metadata.
        licence: the training data's licence, for the metadata.
        mode: `resize`, whole pictures at the model's size, or `tile`, random crops at full resolution.
        preset: the architecture; None for `from_model`'s, else `DEFAULT_PRESET`.
        encoder: one of `ENCODERS` with its ImageNet weights, or `RANDOM_ENCODER` for random weights.
        from_model: the model whose weights the training starts from.
        distil: the model whose logits are learned besides the masks.
        image_size: input height and width, px; None for that of `from_model`, else for the one that
            `model.data.image_size` chooses from the masks.
        width: filters of the first level.
        depth: number of times that the picture is halved.
        channels: 1 or 3.
        epochs: maximum number of passes over the training pictures.
        batch_size: pictures per step.
        loss: one of `LOSSES`.
        class_weights: `balanced` or a number for each class.
        learning_rate: the highest of the schedule.
        encoder_rate_factor: by which the rate is multiplied in a pretrained encoder, 0..1; at 0 its kernels stay; None
            for `ENCODER_RATE_FACTOR` where there is one.
        schedule: one of `SCHEDULES`.
        warmup_epochs: epochs over which the rate rises to the highest.
        augment: one of `model.data.augment.AUGMENTATIONS`.
        val_fraction: share of the pictures that chooses the best epoch.
        test_fraction: share kept for the end; ignored with `test_dataset`.
        patience: epochs without a better validation score before the end; 0 never ends early.
        precision: one of `PRECISIONS`; auto is mixed on a GPU.
        seed: of everything random.
        resume: continue from the last checkpoint in the output.
        tensorboard: write event files too.
        saved_model: export a SavedModel too.
    """

    dataset: str
    output: str
    ground_truth: str | None = None
    test_dataset: str | None = None
    unlabelled: str | None = None
    label_map: str | None = None
    ignore_label: IgnoreLabel | None = None
    class_names: tuple[str, ...] | None = None
    name: str | None = None
    dataset_name: str | None = None
    licence: str | None = None
    mode: str = RESIZE
    preset: str | None = None
    encoder: str | None = None
    from_model: str | None = None
    distil: str | None = None
    image_size: tuple[int, int] | None = None
    width: int | None = None
    depth: int | None = None
    channels: int = 3
    epochs: int = 40
    batch_size: int = 16
    loss: str = "ce_dice"
    class_weights: str | None = None
    learning_rate: float = 2e-3
    encoder_rate_factor: float | None = None
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    augment: str = "light"
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    patience: int = 0
    precision: str = "auto"
    seed: int = 0
    resume: bool = False
    tensorboard: bool = False
    saved_model: bool = False


def check_options(options: TrainOptions) -> None:
    """Refuses options that are invalid for any data, without importing Keras.

    Raises:
        OptionError: naming the option.
    """
    for name, value, minimum in (
        ("--epochs", options.epochs, 1),
        ("--batch_size", options.batch_size, 1),
        ("--patience", options.patience, 0),
        ("--seed", options.seed, 0),
        ("--warmup_epochs", options.warmup_epochs, 0),
    ):
        if not minimum <= value < math.inf:
            raise OptionError(f"{name} must be at least {minimum}, not {value}")
    if not 0.0 < options.learning_rate <= 1.0:
        raise OptionError(f"--learning_rate must be above 0 and at most 1, not {options.learning_rate}")
    if options.encoder_rate_factor is not None and not 0.0 <= options.encoder_rate_factor <= 1.0:
        raise OptionError(f"--encoder_rate_factor must be 0 to 1, not {options.encoder_rate_factor}")
    if options.channels not in (1, 3):
        raise OptionError(f"--channels must be 1 or 3, not {options.channels}")
    for name, chosen, known in (
        ("--loss", options.loss, LOSSES),
        ("--schedule", options.schedule, SCHEDULES),
        ("--precision", options.precision, PRECISIONS),
        ("--mode", options.mode, MODES),
        ("--encoder", options.encoder or RANDOM_ENCODER, (*ENCODERS, RANDOM_ENCODER)),
    ):
        if chosen not in known:
            raise OptionError(f"{name} {chosen} is not one of {', '.join(known)}")
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise OptionError("--tensorboard needs the package of that name: pip install tensorboard")
    if options.unlabelled is not None and options.mode == TILE:
        raise OptionError("--unlabelled needs --mode resize: it labels whole pictures at the model's size")
    parse_class_weights(options.class_weights)
    check_augmentation(options.augment)
    names = options.class_names
    if names is not None and (len(set(names)) != len(names) or "" in names):
        raise OptionError("--class_names must be different and not empty")


def parse_class_weights(text: str | None) -> tuple[float, ...] | None:
    """Reads `--class_weights 1,2,0.5`.

    Returns:
        A weight for each class; None without the option or for `balanced`.

    Raises:
        OptionError: it is neither.
    """
    if text is None or text == "balanced":
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--class_weights {text}: neither `balanced` nor numbers between commas") from None


def check_class_weights(weights: Sequence[float], num_classes: int) -> None:
    """Checks class weights against the number of classes.

    Raises:
        OptionError: there are too few or too many, one is negative, or all are 0.
    """
    if len(weights) != num_classes:
        raise OptionError(f"--class_weights gives {len(weights)} weights for {num_classes} classes")
    if not (min(weights) >= 0.0 and 0.0 < max(weights) < float("inf")):
        raise OptionError("--class_weights must be numbers of at least 0, and not all 0")


def parse_image_size(text: str) -> tuple[int, int] | None:
    """Reads `--image_size 128` or `--image_size 128x192` (height x width), px, or `auto`.

    Returns:
        Height and width; None for `auto`.

    Raises:
        OptionError: it is of no such form.
    """
    if text == "auto":
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise OptionError(f"--image_size {text}: neither auto, nor a number, nor HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])
