"""Which classes a training has, and how its masks name them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.dataset import Labels
from model.options import TrainOptions
from model.source import EncodedPair, open_source, tfds_name
from pipeline.core.decode import decode_mask
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.labels import LabelMap


@dataclass(frozen=True, slots=True)
class KnownDataset:
    """What need not be said of a data set from TFDS.

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

_MOST_CLASSES_GUESSED = 64


def known_dataset(source: str) -> KnownDataset | None:
    """What is known of a `tfds:` source's data set, None for any other."""
    return _KNOWN.get(tfds_name(source) or "")


def resolve_classes(options: TrainOptions) -> tuple[Labels, tuple[str, ...]]:
    """Finds the classes: from the options, else from what is known of the data set, else from the masks' values.

    Returns:
        How masks are read, and the classes' names by id.

    Raises:
        OptionError: the options contradict each other, or the masks' values are no class ids.
    """
    known = known_dataset(options.dataset)
    map_text = options.label_map or (known.label_map if known else None)
    names = options.class_names or (known.class_names if known and options.label_map is None else None)
    label_map = None if map_text is None else LabelMap.parse(map_text)
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


def _count_classes(pairs: Iterator[EncodedPair], ignore_label: int | None) -> int:
    """Counts the classes of masks whose values are class ids already."""
    found: set[int] = set()
    for pair in pairs:
        try:
            raw = decode_mask(pair.read()[1])
        except (PictureError, OSError, ValueError):
            continue
        if raw.is_color:
            raise OptionError(f"{pair.pair_id}: the mask holds colours; name them with --label_map #rrggbb=0,…")
        found.update(int(value) for value in np.unique(raw.values))
    found.discard(-1 if ignore_label is None else ignore_label)
    if not found:
        raise OptionError("not one mask can be read")
    if max(found) >= _MOST_CLASSES_GUESSED:
        raise OptionError(
            f"the masks hold {_listed(sorted(found))}: no class ids; name them with --label_map or --class_names"
        )
    return max(found) + 1


def _listed(values: list[int]) -> str:
    return ", ".join(str(value) for value in values[:12]) + (" …" if len(values) > 12 else "")


def balanced_weights(class_px: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """Weights by the square root of rarity, 1 on average over the pixels; 0 for a class that never occurs.

    Args:
        class_px: (num_classes,) pixels of every class.
    """
    share = class_px / class_px.sum()
    weights = np.where(class_px > 0, 1.0 / np.sqrt(np.maximum(share, 1e-12)), 0.0)
    return tuple(float(weight) for weight in weights / (weights * share).sum())
