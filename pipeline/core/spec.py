"""The description of a model in `metadata.json`."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.errors import ModelError, OptionError
from pipeline.core.labels import MAX_CLASSES, IgnoreLabel, LabelMap, checked_ignore_label
from pipeline.core.palette import default_colors, rgb_from_hex
from pipeline.core.usage import Usage

SCHEMA_VERSION = 1
METADATA_FILE = "metadata.json"
FLOAT_MODEL_FILE = "model.tflite"
INT8_MODEL_FILE = "model_int8.tflite"
KERAS_MODEL_FILE = "model.keras"
TRAINING_FOLDER = "training"
"""Below a model folder: log, figures and checkpoint of the training that made it."""

_DTYPES = ("uint8", "float32")


@dataclass(frozen=True, slots=True)
class ClassSpec:
    """One class of a model.

    Args:
        class_id: the value in masks, 0 to num_classes - 1.
        name: for people and tables; unique in a model.
        color: `#rrggbb`, its colour in indexed masks and overlays.
    """

    class_id: int
    name: str
    color: str


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A model's input; `pipeline.core.model_input.model_input` makes it from pixels.

    Args:
        height: px.
        width: px.
        channels: 1 (luma) or 3 (RGB).
        dtype: `uint8` or `float32`.
        value_range: the values for 0 and 255 of a picture; (0, 255) unless the dtype is float32.
    """

    height: int
    width: int
    channels: int
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model's input, classes and origin.

    Args:
        name: for people and tables.
        height: input height, px.
        width: input width, px.
        channels: input channels, 1 (luma) or 3 (RGB).
        dtype: input dtype, `uint8` or `float32`.
        value_range: the input values for 0 and 255 of a picture; (0, 255) unless the dtype is float32.
        classes: the classes by id.
        label_map: raw mask values of the training data to class ids, empty for identity.
        ignore_label: the raw mask value of pixels to ignore, None where there is none.
        usage: how pictures are meant to be shown to it.
        files: digest and size of each file: name to {"sha256", "bytes"}.
        training: training data, its licence, options; for people.
        scores: what was measured on held-out pictures; for people.
        agreement: how closely each file agrees with the Keras model; for people.
        versions: library versions at export.
    """

    name: str
    height: int
    width: int
    channels: int
    classes: tuple[ClassSpec, ...]
    dtype: str = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)
    label_map: dict[str, int] = field(default_factory=dict)
    ignore_label: IgnoreLabel | None = None
    usage: Usage = field(default_factory=Usage)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def input(self) -> InputSpec:
        """The model's input."""
        return InputSpec(self.height, self.width, self.channels, self.dtype, self.value_range)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def class_names(self) -> list[str]:
        """The classes' names by id."""
        return [spec.name for spec in self.classes]

    def labels(self) -> LabelMap:
        """The label map of the metadata, identity if it has none."""
        return LabelMap.from_metadata(self.label_map) if self.label_map else LabelMap.identity(self.num_classes)

    def input_document(self) -> dict[str, Any]:
        """The section `input` of `metadata.json`."""
        return {
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "dtype": self.dtype,
            "range": list(self.value_range),
        }

    def to_json(self) -> str:
        """The text of `metadata.json`; `from_json` reads it back to an equal spec."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "input": self.input_document(),
            "usage": self.usage.to_document(),
            "classes": [{"class_id": c.class_id, "name": c.name, "color": c.color} for c in self.classes],
            "label_map": self.label_map,
            "ignore_label": self.ignore_label,
            "training": self.training,
            "scores": self.scores,
            "agreement": self.agreement,
            "files": self.files,
            "versions": self.versions,
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "ModelSpec":
        """Reads and checks `metadata.json`.

        Args:
            text: the file's content.

        Returns:
            The spec.

        Raises:
            ModelError: the text is not JSON, has another schema version, or is incomplete or inconsistent.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise ModelError(f"{METADATA_FILE} is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ModelError(f"{METADATA_FILE} is not a JSON object")
        version = document.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ModelError(f"{METADATA_FILE} has schema_version {version!r}; this maskbeam reads {SCHEMA_VERSION}")
        try:
            return _spec_from_document(document)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ModelError(f"{METADATA_FILE}: {what}") from error
        except OptionError as error:
            raise ModelError(f"{METADATA_FILE}: {error}") from error


def _spec_from_document(document: dict[str, Any]) -> ModelSpec:
    taken = document["input"]
    if not isinstance(taken, dict):
        raise ValueError("input is not an object")
    value_range = taken.get("range", [0, 255])
    if not isinstance(value_range, list) or len(value_range) != 2:
        raise ValueError("input.range is not a pair of numbers")
    classes = _classes(document["classes"])
    ignore_label = document.get("ignore_label")
    spec = ModelSpec(
        name=str(document.get("name") or "model"),
        height=_positive(taken["height"], "input.height"),
        width=_positive(taken["width"], "input.width"),
        channels=_positive(taken["channels"], "input.channels"),
        dtype=str(taken.get("dtype", "uint8")),
        value_range=(float(value_range[0]), float(value_range[1])),
        classes=classes,
        label_map={
            str(raw): _whole(class_id, f"label_map.{raw}")
            for raw, class_id in (document.get("label_map") or {}).items()
        },
        ignore_label=None if ignore_label is None else _ignore_label(ignore_label),
        usage=Usage.from_document(document.get("usage")),
        files=dict(document.get("files") or {}),
        training=dict(document.get("training") or {}),
        scores=dict(document.get("scores") or {}),
        agreement=dict(document.get("agreement") or {}),
        versions=dict(document.get("versions") or {}),
    )
    if spec.dtype not in _DTYPES:
        raise ValueError(f"input.dtype is {spec.dtype!r}, not one of {', '.join(_DTYPES)}")
    if spec.channels not in (1, 3):
        raise ValueError(f"input.channels is {spec.channels}; 1 and 3 are supported")
    spec.labels().check(spec.num_classes, spec.ignore_label)
    return spec


def _classes(entries: list[dict[str, Any]]) -> tuple[ClassSpec, ...]:
    if not entries:
        raise ValueError("classes is empty")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("classes is not a list of objects")
    if len(entries) > MAX_CLASSES:
        raise ValueError(f"{len(entries)} classes are more than {MAX_CLASSES}")
    colors = default_colors(len(entries))
    classes = tuple(
        ClassSpec(int(entry.get("class_id", index)), str(entry["name"]), str(entry.get("color") or colors[index]))
        for index, entry in enumerate(entries)
    )
    if [spec.class_id for spec in classes] != list(range(len(classes))):
        raise ValueError("class ids must be 0, 1, 2 … in this order")
    if len({spec.name for spec in classes}) != len(classes):
        raise ValueError("two classes have the same name")
    for spec in classes:
        rgb_from_hex(spec.color)
    return classes


def _positive(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, not a positive whole number")
    return value


def _whole(value: object, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} is {value!r}, not a whole number from 0")
    return value


def _ignore_label(value: object) -> IgnoreLabel:
    try:
        return checked_ignore_label(value)
    except OptionError as error:
        raise ValueError(f"ignore_label: {error}") from error


def class_slugs(names: list[str]) -> list[str]:
    """Column-name parts for classes: lower case, digits and `_`, unique, never empty.

    Args:
        names: the classes' names by id.

    Returns:
        A slug for each class, by id; equal slugs get the class id appended.
    """
    slugs: list[str] = []
    for class_id, name in enumerate(names):
        slug = re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_") or f"class_{class_id}"
        while slug in slugs:
            slug = f"{slug}_{class_id}"
        slugs.append(slug)
    return slugs
