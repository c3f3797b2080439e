"""The budget of bytes in flight: bounded, in order, and never a deadlock."""

import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.segmenting import memory
from pipeline.segmenting.byte_budget import ByteBudget, Held
from pipeline.segmenting.memory import usable_memory_bytes


def waiting(budget: ByteBudget, size_bytes: int) -> tuple[threading.Thread, list[Held]]:
    """A thread that asks for room, and what it got, once it has."""
    got: list[Held] = []
    thread = threading.Thread(target=lambda: got.append(budget.hold(size_bytes)))
    thread.start()
    return thread, got


def test_a_request_waits_until_there_is_room() -> None:
    budget = ByteBudget(100)
    first = budget.hold(80)
    thread, got = waiting(budget, 30)
    thread.join(0.05)
    assert not got
    first.resize(70)
    thread.join(10)
    assert got


def test_a_request_larger_than_the_budget_passes_alone() -> None:
    budget = ByteBudget(100)
    small = budget.hold(1)
    thread, got = waiting(budget, 1000)
    thread.join(0.05)
    assert not got
    small.release()
    thread.join(10)
    late, behind = waiting(budget, 1)
    late.join(0.05)
    assert got
    assert not behind
    got[0].release()
    late.join(10)
    assert behind


def test_small_requests_do_not_overtake_a_large_one() -> None:
    budget = ByteBudget(100)
    first = budget.hold(60)
    large, got_large = waiting(budget, 90)
    large.join(0.05)
    small, got_small = waiting(budget, 10)
    small.join(0.05)
    assert not got_large
    assert not got_small
    first.release()
    large.join(10)
    small.join(10)
    assert got_large
    assert got_small


def test_a_try_gets_room_at_once_or_none() -> None:
    budget = ByteBudget(100)
    first = budget.try_hold(90)
    assert first is not None
    assert budget.try_hold(11) is None
    second = budget.try_hold(10)
    assert second is not None
    waits, got = waiting(budget, 50)
    while not budget._waiting:
        time.sleep(0.001)
    second.release()
    assert budget.try_hold(1) is None  # never before one that waits
    first.release()
    waits.join(10)
    assert got
    alone = ByteBudget(100).try_hold(1_000)
    assert alone is not None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 150), max_size=24), st.integers(1, 6))
def test_many_threads_stay_within_the_budget_and_all_finish(sizes: Sequence[int], threads: int) -> None:
    budget = ByteBudget(100)
    lock = threading.Lock()
    todo, inside, seen = list(sizes), [], []

    def work() -> None:
        while True:
            with lock:
                if not todo:
                    return
                size = todo.pop()
            held = budget.hold(size)
            with lock:
                inside.append(size)
                seen.append((sum(inside), len(inside)))
            with lock:
                inside.remove(size)
            held.release()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert not any(worker.is_alive() for worker in workers)
    assert len(seen) == len(sizes)
    assert all(total <= 100 or count == 1 for total, count in seen)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads the memory as Linux says it")
@pytest.mark.parametrize(
    ("version_2", "version_1", "expected"),
    [
        (None, None, None),
        ("max\n", None, None),
        ("1048576\n", None, 1 << 20),
        (None, "2097152\n", 1 << 21),
        (None, f"{2**63 - 4096}\n", None),
    ],
)
def test_a_containers_limit_counts_where_it_is_lower_than_the_machines_memory(
    version_2: str | None,
    version_1: str | None,
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paths = tmp_path / "memory.max", tmp_path / "memory.limit_in_bytes"
    for path, content in zip(paths, (version_2, version_1), strict=True):
        if content is not None:
            path.write_text(content)
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", tuple(map(str, paths)))
    total = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert usable_memory_bytes() == (expected or int(total[1]) * 1024 if total else None)
