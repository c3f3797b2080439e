"""What of an earlier run holds, apart from files: every change of a picture, an option or a file, alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records_of import values_of
from small_archive import TINY_MODEL

from pipeline.core.labels import LabelMap
from pipeline.core.limits import max_file_bytes
from pipeline.core.recipe import Fingerprints, Recipe
from pipeline.core.records import Failure, FileRef, Located, OutputFile, PictureRecord
from pipeline.engines.model_folder import open_model
from pipeline.output.earlier_run import FoundFile, JournalEntry
from pipeline.output.journal_format import entries, entry_line
from pipeline.output.outputs import Destination
from pipeline.output.registry import OUTPUTS, requested_outputs
from pipeline.output.removal import MaskCounts
from pipeline.output.resume import ResumePlan, ResumePlanner

MODEL = open_model(str(TINY_MODEL))
RECIPE = Recipe(MODEL.spec, MODEL.digest, LabelMap.identity(3), None, 10_000)
DIGESTS = {output.name: output(RECIPE).digest() for output in OUTPUTS}
FINGERPRINTS = Fingerprints(RECIPE)
PICTURE = Located("a.png", FileRef("/in/a.png", 10, "v1"), FileRef("/truth/a.png", 5, "t1"))
MASK_FILE = OutputFile("mask", DIGESTS["mask"], 81, 1234)
MASK = FoundFile("mask", "a.png", 81, 1000)
MASKS_ALONE = {"mask_format": "png"}
EVERYTHING = {"mask_format": "png", "overlays": 1, "probabilities": True}


def record_of(picture: Located = PICTURE, recipe: Recipe = RECIPE, **changes: Any) -> PictureRecord:
    """What a run with this recipe recorded of a picture, with a mask unless `files` says otherwise."""
    prints = Fingerprints(recipe)
    record = PictureRecord(
        image_id=picture.image_id,
        source_uri="/in/a.png",
        group="",
        width=4,
        height=3,
        source_bytes=10,
        fingerprint=prints.of_image(picture),
        values=values_of((5, 7, 0), (0, 5, 3, 7)),
        measured=prints.of_measures(picture),
        files=(MASK_FILE,),
    )
    return replace(record, **changes)


def failure_of(picture: Located = PICTURE, recipe: Recipe = RECIPE, error_type: str = "Broken") -> Failure:
    fingerprint = Fingerprints(recipe).of_failure(picture)
    return Failure(picture.image_id, "/in/a.png", "decode", error_type, "it is broken", fingerprint)


def recorded(outcome: PictureRecord | Failure, written_ns: int = 1000) -> JournalEntry:
    return JournalEntry(outcome.image_id, entry_line(outcome).rstrip("\n"), written_ns)


def plan_of(
    outcomes: Sequence[JournalEntry],
    files: Sequence[FoundFile],
    *,
    picture: Located | None = PICTURE,
    recipe: Recipe = RECIPE,
    options: dict[str, object] = MASKS_ALONE,
    retry_failed: bool = False,
    parts: dict[str, tuple[int, int]] | None = None,
) -> ResumePlan:
    destination = Destination("/out", requested_outputs(options, recipe), options["mask_format"] == "tar")
    planner = ResumePlanner(recipe, destination, retry_failed=retry_failed)
    return planner.plan([picture] if picture else [], outcomes, files, parts or {})


def kind_of(plan: ResumePlan) -> str:
    """What the plan says of its one picture."""
    kinds = {"done": plan.records, "failed": plan.failures, "update": plan.updates, "infer": plan.todo}
    ((kind, _),) = ((kind, some) for kind, some in kinds.items() if some)
    return kind


@pytest.mark.parametrize(
    ("outcomes", "files", "kind"),
    [
        ([recorded(record_of())], [MASK], "done"),
        ([recorded(record_of(), 999)], [MASK], "update"),  # younger than the journal: to be verified
        ([recorded(record_of(), 999), recorded(record_of(), 1001)], [MASK], "done"),
        ([recorded(record_of())], [replace(MASK, size_bytes=80)], "infer"),
        ([recorded(record_of())], [], "infer"),
        ([recorded(record_of(fingerprint="old"))], [MASK], "infer"),
        ([recorded(failure_of())], [], "failed"),
        ([recorded(failure_of(), 2000), recorded(record_of())], [MASK], "done"),
        ([recorded(failure_of(error_type="StoreFault"))], [], "infer"),
        ([recorded(replace(failure_of(), fingerprint="old"))], [], "infer"),
        ([], [], "infer"),
    ],
)
def test_what_is_still_valid(outcomes: list[JournalEntry], files: list[FoundFile], kind: str) -> None:
    plan = plan_of(outcomes, files)
    assert kind_of(plan) == kind
    # A picture that is done again replaces its mask, or deletes it; nothing else does so before.
    assert plan.stale == []


def test_a_failure_is_tried_again_on_demand() -> None:
    assert kind_of(plan_of([recorded(failure_of())], [], retry_failed=True)) == "infer"


def test_a_failure_depends_on_the_limit_of_pixels_and_a_record_does_not() -> None:
    larger, smaller = replace(RECIPE, max_pixels=20_000), replace(RECIPE, max_pixels=11)
    assert kind_of(plan_of([recorded(failure_of())], [], recipe=larger)) == "infer"
    assert kind_of(plan_of([recorded(record_of())], [MASK], recipe=larger)) == "done"
    # 4 × 3 px are more than 11: the picture has to be refused now.
    assert kind_of(plan_of([recorded(record_of())], [MASK], recipe=smaller)) == "infer"


def test_a_record_says_where_the_picture_is_now_and_its_group() -> None:
    (record,) = plan_of([recorded(record_of())], [MASK], picture=replace(PICTURE, group="north")).records
    assert record == record_of(group="north")


@pytest.mark.parametrize(
    ("picture", "recipe"),
    [
        (replace(PICTURE, truth=None), RECIPE),
        (replace(PICTURE, truth=FileRef("/truth/a.png", 5, "t2")), RECIPE),
        (PICTURE, replace(RECIPE, ignore_label=1)),
        (PICTURE, replace(RECIPE, label_map=LabelMap.parse("0=0,1=1,2=2,3=0"))),
    ],
)
def test_another_truth_or_label_map_only_counts_again(picture: Located, recipe: Recipe) -> None:
    plan = plan_of([recorded(record_of())], [MASK], picture=picture, recipe=recipe)
    (update,) = plan.updates
    assert (update.make, update.verify, update.measure) == ((), (), True)
    assert update.mask == MASK_FILE
    # Without a mask there is nothing to count, so the picture is inferred.
    none = plan_of([recorded(record_of(files=()))], [], picture=picture, recipe=recipe, options={"mask_format": "none"})
    assert kind_of(none) == "infer"


def test_a_label_map_changes_nothing_for_a_picture_without_truth() -> None:
    picture = replace(PICTURE, truth=None)
    other = replace(RECIPE, ignore_label=1)
    assert kind_of(plan_of([recorded(record_of(picture))], [MASK], picture=picture, recipe=other)) == "done"


@pytest.mark.parametrize("retry_failed", [False, True])
def test_a_truth_failure_is_counted_again_like_a_failure(retry_failed: bool) -> None:
    for error_type, is_retried in (("StoreFault", True), ("UnknownLabels", retry_failed)):
        record = record_of(truth_error_type=error_type)
        plan = plan_of([recorded(record)], [MASK], retry_failed=retry_failed)
        assert kind_of(plan) == ("update" if is_retried else "done")


def test_an_overlay_is_made_from_the_picture_and_its_mask() -> None:
    picture = replace(PICTURE, overlay=True)
    options: dict[str, object] = {"mask_format": "png", "overlays": 1}
    (update,) = plan_of([recorded(record_of())], [MASK], picture=picture, options=options).updates
    assert (update.make, update.measure, update.record.files) == (("overlay",), False, (MASK_FILE,))
    # The mask is the source even where none is wanted any more; the picture claims no file of it then.
    options = {"mask_format": "none", "overlays": 1}
    plan = plan_of([recorded(record_of())], [MASK], picture=picture, options=options)
    (update,) = plan.updates
    assert (update.make, update.mask, update.record.files) == (("overlay",), MASK_FILE, ())
    assert plan.stale == ["masks/a.png.png"]


def test_probabilities_need_the_engine_and_the_mask_stays() -> None:
    options: dict[str, object] = {"mask_format": "png", "probabilities": True}
    (todo,) = plan_of([recorded(record_of())], [MASK], options=options).todo
    assert todo.kept_files == (MASK_FILE,)
    # A mask in doubt is written again with the rest.
    (todo,) = plan_of([recorded(record_of(), 999)], [MASK], options=options).todo
    assert todo.kept_files == ()


def test_other_colours_are_put_into_the_mask_without_the_engine() -> None:
    spec = replace(RECIPE.spec, classes=tuple(replace(one, color="#010203") for one in RECIPE.spec.classes))
    (update,) = plan_of([recorded(record_of())], [MASK], recipe=replace(RECIPE, spec=spec)).updates
    assert (update.make, update.mask, update.record.files) == (("mask",), MASK_FILE, ())


@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, model_digest="other"),
        replace(RECIPE, backend="tensorflow"),
        replace(RECIPE, mode="tile"),
        replace(RECIPE, spec=replace(RECIPE.spec, dtype="float32", value_range=(0.0, 1.0))),
    ],
)
def test_another_model_or_mode_infers_again(recipe: Recipe) -> None:
    (todo,) = plan_of([recorded(record_of())], [MASK], recipe=recipe).todo
    assert todo.kept_files == ()


def test_without_masks_the_record_is_enough() -> None:
    for files, stale in (([], []), ([MASK], ["masks/a.png.png"])):
        plan = plan_of([recorded(record_of())], files, options={"mask_format": "none"})
        assert plan.records == [record_of(files=())]
        assert plan.stale == stale


def test_the_files_of_several_records_are_put_together() -> None:
    overlay = OutputFile("overlay", DIGESTS["overlay"], 7, 1)
    picture = replace(PICTURE, overlay=True)
    found = [MASK, FoundFile("overlay", "a.png", 7, 1500)]
    outcomes = [recorded(record_of(), 1000), recorded(record_of(files=(overlay,)), 2000)]
    plan = plan_of(outcomes, found, picture=picture, options={"mask_format": "png", "overlays": 1})
    assert plan.records == [record_of(files=(overlay, MASK_FILE))]


def test_a_mask_in_a_tar_file_is_found_where_it_is() -> None:
    packed = replace(MASK, part="masks/part-00000-of-00001-00000.tar", offset_bytes=512)
    (record,) = plan_of([recorded(record_of())], [packed]).records
    assert record.files == (replace(MASK_FILE, part=packed.part, offset_bytes=512),)


def test_files_without_a_picture_are_stale() -> None:
    other = FoundFile("mask", "a.jpg", 5, 1)
    assert plan_of([], [MASK, other]).stale == ["masks/a.jpg.png"]
    assert plan_of([recorded(record_of())], [MASK], picture=None).stale == ["masks/a.png.png"]
    assert plan_of([recorded(failure_of())], [MASK]).stale == ["masks/a.png.png"]
    assert plan_of([recorded(failure_of())], [MASK], retry_failed=True).stale == []


@pytest.mark.parametrize("overlay", [False, True])
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("outcomes", [[], [recorded(record_of())], [recorded(failure_of())]])
def test_what_is_no_longer_wanted_is_stale(overlay: bool, probabilities: bool, outcomes: list[JournalEntry]) -> None:
    picture = replace(PICTURE, overlay=overlay)
    files = [replace(MASK, output=name) for name in ("mask", "overlay", "probabilities")]
    options: dict[str, object] = {"mask_format": "png", "overlays": 9, "probabilities": probabilities}
    plan = plan_of(outcomes, files, picture=picture, options=options)
    has_failed = bool(plan.failures)
    unwanted = {"masks/a.png.png": has_failed, "overlays/a.png.png": has_failed or not overlay}
    unwanted["probabilities/a.png.png"] = has_failed or not probabilities
    assert plan.stale == [name for name, is_stale in unwanted.items() if is_stale]
    gone = plan_of(outcomes, files, picture=None, options=options)
    assert gone.stale == list(unwanted)


@pytest.mark.parametrize("order", [1, -1])
def test_the_newest_of_several_outcomes_holds(order: int) -> None:
    records = [recorded(record_of(values=values_of((n, 12 - n, 0))), 1000 * n) for n in (2, 3, 1)]
    (record,) = plan_of(records[::order], [MASK]).records
    assert record.value("area_px") == (3, 9, 0)
    failures = [recorded(replace(failure_of(), message=f"{n}"), 1000 * n) for n in (2, 3, 1)]
    assert [failure.message for failure in plan_of(failures[::order], []).failures] == ["3"]


def test_masks_that_go_are_counted_by_their_reason() -> None:
    done, failed = [recorded(record_of())], [recorded(failure_of())]
    other = replace(RECIPE, model_digest="other")
    assert plan_of(done, [MASK]).masks == MaskCounts(1)
    assert plan_of(done, []).masks == MaskCounts()
    assert plan_of(done, [MASK], picture=None).masks == MaskCounts(1, unlisted=1)
    assert plan_of(failed, [MASK]).masks == MaskCounts(1, unlisted=1)
    assert plan_of(done, [MASK], options={"mask_format": "none"}).masks == MaskCounts(1, unwanted=1)
    assert plan_of(done, [MASK], recipe=other).masks == MaskCounts(1, replaced=1)
    # A picture that changed has no mask any more; nothing of it is lost.
    changed = replace(PICTURE, image=FileRef("/in/a.png", 10, "v2"))
    assert plan_of(done, [MASK], picture=changed).masks == MaskCounts(1)
    # An output that no picture claims is no mask.
    assert plan_of([], [replace(MASK, output="overlay")], picture=None).masks == MaskCounts()


def test_a_mask_that_is_kept_is_not_replaced_though_an_older_record_is_another_models() -> None:
    then = record_of(recipe=replace(RECIPE, model_digest="other"))
    options: dict[str, object] = {"mask_format": "png", "probabilities": True}
    plan = plan_of([recorded(then, 900), recorded(record_of())], [MASK], options=options)
    assert [todo.kept_files for todo in plan.todo] == [(MASK_FILE,)]
    assert plan.masks == MaskCounts(1)


def test_a_picture_is_refused_where_it_is_larger_than_the_limit_and_not_where_it_equals_it() -> None:
    limit = max_file_bytes(RECIPE.max_pixels)
    assert kind_of(plan_of([recorded(record_of())], [MASK], recipe=replace(RECIPE, max_pixels=12))) == "done"
    assert kind_of(plan_of([recorded(record_of(source_bytes=limit))], [MASK])) == "done"
    assert kind_of(plan_of([recorded(record_of(source_bytes=limit + 1))], [MASK])) == "infer"
    for file in ("image", "truth"):
        for size, kind in ((limit, "done"), (limit + 1, "infer")):
            picture = replace(PICTURE, **{file: FileRef("/in/a.png", size, "v1")})
            assert kind_of(plan_of([recorded(record_of(picture))], [MASK], picture=picture)) == kind, (file, size)


def test_a_mask_in_doubt_is_verified_before_anything_is_made_of_it() -> None:
    in_doubt = [recorded(record_of(), 999)]
    none: dict[str, object] = {"mask_format": "none"}
    spec = replace(RECIPE.spec, classes=tuple(replace(one, color="#010203") for one in RECIPE.spec.classes))
    (recoloured,) = plan_of(in_doubt, [MASK], recipe=replace(RECIPE, spec=spec)).updates
    assert (recoloured.make, recoloured.measure, recoloured.verify) == (("mask",), False, ("mask",))
    (counted,) = plan_of(in_doubt, [MASK], recipe=replace(RECIPE, ignore_label=1), options=none).updates
    assert (counted.make, counted.measure, counted.verify) == ((), True, ("mask",))
    # Where nothing is made of it, it is not read.
    assert kind_of(plan_of(in_doubt, [MASK], options=none)) == "done"


def test_a_mask_in_doubt_without_a_checksum_is_made_again() -> None:
    outcomes = [recorded(record_of(files=(replace(MASK_FILE, crc32=-1),)), 999)]
    assert kind_of(plan_of(outcomes, [MASK])) == "infer"


TAR = f"masks/part-{'0' * 16}-00000.tar"
PACKED = replace(MASK_FILE, part=TAR, offset_bytes=512)


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ({TAR: (512 + 81, 1000)}, "done"),
        ({TAR: (9_999, 1001)}, "update"),
        ({TAR: (512 + 80, 1000)}, "infer"),
        ({TAR.replace("00000.tar", "00001.tar"): (9_999, 1000)}, "infer"),
        ({}, "infer"),
    ],
)
def test_a_packed_mask_needs_its_tar_file_as_long_as_its_end(parts: dict[str, tuple[int, int]], kind: str) -> None:
    plan = plan_of([recorded(record_of(files=(PACKED,)))], [], options={"mask_format": "tar"}, parts=parts)
    assert kind_of(plan) == kind
    assert plan.stale == []


def test_a_file_of_its_own_is_not_what_was_recorded_in_a_tar_file() -> None:
    assert kind_of(plan_of([recorded(record_of(files=(PACKED,)))], [MASK])) == "infer"


def test_only_files_of_their_own_are_stale() -> None:
    outcomes, parts = [recorded(record_of(files=(PACKED,)))], {TAR: (9_999, 1000)}
    gone = plan_of(outcomes, [], picture=None, options={"mask_format": "tar"}, parts=parts)
    assert (gone.stale, gone.masks) == ([], MaskCounts(1, unlisted=1))
    # The mask that counts is in the tar file, so the other is left over.
    kept = plan_of(outcomes, [MASK], options={"mask_format": "tar"}, parts=parts)
    assert (kind_of(kept), kept.stale) == ("done", ["masks/a.png.png"])
    # Until a separate mask is packed, it is the only one.
    single = plan_of([recorded(record_of())], [MASK], options={"mask_format": "tar"})
    assert (kind_of(single), single.stale) == ("done", [])


# What a run of version 1 left.

VERSION_1 = Path(__file__).resolve().parent / "data" / "journal_v1"
CASES = json.loads((VERSION_1 / "expected.json").read_text())
OPTIONS: dict[str, dict[str, object]] = {
    "plain": MASKS_ALONE,
    "everything": EVERYTHING,
    "no_masks": {"mask_format": "none"},
    "tar": {"mask_format": "tar"},
}


def located_then(case: dict[str, Any]) -> list[Located]:
    pictures = []
    for one in case["pictures"]:
        truth = one["truth"] and FileRef(*one["truth"])
        overlay = f"overlays/{one['image_id']}.png" in case["files"]
        pictures.append(Located(one["image_id"], FileRef(*one["image"]), truth, one["group"], overlay))
    return pictures


def found_then(case: dict[str, Any]) -> list[FoundFile]:
    found = []
    for image_id, outcome in case["recorded"].items():
        if outcome.get("mask_uri"):
            part = "" if case["name"] != "tar" else outcome["mask_uri"].partition("!")[0]
            found.append(FoundFile("mask", image_id, outcome["mask_bytes"], 1, part))
    for name in case["files"]:
        folder, _, file = name.partition("/")
        if folder != "masks":
            found.append(FoundFile(folder.removesuffix("s") if folder == "overlays" else folder, file[:-4], 1, 1))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_run_of_version_1_is_resumed(case: dict[str, Any]) -> None:
    recipe = replace(RECIPE, max_pixels=178_956_970)
    content = (VERSION_1 / f"{case['name']}.jsonl.gz").read_bytes()
    outcomes = [JournalEntry(image_id, line, 2) for image_id, line in entries(content)]
    planner = ResumePlanner(recipe, Destination("/out", requested_outputs(OPTIONS[case["name"]], recipe)))
    plan = planner.plan(located_then(case), outcomes, found_then(case))
    assert (plan.todo, plan.updates, plan.stale) == ([], [], [])
    assert [failure.image_id for failure in plan.failures] == ["broken.png"]
    assert len(plan.records) == len(case["recorded"]) - 1
    for record in plan.records:
        then = case["recorded"][record.image_id]
        assert record.value("area_px") == tuple(then["area_px"])
        assert record.fingerprint == Fingerprints(recipe).of_image(
            next(one for one in located_then(case) if one.image_id == record.image_id)
        )
    # What changed since is done again.
    changed = [replace(one, image=replace(one.image, version="later")) for one in located_then(case)]
    assert len(planner.plan(changed, outcomes, found_then(case)).todo) == len(changed)
    other = ResumePlanner(replace(recipe, ignore_label=1), planner.destination)
    assert len(other.plan(located_then(case), outcomes, found_then(case)).todo) == len(changed)


# What runs of format 2 left.

VERSION_2 = Path(__file__).resolve().parent / "data" / "journal_v2"
CASES_2 = json.loads((VERSION_2 / "expected.json").read_text())


def found_in(case: dict[str, Any]) -> list[FoundFile]:
    return [
        FoundFile(file["output"], image_id, file["size_bytes"], 1)
        for image_id, outcome in case["recorded"].items()
        for file in outcome.get("files", ())
        if not file["part"]
    ]


@pytest.mark.parametrize("case", CASES_2, ids=lambda case: case["name"])
def test_a_run_of_format_2_is_resumed(case: dict[str, Any]) -> None:
    """Where this fails, every user's pictures would be inferred again: a new field is left out at its default.

    A new measure, or a new version of the preprocessing, is made for exactly that.
    """
    recipe = replace(RECIPE, max_pixels=178_956_970)
    content = (VERSION_2 / f"{case['name']}.jsonl.gz").read_bytes()
    outcomes = [JournalEntry(image_id, line, 2) for image_id, line in entries(content)]
    options = OPTIONS[case["name"]]
    destination = Destination("/out", requested_outputs(options, recipe), packs_masks=options["mask_format"] == "tar")
    pictures = [
        Located(
            one["image_id"], FileRef(*one["image"]), one["truth"] and FileRef(*one["truth"]), overlay=one["overlay"]
        )
        for one in case["pictures"]
    ]
    parts = {name: (size_bytes, 1) for name, size_bytes in case["parts"].items()}
    plan = ResumePlanner(recipe, destination).plan(pictures, outcomes, found_in(case), parts)
    assert (plan.todo, plan.stale) == ([], [])
    assert [failure.image_id for failure in plan.failures] == ["broken.png"]
    assert all(update.measure and not update.make and not update.verify for update in plan.updates)
    held = [*plan.records, *(update.record for update in plan.updates)]
    assert len(held) == len(pictures) - 1
    for record in held:
        then = case["recorded"][record.image_id]
        assert record.value("area_px") == tuple(then["values"][0][1])
        written = sorted(file["output"] for file in then["files"])
        assert sorted(file.output for file in record.files) == written
