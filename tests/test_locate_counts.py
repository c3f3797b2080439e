"""What is counted while pictures are located: each picture once, its failure once, and nothing of the masks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from records_of import record_of

from pipeline.core.records import Failure, FileRef, Located
from pipeline.output.outputs import Destination
from pipeline.output.resume import ResumePlan
from pipeline.progress.counts import Count, ProgressCounts, ProgressReporter, displayed
from pipeline.sources.ignored import Ignored
from pipeline.sources.source import Listed
from pipeline.transforms import locate_pictures
from pipeline.transforms.locate_pictures import _PICTURE, _TRUTH

Counts = dict[Count, int]


@dataclass(frozen=True)
class _Source:
    """A source of given items."""

    listed: Sequence[Listed | Failure | Ignored]
    uri: str = "/in"

    def items(self) -> Iterator[Listed | Failure | Ignored]:
        return iter(self.listed)


@pytest.fixture
def counts() -> Iterator[ProgressCounts]:
    counts = ProgressCounts("t")
    with displayed("t", counts):
        yield counts


def _of(counts: ProgressCounts) -> Counts:
    return {count: counts.total(count) for count in Count if counts.total(count)}


def _listed(name: str) -> Listed:
    return Listed(name, FileRef(f"/in/{name}"))


def _failure(image_id: str, stage: str) -> Failure:
    return Failure(image_id, f"/in/{image_id}", stage, "Broken", "it is broken", "")


ITEMS = (
    _listed("a.png"),
    _listed("b.png"),
    _failure("c.png", "locate"),
    _failure("d.png", "truth"),
    Ignored(((".txt", 3), ("", 1))),
)


def _tagged(role: int) -> tuple[list[str], list[Any]]:
    """The keys of the candidates of `ITEMS`, and what is tagged."""
    found = list(locate_pictures._candidates((role, _Source(ITEMS)), ProgressReporter(9, "t"), Destination("/out", ())))  # type: ignore[arg-type]
    tagged = [(one.tag, one.value) for one in found if not isinstance(one, tuple)]
    return [one[0] for one in found if isinstance(one, tuple)], tagged


def test_a_source_of_pictures_counts_its_pictures_and_what_is_ignored(counts: ProgressCounts) -> None:
    keys, tagged = _tagged(_PICTURE)
    assert keys == ["a", "b"]
    # The mask of a record that failed is no failed picture: its picture is a candidate.
    assert _of(counts) == {Count.LOCATED: 3, Count.FAILED: 1}
    assert tagged == [("failures", ITEMS[2]), ("failures", ITEMS[3]), ("ignored", (".txt", 3)), ("ignored", ("", 1))]


def test_a_source_of_masks_counts_nothing(counts: ProgressCounts) -> None:
    keys, tagged = _tagged(_TRUTH)
    assert keys == ["a", "b"]
    assert _of(counts) == {}
    assert tagged == [("failures", ITEMS[2]), ("failures", ITEMS[3])]


class _Planner:
    """A planner whose plan is given; keeps the pictures that it was asked about."""

    def __init__(self, plan: ResumePlan) -> None:
        self.destination = Destination("/out", ())
        self._plan = plan
        self.asked: list[Located] = []

    def plan(self, located: Sequence[Located], *_: object) -> ResumePlan:
        self.asked += located
        return self._plan


def test_pictures_of_earlier_runs_and_failures_of_the_join_are_counted(counts: ProgressCounts) -> None:
    plan = ResumePlan(
        todo=[Located("a.png", FileRef("/in/a.png"))],
        records=[record_of("b.png", [[1]]), record_of("c.png", [[1]])],
        failures=[_failure("d.png", "decode")],
    )
    planner = _Planner(plan)
    join = locate_pictures._PairDoFn(ProgressReporter(9, "t"), planner, None)  # type: ignore[arg-type]
    # The second picture of an id is a failure.
    pictures = [_listed("a.png"), _listed("e.png"), _listed("e.png")]
    candidates = [locate_pictures._pack_candidate(_PICTURE, one) for one in pictures]
    found = list(join.process(("key", candidates), {}))
    assert [one.image_id for one in planner.asked] == ["a.png", "e.png"]
    assert found[0] == plan.todo[0]
    tagged = [(one.tag, getattr(one.value, "image_id", one.value)) for one in found[1:]]
    assert tagged == [
        ("located", 2),
        ("records", "b.png"),
        ("records", "c.png"),
        ("failures", "e.png"),
        ("failures", "d.png"),
    ]
    assert _of(counts) == {Count.RESUMED: 2, Count.FAILED: 2}
