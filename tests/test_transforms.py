"""The transforms on Beam's local runner: each wires what the stages do, and loses nothing on the way."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.shared import Shared
from records_of import classes_of, random_records, record_of
from small_archive import Archive, run_job

from pipeline.core.labels import LabelMap
from pipeline.core.measures.confusion import CONFUSION
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, FileRef, Located, PictureRecord
from pipeline.core.spec import ModelSpec
from pipeline.core.totals import Totals
from pipeline.engines.litert import LiteRTEngine
from pipeline.engines.model_folder import open_model
from pipeline.output.failure_blocks import unpack_failures
from pipeline.output.mask_output import MaskOutput
from pipeline.output.outputs import Destination
from pipeline.output.removal import MaskCounts
from pipeline.output.results import ResultsWriter, RunInfo, WrittenFailures
from pipeline.output.resume import ResumePlanner
from pipeline.progress.counts import SILENT
from pipeline.segmenting.segmenter import Segmenter
from pipeline.sources.source import Source
from pipeline.sources.sources import parse_sources, parse_truths
from pipeline.storage import filesystem
from pipeline.transforms import pack_failures as packing
from pipeline.transforms import segment_images, update_pictures
from pipeline.transforms.begin_run import BeginRun, ReadEarlierRun
from pipeline.transforms.locate_pictures import LocatePictures, Locations
from pipeline.transforms.pack_failures import PackFailures
from pipeline.transforms.picture_counts import NAMESPACE
from pipeline.transforms.segment_images import EngineSettings, SegmentImages
from pipeline.transforms.sum_totals import SumTotalsFn
from pipeline.transforms.write_results import WriteFailures, WriteSummary, WriteTables


def local_pipeline() -> beam.Pipeline:
    # Never the one that Beam chooses: it would try to download another runner.
    return beam.Pipeline(runner=FnApiRunner())


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def satisfies(check: Callable[[list[Any]], bool]) -> Callable[[Iterable[Any]], None]:
    """A matcher for `assert_that` that holds all elements against a condition."""

    def match(actual: Iterable[Any]) -> None:
        elements = list(actual)
        assert check(elements), elements

    return match


# LocatePictures


def locate(root: beam.Pipeline, output: Path, pictures: Sequence[object], truths: Sequence[object] = ()) -> Locations:
    """Adds the locating of some sources, without any earlier run, to a pipeline."""
    groups = parse_sources([str(text) for text in pictures], "--input")
    masks = [mask for group in parse_truths([str(text) for text in truths], groups) for mask in group]
    flat: list[Source] = [source for group in groups for source in group]
    recipe = Recipe(ModelSpec("m", 8, 8, 3, tuple(classes_of(3))), "digest", LabelMap.identity(3), None, 10**6)
    destination = Destination(str(output), (MaskOutput(recipe),))
    planner = ResumePlanner(recipe, destination)
    earlier = root | BeginRun(destination, "resume") | ReadEarlierRun()
    located: Locations = root | LocatePictures(flat, masks, SILENT, earlier, planner)
    return located


def by_name(located: Located) -> tuple[str, str | None]:
    return located.image_id, located.truth and filesystem.base_name(located.truth.uri)


def test_pictures_are_joined_to_their_masks(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "a.png", "deep/b.jpg", "c.gif", "d.tif", "notes.txt", "deep/more.txt", "bad\n.png")
    touch(tmp_path / "masks", "a.png", "deep/b.png", "d.png", "d.gif", "lonely.png", "b.png")
    with local_pipeline() as root:
        locations = locate(root, tmp_path / "out", [tmp_path / "in"], [tmp_path / "masks"])
        expected = [("a.jpg", "a.png"), ("a.png", "a.png"), ("deep/b.jpg", "b.png"), ("c.gif", None), ("d.tif", None)]
        assert_that(locations.todo | beam.Map(by_name), equal_to(expected), "todo")
        assert_that(
            locations.failures
            | beam.FlatMap(lambda block: unpack_failures([block]))
            | beam.Map(lambda failure: (failure.image_id, failure.stage, failure.error_type)),
            equal_to([("d.tif", "truth", "AmbiguousTruth"), ("bad\n.png", "locate", "UnsafeName")]),
            "failures",
        )
        assert_that(locations.ignored, equal_to([(".txt", 2)]), "ignored")
        assert_that(locations.unpaired_truth, satisfies(lambda counts: sum(counts) == 2), "unpaired")
        assert_that(locations.located, satisfies(lambda counts: sum(counts) == 5), "located")
        assert_that(locations.records, equal_to([]), "records")
        assert_that(locations.stale, equal_to([]), "stale")


def test_masks_of_several_sources_are_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, "north/a.jpg", "south/a.jpg", "masks_1/a.png", "masks_2/b.png")
    with local_pipeline() as root:
        sources = [tmp_path / "north", tmp_path / "south"], [tmp_path / "masks_1", tmp_path / "masks_2"]
        locations = locate(root, tmp_path / "out", *sources)
        expected = [("north/a.jpg", "a.png"), ("south/a.jpg", None)]
        assert_that(locations.todo | beam.Map(by_name), equal_to(expected), "todo")
        assert_that(locations.unpaired_truth, satisfies(lambda counts: sum(counts) == 1), "unpaired")


def test_only_locations_of_pictures_cross_the_shuffle(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg")
    stored = filesystem.stat_file(str(tmp_path / "in" / "a.jpg"))
    with local_pipeline() as root:
        expected = Located("a.jpg", FileRef(stored.uri, stored.size_bytes, stored.version))
        assert_that(locate(root, tmp_path / "out", [tmp_path / "in"]).todo, equal_to([expected]))


# SegmentImages


@pytest.fixture
def recipe(tiny_model: Path) -> Recipe:
    model = open_model(str(tiny_model))
    return Recipe(model.spec, model.digest, LabelMap.identity(3), ignore_label=None, max_pixels=1_000_000)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_segmenting_gives_what_the_segmenter_gives(
    archive: Archive, recipe: Recipe, tiny_model: Path, tmp_path: Path, batch_size: int
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    located = [
        Located(i, FileRef(str(archive.images / i)), FileRef(str(archive.mask_path(i)))) for i in archive.image_ids
    ]
    located.append(Located("broken.png", FileRef(str(tmp_path / "broken.png"))))
    model = open_model(str(tiny_model))
    destination = Destination(str(tmp_path / "out"), (MaskOutput(recipe),))
    expected, _ = Segmenter(recipe, destination, LiteRTEngine(model.read(), 1)).segment(located)
    with local_pipeline() as root:
        segmented = (
            root
            | beam.Create(located).with_output_types(Located)
            | SegmentImages(EngineSettings(model, 2, batch_size), recipe, destination, SILENT)
        )
        assert_that(segmented.records, equal_to([o for o in expected if isinstance(o, PictureRecord)]), "records")
        assert_that(segmented.failures, equal_to([o for o in expected if isinstance(o, Failure)]), "failures")
        assert_that(
            segmented.seconds | beam.Keys() | beam.Distinct(),
            equal_to(["read", "decode", "truth", "resize", "infer", "mask", "count", "encode", "write"]),
            "seconds",
        )


def pool_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("maskbeam-")]


def test_a_job_leaves_no_threads_behind(archive: Archive, tmp_path: Path) -> None:
    before = pool_threads()
    # The second run segments again, the third draws the overlays of what is there.
    for output, options in (("a", []), ("b", []), ("b", ["--overlays", 3])):
        job = run_job(tmp_path / output, "--input", archive.images, *options)
        assert job.summary["images"]["segmented"] == 20
        assert pool_threads() == before
    assert len(list((tmp_path / "b/overlays").rglob("*.png"))) == 3


def test_the_last_user_ends_the_threads_and_the_next_starts_new_ones(
    archive: Archive, recipe: Recipe, tiny_model: Path, tmp_path: Path
) -> None:
    located = [Located(i, FileRef(str(archive.images / i))) for i in archive.image_ids]
    destination = Destination(str(tmp_path / "out"), (MaskOutput(recipe),))
    engine = EngineSettings(open_model(str(tiny_model)), 2, 1)
    shared = Shared()
    first, second = (segment_images._SegmentDoFn(engine, recipe, destination, SILENT, shared) for _ in range(2))

    def bundle(do_fn: segment_images._SegmentDoFn) -> int:
        do_fn.start_bundle()
        outputs = [output for picture in located for output in do_fn.process(picture)]
        outputs += [output.value for output in do_fn.finish_bundle()]
        return sum(isinstance(output, PictureRecord) for output in outputs)

    before = pool_threads()
    first.setup()
    second.setup()
    assert bundle(first) == len(located)
    first.teardown()
    first.teardown()
    assert len(pool_threads()) > len(before)
    assert bundle(second) == len(located)
    second.teardown()
    assert pool_threads() == before
    second.setup()
    assert bundle(second) == len(located)
    second.teardown()
    assert pool_threads() == before


def test_the_threads_of_updates_end_with_their_last_user(recipe: Recipe, tmp_path: Path) -> None:
    shared, before = Shared(), pool_threads()
    destination = Destination(str(tmp_path / "out"), ())
    users = [update_pictures._UpdateDoFn(recipe, destination, 1, SILENT, shared) for _ in range(2)]
    for user in users:
        user.setup()
        user.threads.submit(time.monotonic).result()
    for user in users:
        assert len(pool_threads()) > len(before)
        user.teardown()
    assert pool_threads() == before


def test_pictures_are_counted_as_beams_metrics_too(
    archive: Archive, recipe: Recipe, tiny_model: Path, tmp_path: Path
) -> None:
    touch(tmp_path / "in", "broken.png")
    for image_id in archive.image_ids[:3]:
        target = tmp_path / "in" / image_id
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((archive.images / image_id).read_bytes())
    root = local_pipeline()
    located = locate(root, tmp_path / "out", [tmp_path / "in"])
    destination = Destination(str(tmp_path / "out"), (MaskOutput(recipe),))
    engine = EngineSettings(open_model(str(tiny_model)), 1, 1)
    _ = located.todo | SegmentImages(engine, recipe, destination, SILENT)
    result = root.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    summed: Counter[str] = Counter()
    for counter in counters:
        summed[counter.key.metric.name] += counter.result
    assert summed == {"located": 4, "segmented": 3, "failed": 1}


# SumTotalsFn


def test_totals_are_summed_the_same_however_the_runner_splits_them() -> None:
    records = random_records(7, 200, 3)
    expected = Totals.of(records, 3)
    with local_pipeline() as root:
        rows = root | beam.Create(records).with_output_types(PictureRecord)
        plain = rows | "Plain" >> beam.CombineGlobally(SumTotalsFn(3)).with_output_types(Totals)
        fanned = rows | "Fanned" >> beam.CombineGlobally(SumTotalsFn(3)).with_output_types(Totals).with_fanout(7)
        keyed = rows | beam.Map(lambda record: (len(record.image_id), record)) | beam.CombinePerKey(SumTotalsFn(3))
        merged = (
            keyed | beam.Values() | beam.CombineGlobally(lambda parts: SumTotalsFn(3).merge_accumulators(list(parts)))
        )
        for name, totals in (("plain", plain), ("fanned", fanned), ("merged", merged)):
            assert_that(totals, satisfies(lambda found: found == [expected]), name)


def test_totals_of_nothing_are_empty_totals() -> None:
    with local_pipeline() as root:
        none = root | beam.Create([]).with_output_types(PictureRecord)
        totals = none | beam.CombineGlobally(SumTotalsFn(2)).with_output_types(Totals)
        assert_that(totals, satisfies(lambda found: found == [Totals(2)]))


def test_adding_to_one_accumulator_leaves_the_others_alone() -> None:
    first, second = random_records(1, 2, 2)
    sum_totals = SumTotalsFn(2)
    left = sum_totals.add_input(sum_totals.create_accumulator(), first)
    right = sum_totals.add_input(sum_totals.create_accumulator(), second)
    merged = sum_totals.merge_accumulators([left, right])
    assert sum_totals.extract_output(merged) == Totals.of([first, second], 2)
    assert left == Totals.of([first], 2)
    assert right == Totals.of([second], 2)


# Writing


@pytest.fixture
def writer(tmp_path: Path) -> ResultsWriter:
    spec = ModelSpec("m", 8, 8, 3, tuple(classes_of(3)))
    run = RunInfo(0.0, {"input": ["in"]}, {"python": "3"}, max_failure_ratio=0.0)
    return ResultsWriter(Destination(str(tmp_path / "out"), ()), spec, "m", "digest", run)


def write_all(
    writer: ResultsWriter, records: Sequence[PictureRecord], failures: Sequence[Failure], *, grouped: bool = False
) -> None:
    with local_pipeline() as root:
        rows = root | "Rows" >> beam.Create(records).with_output_types(PictureRecord)
        faults = root | "Faults" >> beam.Create(failures).with_output_types(Failure)
        shards = rows | WriteTables(writer, root | "Located" >> beam.Create([len(records)]))
        _ = rows | WriteSummary(
            writer,
            failures=faults | PackFailures() | WriteFailures(writer),
            shards=shards,
            resumed=root | "Resumed" >> beam.Create(records[:4]).with_output_types(PictureRecord),
            updated=root | "Updated" >> beam.Create(records[:3]).with_output_types(PictureRecord),
            inferred_again=root | "InferredAgain" >> beam.Create([1, 1]),
            removed=root | "Removed" >> beam.Create([MaskCounts(9, 2, 1, 3)]),
            stale=root | "Stale" >> beam.Create([0]),
            ignored=root | "Ignored" >> beam.Create([(".txt", 2), ("", 1), (".txt", 2)]),
            unpaired_truth=root | "Unpaired" >> beam.Create([1]),
            seconds=root | "Seconds" >> beam.Create([("infer", 1.5), ("read", 0.25), ("infer", 2.0)]),
            grouped=grouped,
        )


def summary_of(writer: ResultsWriter) -> dict[str, Any]:
    return json.loads(Path(writer.output, "summary.json").read_text("utf-8"))


def test_everything_is_written_and_the_summary_comes_last(
    writer: ResultsWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write_bytes = filesystem.write_bytes

    def noting(uri: str, data: bytes, *more: Any) -> None:
        written.append(uri.removeprefix(f"{writer.output}/"))
        write_bytes(uri, data, *more)

    monkeypatch.setattr(filesystem, "write_bytes", noting)
    records = random_records(11, 30, 3)
    failures = [Failure(f"{n}", f"/{n}", "decode", "Empty", "the file is empty", "f") for n in (2, 1)]
    write_all(writer, records, failures)
    assert written[-1] == "summary.json"
    wanted = {"images/part-00000-of-00001.parquet", "failures.jsonl", "summary.csv", "report.html", "summary.json"}
    assert wanted <= set(written)
    assert max(Counter(written).values()) == 1
    summary = summary_of(writer)
    assert summary["images"] | {"with_ground_truth": 0} == {
        **{"found": 32, "segmented": 30, "failed": 2, "truth_failed": 0, "with_ground_truth": 0},
        **{"ignored": 5, "ignored_by_ending": {".txt": 4, "": 1}, "unpaired_truth": 1, "unused": {}},
        **{"trained_on": None, "validated_on": None},
    }
    assert [summary["run"][name] for name in ("resumed", "updated", "inferred_again")] == [4, 3, 2]
    assert summary["run"]["removed_masks"] == 6
    assert summary["run"]["stages"] == {"infer": 3.5, "read": 0.25}
    assert summary["run"]["failures_by_type"] == {"Empty": 2}
    assert summary["run"]["status"] == "too_many_failures"
    lines = Path(writer.output, "failures.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["image_id"] for line in lines] == ["1", "2"]
    table = pq.read_table(Path(writer.output, "images"))
    assert table["image_id"].to_pylist() == sorted(record.image_id for record in records)


def test_an_output_without_rows_has_all_files(writer: ResultsWriter) -> None:
    write_all(writer, [], [])
    assert summary_of(writer)["images"]["found"] == 0
    assert summary_of(writer)["run"]["status"] == "done"
    assert Path(writer.output, "failures.jsonl").read_bytes() == b""
    assert pq.read_table(Path(writer.output, "images")).num_rows == 0


def test_many_pictures_are_spread_over_shards(writer: ResultsWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.output import tables

    monkeypatch.setattr(tables, "PICTURES_A_SHARD", 10)
    stale = Path(writer.output, "images", "part-00000-of-00001.parquet")
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"an earlier run's")
    records = [record_of(f"p{n:02d}.png", [[n + 1, 0, 0], [0, 1, 0], [0, 0, 0]]) for n in range(35)]
    write_all(writer, records, [])
    shards = sorted(path.name for path in stale.parent.iterdir())
    assert shards == [f"part-{k:05d}-of-00004.parquet" for k in range(4)]
    found = {shard: pq.read_table(stale.parent / shard)["image_id"].to_pylist() for shard in shards}
    assert all(ids == sorted(ids) for ids in found.values())
    for k, shard in enumerate(shards):
        assert all(tables.shard_of(image_id, 4) == k for image_id in found[shard])
    assert sorted(image_id for ids in found.values() for image_id in ids) == [record.image_id for record in records]


def test_groups_are_summed_apart(writer: ResultsWriter) -> None:
    records = [
        PictureRecord(**{n: getattr(r, n) for n in r.__dataclass_fields__} | {"group": group})
        for r, group in zip(random_records(5, 12, 3), ["north", "south", ""] * 4, strict=True)
    ]
    write_all(writer, records, [], grouped=True)
    groups = summary_of(writer)["groups"]
    assert list(groups) == ["", "north", "south"]
    assert [groups[name]["images"]["segmented"] for name in groups] == [4, 4, 4]
    scored = Counter(record.group for record in records if record.value(CONFUSION) is not None)
    assert {name: groups[name]["images"]["with_ground_truth"] for name in groups} == dict(scored)
    assert len(set(scored.values())) > 1
    total = summary_of(writer)["classes"][1]["area"]["px"]
    assert sum(group["classes"][1]["area"]["px"] for group in groups.values()) == total


@pytest.mark.parametrize("a_block", [7, 4_096])
def test_the_summary_knows_all_failures_and_the_report_the_first(
    a_block: int, writer: ResultsWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "FAILURES_A_BLOCK", a_block)
    failures = [Failure(f"{n:03d}", f"/{n}", "decode", ("Empty", "Broken")[n % 2], "x") for n in range(150)]
    with local_pipeline() as root:
        faults = root | beam.Create(failures[::-1]).with_output_types(Failure)
        written = faults | PackFailures() | WriteFailures(writer)
        expected = WrittenFailures(150, tuple(failures[:100]), {"Broken": 75, "Empty": 75})
        assert_that(written, equal_to([expected]))
