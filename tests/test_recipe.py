"""What decides results, and that no part of it can change unnoticed."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from small_archive import TINY_MODEL, Archive

from pipeline.app.job_options import parse_options
from pipeline.app.prepared import Prepared, prepare
from pipeline.core.addresses import unsigned_address
from pipeline.core.labels import LabelMap
from pipeline.core.measures import measures
from pipeline.core.recipe import Fingerprints, Recipe, digest_of
from pipeline.core.records import FileRef, Located
from pipeline.core.spec import ClassSpec, ModelSpec
from pipeline.output.registry import requested_outputs

METADATA = json.loads((TINY_MODEL / "metadata.json").read_text())
EVERYTHING = {"mask_format": "png", "overlays": 3, "probabilities": True}


def recipe_of(metadata: dict[str, Any]) -> Recipe:
    spec = ModelSpec.from_json(json.dumps(metadata))
    return Recipe(spec, "digest", spec.labels(), spec.ignore_label, 10_000)


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
def test_every_field_of_the_recipe_changes_a_fingerprint(name: str) -> None:
    recipe = recipe_of(METADATA)
    changed = replace(recipe, **{name: RECIPE_CHANGES[name](recipe)})
    before, after = Fingerprints(recipe), Fingerprints(changed)
    kinds = ("of_image", "of_measures", "of_failure")
    differ = {kind for kind in kinds if getattr(before, kind)(PICTURE) != getattr(after, kind)(PICTURE)}
    expected = {"label_map": {"of_measures"}, "ignore_label": {"of_measures"}, "max_pixels": {"of_failure"}}
    if name == "preprocessing":
        assert differ == set(kinds)
    else:
        assert differ == expected.get(name, {"of_image", "of_failure"})


PICTURE = Located("a.png", FileRef("/in/a.png", 10, "v1"), FileRef("/in/t.png", 5, "v1"))


@pytest.mark.parametrize(
    ("changed", "differ"),
    [
        (replace(PICTURE, group="north"), set()),
        (replace(PICTURE, overlay=True), set()),
        (replace(PICTURE, truth=None), {"of_measures"}),
        (replace(PICTURE, truth=FileRef("/in/t.png", 5, "later")), {"of_measures"}),
        (replace(PICTURE, image=replace(PICTURE.image, version="later")), {"of_image", "of_failure"}),
        (replace(PICTURE, image=replace(PICTURE.image, size_bytes=1)), {"of_image", "of_failure"}),
        (replace(PICTURE, image=replace(PICTURE.image, offset_bytes=512)), {"of_image", "of_failure"}),
        (replace(PICTURE, image=replace(PICTURE.image, member="a")), {"of_image", "of_failure"}),
        (replace(PICTURE, image=replace(PICTURE.image, uri="/other/a.png")), {"of_image", "of_failure"}),
    ],
)
def test_the_fingerprints_see_every_change_of_a_picture(changed: Located, differ: set[str]) -> None:
    prints = Fingerprints(recipe_of(METADATA))
    kinds = ("of_image", "of_measures", "of_failure")
    assert {kind for kind in kinds if getattr(prints, kind)(changed) != getattr(prints, kind)(PICTURE)} == differ


def test_a_fingerprint_tells_the_file_from_the_recipe() -> None:
    recipe = recipe_of(METADATA)
    prints, others = Fingerprints(recipe), Fingerprints(replace(recipe, backend="tensorflow"))
    changed = replace(PICTURE, image=replace(PICTURE.image, version="later"))
    assert others.is_of_other_recipe(prints.of_image(PICTURE), PICTURE)
    assert not prints.is_of_other_recipe(prints.of_image(PICTURE), PICTURE)
    assert not others.is_of_other_recipe(prints.of_image(changed), PICTURE)


def test_digests_are_the_same_everywhere() -> None:
    # A change of these values makes every output be computed again.
    assert digest_of("a", 1, None, ("b", 0.5)) == "d5ac0d3848ed17cf"
    assert digest_of("b\udcff.png") == "f2164132da402a0d"  # a name that is not UTF-8
    assert len(Fingerprints(recipe_of(METADATA)).of_image(PICTURE)) == 32


def test_one_class_more_is_another_inference() -> None:
    recipe = recipe_of(METADATA)
    more = (*recipe.spec.classes, ClassSpec(3, "more", "#123456"))
    assert replace(recipe, spec=replace(recipe.spec, classes=more)).inference_digest() != recipe.inference_digest()


def test_the_label_map_changes_nothing_without_ground_truth() -> None:
    recipe, alone = recipe_of(METADATA), replace(PICTURE, truth=None)
    assert Fingerprints(recipe).of_measures(alone) == Fingerprints(replace(recipe, ignore_label=1)).of_measures(alone)


def test_a_new_measure_changes_the_fingerprint_of_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(METADATA)
    before = Fingerprints(recipe).of_measures(PICTURE)
    monkeypatch.setattr(measures, "MEASURES", measures.MEASURES[:1])
    assert Fingerprints(recipe).of_measures(PICTURE) != before


def test_options_reach_the_recipe_and_the_outputs(archive: Archive, tmp_path: Path) -> None:
    def prepared(*arguments: str) -> Prepared:
        options = ["--input", str(archive.images), "--output", str(tmp_path / "out"), "--model", str(TINY_MODEL)]
        return prepare(parse_options([*options, *arguments]))

    plain = prepared()
    assert [output.name for output in plain.destination.outputs] == ["mask"]
    same = prepared("--batch_size", "7", "--threads", "2", "--max_failure_ratio", "0.5", "--backend", "litert")
    assert (same.recipe, same.destination.root) == (plain.recipe, plain.destination.root)
    assert prepared("--label_map", "0=0,1=1,2=0").recipe.label_map == LabelMap.parse("0=0,1=1,2=0")
    assert prepared("--ignore_label", "2").recipe.ignore_label == 2
    assert prepared("--max_pixels", "1000").recipe.max_pixels == 1000
    other = prepared("--backend", "tensorflow").recipe
    assert (other.backend, other.model_digest != plain.recipe.model_digest) == ("tensorflow", True)
    assert prepared("--mask_format", "tar").destination.packs_masks
    everything = prepared("--mask_format", "none", "--probabilities", "--overlays", "2").destination
    assert [output.name for output in everything.outputs] == ["probabilities", "overlay"]


V4 = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k%2F1&X-Amz-Date=20261124T000000Z&X-Amz-Expires=60"


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        (f"{V4}&X-Amz-SignedHeaders=host&X-Amz-Signature=51", ""),
        (f"versionId=7&{V4}&X-Amz-Security-Token=t&X-Amz-Signature=51&x=1", "?versionId=7&x=1"),
        ("X-Goog-Algorithm=G&X-Goog-Expires=60&x-goog-signature=51#part", "#part"),
        ("AWSAccessKeyId=k&Expires=1&Signature=s&id=3", "?id=3"),
        ("GoogleAccessId=k&Expires=1&Signature=s", ""),
        ("Policy=p&Signature=s&Key-Pair-Id=k&size=2", "?size=2"),
        ("sv=2024-11-04&se=2026-11-25T00%3A00Z&sr=b&sp=r&sig=s%3D&snapshot=2", "?snapshot=2"),
        ("id=3&sig=s", "?id=3&sig=s"),
        ("Signature=s&Expires=1", "?Signature=s&Expires=1"),
        (V4, f"?{V4}"),
        ("", "?"),
    ],
)
def test_a_signature_is_no_part_of_an_address(query: str, kept: str) -> None:
    assert unsigned_address(f"https://host/a.png?{query}") == f"https://host/a.png{kept}"
    for other in (f"gs://bucket/a.png?{query}", f"/in/a.png?{query}"):
        assert unsigned_address(other) == other


def test_a_new_signature_changes_no_fingerprint_and_another_content_does() -> None:
    fingerprints = Fingerprints(recipe_of(METADATA))

    def of(signature: int, name: str = "a.png", version: str = '"1"') -> tuple[str, str]:
        file = FileRef(f"https://host/{name}?X-Amz-Date={signature}&X-Amz-Signature={signature}", 10, version)
        picture = Located("a.png", file, file)
        return fingerprints.of_image(picture), fingerprints.of_measures(picture)

    assert of(1) == of(2)
    for other in (of(1, version='"2"'), of(1, name="b.png")):
        assert all(left != right for left, right in zip(of(1), other, strict=True))
