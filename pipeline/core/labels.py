"""Translates the values of mask files to class ids; an unknown value is an error, never dropped."""

import re
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.core.decode import RawMask
from pipeline.core.errors import ErrorType, OptionError, PictureError

ClassIds = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

IgnoreLabel = int | str
"""The raw value of mask pixels to ignore: a number, negative in signed files, or a colour `#rrggbb`."""

MAX_CLASSES = 65_535
_MIN_RAW_VALUE = -(2**31)
_VALUE = re.compile(r"[0-9]{1,5}")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_MAX_VALUES_NAMED = 12


def class_id_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The dtype that holds the ids 0 to num_classes - 1 and num_classes, which marks ignored pixels."""
    return np.uint8 if num_classes < 256 else np.uint16


def parse_ignore_label(text: str) -> IgnoreLabel:
    """Reads the option's form of an ignore label.

    Args:
        text: a number from -2147483648 to 65535, or `#rrggbb`.

    Returns:
        The label.

    Raises:
        OptionError: it is neither.
    """
    try:
        value: object = int(text)
    except ValueError:
        value = text.strip()
    try:
        return checked_ignore_label(value)
    except OptionError as error:
        raise OptionError(f"--ignore_label: {error}") from error


def checked_ignore_label(value: object) -> IgnoreLabel:
    """Checks an ignore label of `metadata.json`.

    Args:
        value: a number or a text.

    Returns:
        The label, a colour in lower case.

    Raises:
        OptionError: it is no such label.
    """
    if isinstance(value, str) and _COLOR.fullmatch(value):
        return value.lower()
    if isinstance(value, int) and not isinstance(value, bool) and _MIN_RAW_VALUE <= value <= MAX_CLASSES:
        return value
    raise OptionError(f"{value!r} is neither a value from {_MIN_RAW_VALUE} to {MAX_CLASSES} nor #rrggbb")


@dataclass(frozen=True, slots=True)
class LabelMap:
    """Which raw mask value means which class.

    Args:
        class_of_value: grey level or palette index (0 to 65,535) to class id, or to the ignore label.
        class_of_color: 0xRRGGBB to class id, or to the ignore label.
    """

    class_of_value: dict[int, int]
    class_of_color: dict[int, int]

    @staticmethod
    def identity(num_classes: int) -> "LabelMap":
        """The map in which every value is its own class id."""
        return LabelMap({class_id: class_id for class_id in range(num_classes)}, {})

    @staticmethod
    def parse(text: str) -> "LabelMap":
        """Reads the option's form, such as `1=0,2=1,#ff0000=2`.

        Args:
            text: pairs RAW=CLASS_ID between commas; RAW is 0 to 65535 or `#rrggbb`.

        Returns:
            The map.

        Raises:
            OptionError: a pair is not of that form, or a raw value occurs twice.
        """
        pairs: dict[str, int] = {}
        for pair in text.split(","):
            raw, equals, class_id = (part.strip() for part in pair.partition("="))
            if not equals or not _VALUE.fullmatch(class_id):
                raise OptionError(f"--label_map: {pair.strip()!r} is not of the form RAW=CLASS_ID")
            key = str(int(raw)) if _VALUE.fullmatch(raw) else raw.lower()
            if key in pairs:
                raise OptionError(f"--label_map: {raw} occurs twice")
            pairs[key] = int(class_id)
        return LabelMap.from_metadata(pairs)

    @staticmethod
    def from_metadata(pairs: dict[str, int]) -> "LabelMap":
        """Builds the map from raw values as text, as `metadata.json` keeps them.

        Raises:
            OptionError: a key is neither a number from 0 to 65535 nor `#rrggbb`.
        """
        values: dict[int, int] = {}
        colors: dict[int, int] = {}
        for raw, class_id in pairs.items():
            if _COLOR.fullmatch(raw):
                colors[int(raw[1:], 16)] = class_id
            elif _VALUE.fullmatch(raw) and int(raw) <= MAX_CLASSES:
                values[int(raw)] = class_id
            else:
                raise OptionError(f"label map: {raw!r} is neither a value from 0 to 65535 nor #rrggbb")
        return LabelMap(values, colors)

    def to_metadata(self) -> dict[str, int]:
        """The inverse of `from_metadata`, in ascending order of the raw values."""
        pairs = {str(value): class_id for value, class_id in sorted(self.class_of_value.items())}
        return pairs | {f"#{color:06x}": class_id for color, class_id in sorted(self.class_of_color.items())}

    def check(self, num_classes: int, ignore_label: IgnoreLabel | None) -> None:
        """Checks the targets against the model's classes.

        Raises:
            OptionError: a target is neither a class id of the model nor the ignore label, or the ignore label is
                both a raw value that the map assigns a class and another value's target.
        """
        if isinstance(ignore_label, int) and ignore_label in self.class_of_value.values():
            own_target = self.class_of_value.get(ignore_label, num_classes)
            if own_target < num_classes <= ignore_label:
                raise OptionError(
                    f"label map: {ignore_label} is the ignore label and the raw value of class {own_target}"
                )
        for target in (*self.class_of_value.values(), *self.class_of_color.values()):
            if not 0 <= target < num_classes and target != ignore_label:
                raise OptionError(f"label map: class id {target} is not one of the model's 0 to {num_classes - 1}")

    def to_class_ids(self, raw: RawMask, num_classes: int, ignore_label: IgnoreLabel | None) -> ClassIds:
        """Translates a mask's raw values.

        Args:
            raw: the mask's raw values.
            num_classes: the model's number of classes.
            ignore_label: the raw value of pixels to ignore, even if the map has it; None for none. As a target of the
                map (`3=255`) it means the same unless it is one of the model's class ids. A colour applies to colour
                masks only.

        Returns:
            (height, width) class ids as `class_id_dtype(num_classes)`; ignored pixels hold `num_classes`.

        Raises:
            PictureError: stage `truth`, type `UnknownLabels`; the message lists the unknown values.
        """
        # Class ids and ignored pixels are at most num_classes; one above marks unknown values.
        unknown_id = num_classes + 1
        dtype = np.min_scalar_type(unknown_id)
        is_color = raw.is_color and bool(self.class_of_color)
        targets = self._targets(is_color, num_classes, ignore_label)
        values: npt.NDArray[np.integer] = raw.values
        ignored: npt.NDArray[np.bool_] | None = None
        class_ids: npt.NDArray[np.unsignedinteger]
        if is_color:
            class_ids = _color_ids(values, targets, np.full(values.shape, unknown_id, dtype))
        else:
            values, ignored = _table_indices(raw, ignore_label)
            size = 256 if values.dtype == np.uint8 else 65_536
            table: npt.NDArray[np.unsignedinteger] = np.full(size, unknown_id, dtype)
            for value, target in targets.items():
                if value < size:
                    table[value] = target
            if size == 256 and dtype == np.uint8:
                class_ids = np.asarray(cv2.LUT(values, table), np.uint8)
            else:
                class_ids = table.take(values)
            if ignored is not None:
                class_ids[ignored] = num_classes
        if class_ids.size and int(class_ids.max()) == unknown_id:
            unknown = np.unique(values[class_ids == unknown_id]).tolist()
            raise PictureError("truth", ErrorType.UNKNOWN_LABELS, _unknown_message(unknown, is_color))
        if class_id_dtype(num_classes) is np.uint8:
            return class_ids.astype(np.uint8, copy=False)
        return class_ids.astype(np.uint16, copy=False)

    def _targets(self, is_color: bool, num_classes: int, ignore_label: IgnoreLabel | None) -> dict[int, int]:
        """Raw value to class id, or to num_classes for pixels to ignore."""
        mapping = self.class_of_color if is_color else self.class_of_value
        targets = {
            value: num_classes if target == ignore_label and target >= num_classes else target
            for value, target in mapping.items()
        }
        if isinstance(ignore_label, str):
            if is_color:
                targets[_packed(ignore_label)] = num_classes
        elif ignore_label is not None and ignore_label >= 0 and not is_color:
            targets[ignore_label] = num_classes
        return targets


def _packed(color: str) -> int:
    """`#rrggbb` as 0xRRGGBB."""
    return int(color[1:], 16)


def _table_indices(
    raw: RawMask, ignore_label: IgnoreLabel | None
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.bool_] | None]:
    """The values of a mask to look up in a table, and the ignored pixels whose values the table can't hold.

    Returns:
        (height, width) uint8 or uint16, and (height, width) bool or None.

    Raises:
        PictureError: the mask has negative values or colours that are not in the map.
    """
    values: npt.NDArray[np.integer] = raw.values
    if not raw.is_color and values.dtype != np.int32:
        return values, None
    ignored = None
    if isinstance(ignore_label, str) == raw.is_color and ignore_label is not None:
        ignored = values == (_packed(ignore_label) if isinstance(ignore_label, str) else ignore_label)
        values = np.where(ignored, values.dtype.type(0), values)
    if raw.is_color:
        return _grey_of(values), ignored
    if (negative := values < 0).any():
        raise PictureError(
            "truth", ErrorType.UNKNOWN_LABELS, _unknown_message(np.unique(values[negative]).tolist(), False)
        )
    return values.astype(np.uint16), ignored


def _color_ids(
    colors: npt.NDArray[np.integer], targets: dict[int, int], class_ids: npt.NDArray[np.unsignedinteger]
) -> npt.NDArray[np.unsignedinteger]:
    """Compares colour by colour, because sorting the pixels costs as much as fifty comparisons."""
    left = colors.size
    for color, target in targets.items():
        hit = colors == np.uint32(color)
        count = int(np.count_nonzero(hit))
        if count:
            class_ids[hit] = target
            left -= count
            if not left:
                break
    return class_ids


def _grey_of(colors: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """The grey levels of an RGB mask with three equal channels; many tools save labels that way.

    Raises:
        PictureError: the mask has colours other than grey and the label map has none.
    """
    grey = (colors & 0xFF).astype(np.uint8)
    if not np.array_equal(grey.astype(np.uint32) * 0x010101, colors):
        found = np.unique(colors[colors != grey.astype(np.uint32) * 0x010101]).tolist()
        raise PictureError("truth", ErrorType.UNKNOWN_LABELS, _unknown_message(found, True))
    return grey


def _unknown_message(unknown: list[int], is_color: bool) -> str:
    shown = [f"#{value:06x}" if is_color else str(value) for value in unknown[:_MAX_VALUES_NAMED]]
    more = f" and {len(unknown) - len(shown)} more" if len(unknown) > len(shown) else ""
    return f"the mask has values that are not in the label map: {', '.join(shown)}{more}"
