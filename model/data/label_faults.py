"""Masks that can't be read as class ids: how many files, which values, and the option that maps them."""

import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.core.decode import RawMask
from pipeline.core.labels import IgnoreLabel, LabelMap

MAX_CLASSES_GUESSED = 64
"""Masks without a label map whose values are all below this have class ids; others need a map."""

_MAX_VALUES_SHOWN = 12
_MAX_FILES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TruthFault:
    """A mask that can't be used.

    Attributes:
        pair_id: the picture's id.
        message: what is wrong.
        values: all raw values of the mask, ascending, if some of them have no class; empty for another error.
        unknown: those of them that have no class.
    """

    pair_id: str
    message: str
    values: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(slots=True)
class ValueCounts:
    """The raw values of many masks.

    Attributes:
        masks: how many masks were read.
        files: in how many of them each value occurs; a value is a number, or `#rrggbb` in a colour mask.
    """

    masks: int = 0
    files: Counter[str] = field(default_factory=Counter)

    def add(self, values: Iterable[str]) -> None:
        """Counts one mask's values, each given once."""
        self.masks += 1
        self.files.update(values)

    def ascending(self) -> list[str]:
        """The values, numbers before colours."""
        return sorted(self.files, key=_rank)

    def without_grey_colors(self) -> "ValueCounts":
        """The same counts; colours are numbers if all of them are grey."""
        if not _are_grey(self.files):
            return self
        files: Counter[str] = Counter()
        for value, count in zip(_as_numbers(self.files), self.files.values(), strict=True):
            files[value] += count
        return ValueCounts(self.masks, files)


def raw_values(mask: RawMask) -> tuple[str, ...]:
    """The unique raw values of a mask, ascending: numbers, or `#rrggbb` in a colour mask."""
    if mask.is_color:
        return tuple(f"#{value:06x}" for value in np.unique(mask.values))
    if mask.values.dtype == np.int32:
        return tuple(str(value) for value in np.unique(mask.values))
    return tuple(str(value) for value in np.flatnonzero(np.bincount(mask.values.ravel())))


def truth_fault(
    pair_id: str, message: str, mask: RawMask, label_map: LabelMap, ignore_label: IgnoreLabel | None
) -> TruthFault:
    """The `TruthFault` of a mask some of whose values have no class.

    Args:
        pair_id: the picture's id.
        message: what is wrong.
        mask: the raw mask.
        label_map: of raw values; one without colours reads grey RGB masks as numbers.
        ignore_label: the raw value of pixels to ignore, None where there is none.
    """
    values = raw_values(mask)
    if not label_map.class_of_color and _are_grey(values):
        values = _as_numbers(values)
    known = {*label_map.to_metadata(), *(() if ignore_label is None else (str(ignore_label),))}
    return TruthFault(pair_id, message, values, tuple(value for value in values if value not in known))


def label_map_for(values: Sequence[str]) -> str:
    """The option that maps raw values, in their order, to the classes 0, 1, 2 …; quoted for a shell."""
    return "--label_map " + shlex.quote(",".join(f"{raw}={class_id}" for class_id, raw in enumerate(values)))


def no_class_ids(counts: ValueCounts) -> str:
    """The message for masks whose values are not class ids, without label map and class names."""
    values = counts.ascending()
    held = f"the {counts.masks} masks hold {_listed(values)}: no class ids"
    if len(values) > MAX_CLASSES_GUESSED:
        return f"{held}, and {len(values)} values are too many for classes: are they pictures or JPEG files?"
    advice = f"{held}; add {label_map_for(values)}"
    rest, last = values[:-1], values[-1]
    if len(rest) > 1 and rest == [str(class_id) for class_id in range(len(rest))]:
        advice += f", or --ignore_label {last} if its pixels are to be ignored"
    return advice


def describe_faults(
    faults: Sequence[TruthFault], masks: int, map_text: str | None, num_classes: int, classes_seen: Collection[int]
) -> str:
    """One line about all the masks of a data set that can't be used.

    Args:
        faults: at least one.
        masks: how many masks were read, the usable ones included.
        map_text: the label map as given, None if only class names are given.
        num_classes: how many classes there are.
        classes_seen: the class ids in the usable masks.

    Returns:
        How many masks, which values in how many of them, and the options that map these.
    """
    return "; ".join(_described(faults, masks, map_text, num_classes, classes_seen))


def _described(
    faults: Sequence[TruthFault], masks: int, map_text: str | None, num_classes: int, classes_seen: Collection[int]
) -> Iterator[str]:
    other = [fault for fault in faults if not fault.unknown]
    if other:
        shown = "; ".join(f"{fault.pair_id}: {fault.message}" for fault in other[:_MAX_FILES_SHOWN])
        more = f"; and {len(other) - _MAX_FILES_SHOWN} more" if len(other) > _MAX_FILES_SHOWN else ""
        yield f"{len(other)} of {masks} masks can't be used: {shown}{more}"
    unknown, present = ValueCounts(), ValueCounts()
    labels = [fault for fault in faults if fault.unknown]
    if not labels:
        return
    for fault in labels:
        unknown.add(fault.unknown)
        present.add(fault.values)
    named = ", ".join(f"{value} in {unknown.files[value]}" for value in unknown.ascending()[:_MAX_VALUES_SHOWN])
    more = " …" if len(unknown.files) > _MAX_VALUES_SHOWN else ""
    held = f"{len(labels)} of {masks} masks hold values that have no class ({named}{more}; first {labels[0].pair_id})"
    if map_text is None:
        # In colour masks, a class id that was read from a grey pixel is the grey of that value.
        in_color = any(value.startswith("#") for value in unknown.files)
        present.add(f"#{one * 0x010101:06x}" if in_color else str(one) for one in classes_seen)
        yield f"{held}: {_advice_for_names(present.ascending(), num_classes)}"
    else:
        first = unknown.ascending()[0]
        if first.startswith("-"):
            yield f"{held}: ignore their pixels with --ignore_label {first}"
            return
        wider = shlex.quote(f"{map_text},{first}=CLASS_ID")
        yield f"{held}: map them as in --label_map {wider}, or ignore their pixels with --ignore_label"


def _advice_for_names(values: Sequence[str], num_classes: int) -> str:
    """The options with which the values fit the number of class names."""
    if values[0].startswith("-"):
        return f"add --ignore_label {values[0]}: a negative value can't be a class"
    if len(values) == num_classes:
        return f"add {label_map_for(values)}"
    if len(values) == num_classes + 1 and list(values[:-1]) == [str(class_id) for class_id in range(num_classes)]:
        return f"add --ignore_label {values[-1]} if its pixels are to be ignored, or add a class name"
    return (
        f"{len(values)} values, {_listed(values)}, for {num_classes} class names; map each value to"
        " its class by --label_map RAW=CLASS_ID,…"
    )


def _are_grey(values: Iterable[str]) -> bool:
    return all(not value.startswith("#") or value[1:3] == value[3:5] == value[5:7] for value in values)


def _as_numbers(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(str(int(value[5:7], 16)) if value.startswith("#") else value for value in values)


def _rank(value: str) -> tuple[bool, int]:
    is_color = value.startswith("#")
    return is_color, int(value[1:], 16) if is_color else int(value)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:_MAX_VALUES_SHOWN]) + (" …" if len(values) > _MAX_VALUES_SHOWN else "")
