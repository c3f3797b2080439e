"""What decides results, and that no part of it can change unnoticed."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from small_archive import TINY_MODEL

from pipeline.core.labels import LabelMap
from pipeline.core.recipe import Recipe, fingerprint
from pipeline.core.records import FileRef, Located
from pipeline.core.spec import ModelSpec
from pipeline.output.outputs import Destination
from pipeline.output.registry import requested_outputs

METADATA = json.loads((TINY_MODEL / "metadata.json").read_text())
EVERYTHING = {"mask_format": "png", "overlays": 3, "probabilities": True}


def recipe_of(metadata: dict[str, Any]) -> Recipe:
    spec = ModelSpec.from_json(json.dumps(metadata))
    return Recipe(spec, "digest", spec.labels(), spec.ignore_label, 10_000)


def digest(recipe: Recipe, options: dict[str, object] = EVERYTHING) -> str:
    return Destination("/out", requested_outputs(options, recipe)).digest(recipe)


def changed_metadata(*path: str | int, value: object) -> dict[str, Any]:
    """The tiny model's metadata with one other value."""
    metadata = json.loads(json.dumps(METADATA))
    place = metadata
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return metadata


INPUT_CHANGES = {"height": 64, "width": 64, "channels": 1, "dtype": "float32", "range": [-1, 1]}


def test_every_field_of_the_input_section_has_a_change_here() -> None:
    assert recipe_of(METADATA).spec.input_document().keys() == INPUT_CHANGES.keys()


@pytest.mark.parametrize("name", INPUT_CHANGES)
def test_a_changed_input_section_changes_the_inference(name: str) -> None:
    changed = recipe_of(changed_metadata("input", name, value=INPUT_CHANGES[name]))
    assert changed.inference_digest() != recipe_of(METADATA).inference_digest()


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        (("classes", 1, "color"), "#010203", {"mask", "overlay"}),
        (("classes", 1, "name"), "background", {"overlay"}),
        (("name",), "another name", set()),
        (("training",), {"images": 7}, set()),
    ],
)
def test_colours_and_names_change_what_shows_them(
    path: tuple[str | int, ...], value: object, changed: set[str]
) -> None:
    before, after = recipe_of(METADATA), recipe_of(changed_metadata(*path, value=value))
    assert before.inference_digest() == after.inference_digest()
    pairs = zip(requested_outputs(EVERYTHING, before), requested_outputs(EVERYTHING, after), strict=True)
    assert {one.name for one, other in pairs if one.digest() != other.digest()} == changed


RECIPE_CHANGES: dict[str, Callable[[Recipe], object]] = {
    "spec": lambda recipe: replace(recipe.spec, height=64),
    "model_digest": lambda recipe: "other",
    "label_map": lambda recipe: LabelMap.parse("0=0,1=1,2=2,3=0"),
    "ignore_label": lambda recipe: 255,
    "max_pixels": lambda recipe: 9_999,
    "backend": lambda recipe: "tensorflow",
    "mode": lambda recipe: "tile",
    "tile_overlap": lambda recipe: 0.25,
    "tta": lambda recipe: "flip",
    "preprocessing": lambda recipe: recipe.preprocessing + 1,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_field_of_the_recipe_changes_the_digest(name: str) -> None:
    recipe = recipe_of(METADATA)
    assert digest(replace(recipe, **{name: RECIPE_CHANGES[name](recipe)})) != digest(recipe)


@pytest.mark.parametrize("left_out", EVERYTHING)
def test_every_output_that_is_asked_for_changes_the_digest(left_out: str) -> None:
    recipe = recipe_of(METADATA)
    fewer = {name: value for name, value in EVERYTHING.items() if name != left_out}
    assert digest(recipe, fewer) != digest(recipe)


def test_the_place_of_the_output_changes_nothing() -> None:
    recipe = recipe_of(METADATA)
    outputs = requested_outputs(EVERYTHING, recipe)
    assert Destination("/here", outputs).digest(recipe) == Destination("/there", outputs).digest(recipe)


PICTURE = Located("a.png", FileRef("/in/a.png", 10, "v1"), FileRef("/in/t.png", 5, "v1"))


@pytest.mark.parametrize(
    "changed",
    [
        replace(PICTURE, group="north"),
        replace(PICTURE, overlay=True),
        replace(PICTURE, truth=None),
        replace(PICTURE, image=replace(PICTURE.image, version="later")),
        replace(PICTURE, image=replace(PICTURE.image, size_bytes=1)),
        replace(PICTURE, image=replace(PICTURE.image, offset_bytes=512)),
        replace(PICTURE, truth=FileRef("/in/t.png", 5, "later")),
    ],
)
def test_the_fingerprint_sees_every_change_of_a_picture(changed: Located) -> None:
    assert fingerprint(changed, "digest") != fingerprint(PICTURE, "digest")
    assert fingerprint(PICTURE, "other") != fingerprint(PICTURE, "digest")
