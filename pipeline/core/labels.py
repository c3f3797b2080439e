"""From the values that mask files hold to class ids, and nothing dropped on the way."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.decode import RawMask
from pipeline.core.errors import OptionError, PictureError

ClassIds = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

MAX_CLASSES = 65_535
_VALUE = re.compile(r"\d{1,5}")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_MOST_VALUES_NAMED = 12


def class_id_dtype(num_classes: int) -> type[np.uint8] | type[np.uint16]:
    """The dtype that holds the ids 0 to num_classes - 1 and num_classes, which marks ignored pixels."""
    return np.uint8 if num_classes < 256 else np.uint16


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
            OptionError: a pair is not of that form, or a raw value stands twice.
        """
        pairs: dict[str, int] = {}
        for pair in text.split(","):
            raw, equals, class_id = (part.strip() for part in pair.partition("="))
            if not equals or not _VALUE.fullmatch(class_id):
                raise OptionError(f"--label_map: {pair.strip()!r} is not of the form RAW=CLASS_ID")
            if raw.lower() in pairs:
                raise OptionError(f"--label_map: {raw} stands twice")
            pairs[raw.lower()] = int(class_id)
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

    def check(self, num_classes: int, ignore_label: int | None) -> None:
        """Holds the targets against the model's classes.

        Raises:
            OptionError: a target is neither a class id of the model nor the ignore label.
        """
        for target in (self.class_of_value | self.class_of_color).values():
            if target >= num_classes and target != ignore_label:
                raise OptionError(f"label map: class id {target} is not one of the model's 0 to {num_classes - 1}")

    def to_class_ids(self, raw: RawMask, num_classes: int, ignore_label: int | None) -> ClassIds:
        """Translates a mask's raw values.

        Args:
            raw: the mask as its file holds it.
            num_classes: the model's number of classes.
            ignore_label: the raw value, and the map's target, of pixels that count for nothing; None for none.

        Returns:
            (height, width) class ids as `class_id_dtype(num_classes)`; ignored pixels hold `num_classes`.

        Raises:
            PictureError: stage `truth`, type `UnknownLabels`; the message lists the values that nothing names.
        """
        if raw.is_color and not self.class_of_color:
            values = _grey_of(raw.values)
            return self._lookup(values, self.class_of_value, num_classes, ignore_label, is_color=False)
        mapping = self.class_of_color if raw.is_color else self.class_of_value
        return self._lookup(raw.values, mapping, num_classes, ignore_label, is_color=raw.is_color)

    @staticmethod
    def _lookup(
        values: npt.NDArray[np.unsignedinteger],
        mapping: dict[int, int],
        num_classes: int,
        ignore_label: int | None,
        *,
        is_color: bool,
    ) -> ClassIds:
        dtype = class_id_dtype(num_classes)
        targets = {raw: num_classes if class_id == ignore_label else class_id for raw, class_id in mapping.items()}
        if ignore_label is not None and not is_color:
            targets.setdefault(ignore_label, num_classes)
        # Values of up to 16 bits go through a table; packed colours are first made an index into their few values.
        if is_color:
            found, inverse = np.unique(values, return_inverse=True)
            unknown = [int(value) for value in found if int(value) not in targets]
            if not unknown:
                return np.array([targets[int(value)] for value in found], dtype)[inverse].reshape(values.shape)
        else:
            table = np.full(256 if values.dtype == np.uint8 else 65_536, -1, np.int32)
            for raw_value, target in targets.items():
                if raw_value < table.size:
                    table[raw_value] = target
            class_ids = table[values]
            if class_ids.size == 0 or int(class_ids.min()) >= 0:
                return class_ids.astype(dtype)
            unknown = np.unique(values[class_ids < 0]).tolist()
        raise PictureError("truth", "UnknownLabels", _unknown_message(unknown, is_color))


def _grey_of(colors: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    """The grey levels of an RGB mask whose three channels are the same; many tools save labels so.

    Raises:
        PictureError: the mask holds real colours and the label map names none.
    """
    grey = (colors & 0xFF).astype(np.uint8)
    if not np.array_equal(grey.astype(np.uint32) * 0x010101, colors):
        found = np.unique(colors[colors != grey.astype(np.uint32) * 0x010101]).tolist()
        raise PictureError("truth", "UnknownLabels", _unknown_message(found, True))
    return grey


def _unknown_message(unknown: list[int], is_color: bool) -> str:
    shown = [f"#{value:06x}" if is_color else str(value) for value in unknown[:_MOST_VALUES_NAMED]]
    more = f" and {len(unknown) - len(shown)} more" if len(unknown) > len(shown) else ""
    return f"the mask holds values that the label map does not name: {', '.join(shown)}{more}"
