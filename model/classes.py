"""The classes of a training, and how raw mask values map to them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.data.dataset import map_in_order
from model.data.encoded_pairs import EncodedPair, open_source, tfds_name
from model.data.label_faults import MAX_CLASSES_GUESSED, ValueCounts, no_class_ids, raw_values
from model.options import TrainOptions
from pipeline.core.decode import decode_mask
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.labels import IgnoreLabel, LabelMap
from pipeline.core.truth import Labels


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """Known properties of a data set from TFDS, which need no options.

    Attributes:
        title: for the metadata.
        licence: for the metadata.
        label_map: raw mask values to class ids.
        class_names: by id.
    """

    title: str
    licence: str
    label_map: str
    class_names: tuple[str, ...]


_KNOWN = {
    "oxford_iiit_pet": KnownDataset(
        "Oxford-IIIT Pet", "CC BY-SA 4.0 (research use in the archive)", "1=0,2=1,3=2", ("pet", "background", "border")
    )
}


def known_dataset(source: str) -> KnownDataset | None:
    """The known properties of a `tfds:` source's data set, None for any other."""
    return _KNOWN.get(tfds_name(source) or "")


def map_text(options: TrainOptions) -> str | None:
    """The label map as given, else the data set's known one, else None."""
    known = known_dataset(options.dataset)
    return options.label_map or (known.label_map if known else None)


def resolve_classes(options: TrainOptions) -> tuple[Labels, tuple[str, ...]]:
    """Determines the classes: from the options, else the data set's known ones, else from the masks' values.

    Returns:
        How raw mask values become class ids, and the classes' names by id.

    Raises:
        OptionError: the options contradict each other, or the masks' values are not class ids.
    """
    known = known_dataset(options.dataset)
    text = map_text(options)
    names = options.class_names or (known.class_names if known and options.label_map is None else None)
    label_map = None if text is None else LabelMap.parse(text)
    if names is not None:
        num_classes = len(names)
    elif label_map is not None:
        targets = {*label_map.class_of_value.values(), *label_map.class_of_color.values()}
        num_classes = 1 + max(targets - {options.ignore_label}, default=0)
    else:
        num_classes = _count_classes(open_source(options.dataset, options.ground_truth), options.ignore_label)
    if num_classes < 2:
        raise OptionError(f"a segmentation needs at least 2 classes; the labels name {num_classes}")
    label_map = label_map or LabelMap.identity(num_classes)
    label_map.check(num_classes, options.ignore_label)
    labels = Labels(label_map, num_classes, options.ignore_label)
    return labels, names or tuple(f"class_{class_id}" for class_id in range(num_classes))


def _count_classes(pairs: Iterator[EncodedPair], ignore_label: IgnoreLabel | None) -> int:
    """Counts the classes of masks whose values are class ids."""
    counts = ValueCounts()
    for _, values in map_in_order(pairs, _values_of):
        if values:
            counts.add(values)
    if not counts.masks:
        raise OptionError("no mask can be read")
    # Without a label map colours are read as numbers where all that are not ignored are grey.
    counts.files.pop(str(ignore_label), None)
    counts = counts.without_grey_colors()
    counts.files.pop(str(ignore_label), None)
    found = counts.ascending()
    if not found:
        raise OptionError(f"the masks have no value other than the ignore label {ignore_label}")
    if found[-1].startswith("#") or int(found[-1]) >= MAX_CLASSES_GUESSED:
        raise OptionError(no_class_ids(counts))
    return int(found[-1]) + 1


def _values_of(pair: EncodedPair) -> tuple[str, ...]:
    """The raw values of a pair's mask; none if it can't be read, which is reported when the pictures are read."""
    try:
        return raw_values(decode_mask(pair.read()[1]))
    except (PictureError, OSError, ValueError):
        return ()


def balanced_weights(class_px: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """Weights by the square root of rarity, 1 on average over the pixels; 0 for a class that never occurs.

    Args:
        class_px: (num_classes,) pixels of every class.
    """
    share = class_px / class_px.sum()
    weights = np.where(class_px > 0, 1.0 / np.sqrt(np.maximum(share, 1e-12)), 0.0)
    return tuple(float(weight) for weight in weights / (weights * share).sum())
