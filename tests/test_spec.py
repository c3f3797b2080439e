"""`metadata.json`: what is read back, and the one line that says what is wrong."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.core.errors import ModelError
from pipeline.core.labels import LabelMap
from pipeline.core.spec import ClassSpec, ModelSpec, class_slugs
from pipeline.core.usage import Usage

SPEC = ModelSpec(
    name="pets",
    height=128,
    width=96,
    channels=3,
    classes=(ClassSpec(0, "pet", "#ff0000"), ClassSpec(1, "Hintergrund ü", "#00ff00")),
    dtype="float32",
    value_range=(-1.0, 1.0),
    label_map={"1": 0, "2": 1, "3": 255, "#ff0000": 1},
    ignore_label=255,
    usage=Usage("tile", 0.375),
    files={"model.tflite": {"sha256": "ab", "bytes": 12}},
    training={"licence": "CC BY-SA 4.0", "pictures": 7},
    scores={"global_mean_iou": 0.5},
    agreement={"model.tflite": {"equal_pixels": 1.0}},
    versions={"keras": "3"},
)
MINIMAL: dict[str, Any] = {
    "schema_version": 1,
    "input": {"height": 4, "width": 5, "channels": 1},
    "classes": [{"name": "a"}, {"name": "b"}],
}


def test_round_trip() -> None:
    assert ModelSpec.from_json(SPEC.to_json()) == SPEC
    assert SPEC.num_classes == 2
    assert SPEC.class_names == ["pet", "Hintergrund ü"]
    assert SPEC.labels() == LabelMap({1: 0, 2: 1, 3: 255}, {0xFF0000: 1})
    text = SPEC.to_json()
    document = json.loads(text)
    assert text == json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    assert document["classes"] == [
        {"class_id": 0, "name": "pet", "color": "#ff0000"},
        {"class_id": 1, "name": "Hintergrund ü", "color": "#00ff00"},
    ]


def test_as_many_classes_as_sixteen_bits_number() -> None:
    document = {**MINIMAL, "classes": [{"name": str(i), "color": "#000000"} for i in range(65_535)]}
    assert ModelSpec.from_json(json.dumps(document)).num_classes == 65_535


def test_a_minimal_document_gets_defaults() -> None:
    spec = ModelSpec.from_json(json.dumps(MINIMAL))
    assert (spec.name, spec.dtype, spec.value_range, spec.ignore_label) == ("model", "uint8", (0.0, 255.0), None)
    assert [c.class_id for c in spec.classes] == [0, 1]
    assert spec.classes[0].color != spec.classes[1].color
    assert spec.labels() == LabelMap.identity(2)
    assert spec.usage == Usage("resize", 0.0)


def test_the_usage_of_tiles_has_an_overlap() -> None:
    tile = ModelSpec.from_json(json.dumps({**MINIMAL, "usage": {"mode": "tile"}}))
    assert tile.usage == Usage("tile", 0.25)
    assert json.loads(tile.to_json())["usage"] == {"mode": "tile", "tile_overlap": 0.25, "scale": 1.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "metadata.json is not JSON: "),
        ("", "metadata.json is not JSON: "),
        ("[]", "metadata.json is not a JSON object"),
        ("{}", "metadata.json has schema_version None; this maskbeam reads 1"),
        ('{"schema_version": 2}', "metadata.json has schema_version 2; this maskbeam reads 1"),
        ('{"schema_version": 1}', "metadata.json: 'input' is missing"),
    ],
)
def test_what_is_no_metadata(text: str, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        ModelSpec.from_json(text)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def _set(*path: str | int) -> Callable[[dict[str, Any], Any], None]:
    def put(document: dict[str, Any], value: Any) -> None:
        place: Any = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return put


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("input",), [128, 128], "input is not an object"),
        (("input",), {"width": 5, "channels": 1}, "'height' is missing"),
        (("input", "height"), 0, "input.height is 0, not a positive whole number"),
        (("input", "height"), "128", "input.height is '128', not a positive whole number"),
        (("input", "width"), 1.5, "input.width is 1.5, not a positive whole number"),
        (("input", "channels"), True, "input.channels is True, not a positive whole number"),
        (("input", "channels"), 4, "input.channels is 4; 1 and 3 are supported"),
        (("input", "dtype"), "int8", "input.dtype is 'int8', not one of uint8, float32"),
        (("input", "range"), [1], "input.range is not a pair of numbers"),
        (("input", "range"), ["a", "b"], "could not convert"),
        (("classes",), [], "classes is empty"),
        (("classes",), 7, "classes is not a list of objects"),
        (("classes",), ["a", "b"], "classes is not a list of objects"),
        (("classes",), {"a": 1}, "classes is not a list of objects"),
        (("classes",), [{"name": str(i)} for i in range(65_536)], "65536 classes are more than 65535"),
        (("classes", 0), {"class_id": 0}, "'name' is missing"),
        (("classes", 1, "class_id"), 2, "class ids must be 0, 1, 2 … in this order"),
        (("classes", 1, "name"), "a", "two classes have the same name"),
        (("classes", 1, "color"), "red", "not a colour of the form #rrggbb: 'red'"),
        (("label_map",), {"1": 2}, "label map: class id 2 is not one of the model's 0 to 1"),
        (("label_map",), {"x": 0}, "label map: 'x' is neither"),
        (("label_map",), {"1": 0.5}, "label_map.1 is 0.5, not a whole number from 0"),
        (("label_map",), {"1": -1}, "label_map.1 is -1, not a whole number from 0"),
        (("usage",), "tile", "usage is not an object"),
        (("usage",), {}, "usage.mode is None, not one of resize, tile"),
        (("usage",), {"mode": "stretch"}, "usage.mode is 'stretch', not one of resize, tile"),
        (("usage",), {"mode": "tile", "tile_overlap": "half"}, "usage.tile_overlap is 'half', not a number"),
        (("usage",), {"mode": "tile", "tile_overlap": 1.5}, "--tile_overlap 1.5 is not between 0 and 0.9"),
        (("usage",), {"mode": "tile", "scale": 0.5}, "usage.scale is 0.5; tiles have the picture's own resolution"),
        (("ignore_label",), "255", "ignore_label: '255' is neither a value from"),
        (("ignore_label",), True, "ignore_label: True is neither a value from"),
        (("ignore_label",), 65_536, "ignore_label: 65536 is neither a value from"),
        (("ignore_label",), "#ff00", "ignore_label: '#ff00' is neither a value from"),
    ],
)
def test_what_contradicts_is_said_in_one_line(path: tuple[str | int, ...], value: Any, says: str) -> None:
    document = copy.deepcopy(MINIMAL)
    _set(*path)(document, value)
    with pytest.raises(ModelError) as caught:
        ModelSpec.from_json(json.dumps(document))
    assert str(caught.value).startswith(f"metadata.json: {says}")
    assert "\n" not in str(caught.value)


def test_slugs_are_column_names() -> None:
    assert class_slugs(["Pet", "back ground", "é", "pet", "PET!", ""]) == [
        "pet",
        "back_ground",
        "class_2",
        "pet_3",
        "pet_4",
        "class_5",
    ]
    names = ["x", "x_2", "X", "x 2"]
    slugs = class_slugs(names)
    assert len(set(slugs)) == len(names)
