"""The order of a job's steps, which is that of its graph: a local runner may keep an order that no edge asks for."""

from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from small_archive import TINY_MODEL, Archive

from pipeline.app.graph import Job, build
from pipeline.app.job_options import parse_options
from pipeline.app.prepared import prepare
from pipeline.output.results import ResultsWriter, RunInfo
from pipeline.progress.counts import SILENT
from pipeline.transforms.segment_images import EngineSettings

Steps = dict[str, set[str]]


class _Edges(PipelineVisitor):  # type: ignore[misc]
    """The steps that each step waits for, directly."""

    def __init__(self) -> None:
        self.before: Steps = {}

    def visit_transform(self, transform_node: AppliedPTransform) -> None:
        given = [*transform_node.inputs, *(side.pvalue for side in transform_node.side_inputs)]
        names = {one.producer.full_label for one in given if one.producer is not None}
        self.before[transform_node.full_label] = names


@pytest.fixture(scope="module")
def before(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """All steps of a job with every output, each with the steps that it waits for."""
    output = tmp_path_factory.mktemp("graph") / "out"
    options = ["--input", str(archive.images), "--ground_truth", str(archive.masks), "--model", str(TINY_MODEL)]
    prepared = prepare(parse_options([*options, "--output", str(output), "--overlays", "3", "--mask_format", "tar"]))
    model = prepared.model
    writer = ResultsWriter(prepared.destination, model.spec, "m", model.digest, RunInfo(0.0, {}, {}, 0.0))
    job = Job(
        prepared.pictures,
        prepared.truths,
        prepared.recipe,
        prepared.destination,
        EngineSettings(model, 1, 1),
        writer,
        existing="resume",
        retry_failed=False,
        prune=False,
        progress=SILENT,
        overlays=3,
    )
    root = beam.Pipeline()
    build(root, job)
    edges = _Edges()
    root.visit(edges)
    closed: Steps = {}

    def all_before(name: str) -> set[str]:
        if name not in closed:
            closed[name] = set()
            for one in edges.before[name]:
                closed[name] |= {one} | all_before(one)
        return closed[name]

    return {name: all_before(name) for name in edges.before}


def _within(before: Steps, step: str) -> Iterator[str]:
    """The steps of a composite one."""
    found = [name for name in before if name == step or name.startswith(f"{step}/")]
    assert found, f"{step}: {sorted(before)}"
    return iter(found)


@pytest.mark.parametrize(
    "step", ["AwaitToDo", "AwaitUpdates", "AwaitTables", "WriteTables", "RepackMasks/Repack", "Summarise"]
)
def test_nothing_is_written_before_the_removal_is_approved(before: Steps, step: str) -> None:
    approval = next(name for name in before if name.endswith("Approve/Approve"))
    last = max(_within(before, step), key=lambda name: len(before[name]))
    assert approval in before[last]


@pytest.mark.parametrize(
    ("step", "awaited"), [("Segment", "AwaitToDo"), ("Update", "AwaitUpdates"), ("Segment", "Update")]
)
def test_pictures_come_from_the_steps_that_await_the_approval(before: Steps, step: str, awaited: str) -> None:
    last = max(_within(before, step), key=lambda name: len(before[name]))
    assert before[last] & set(_within(before, awaited))


@pytest.mark.parametrize(
    ("step", "first"),
    [
        ("DeleteStale/Delete", "WriteTables"),
        ("DeleteOtherParts/DeleteParts", "WriteTables"),
        ("Summarise", "WriteTables"),
        ("Summarise", "WriteFailures"),
        ("Summarise", "DeleteStale"),
        ("Summarise", "DeleteOtherParts"),
        ("WriteTables", "Segment"),
        ("Segment", "BeginRun"),
    ],
)
def test_steps_wait_for_what_must_be_written_before(before: Steps, step: str, first: str) -> None:
    last = max(_within(before, step), key=lambda name: len(before[name]))
    writing = max(_within(before, first), key=lambda name: len(before[name]))
    assert writing in before[last]
