"""The stream of batches: nothing lost, bounded, and an error comes through."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.core.records import Failure, FileRef, Located
from pipeline.segmenting.stage_threads import BatchStream, Done


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


def picture(number: int) -> Located:
    return Located(f"{number:03d}", FileRef(f"/{number}"))


def outcomes_of(pictures: Sequence[Located]) -> Done:
    return [Failure(p.image_id, p.image.uri, "read", "Missing", "gone") for p in pictures], {"read": 1.0}


def ids(done: list[Done]) -> list[list[str]]:
    return sorted([outcome.image_id for outcome in outcomes] for outcomes, _ in done)


@pytest.mark.parametrize(("count", "batch_size"), [(0, 1), (1, 1), (7, 1), (7, 3), (9, 3), (2, 8)])
def test_every_picture_comes_out_once_in_batches(executor: ThreadPoolExecutor, count: int, batch_size: int) -> None:
    stream = BatchStream([(executor, outcomes_of)], batch_size, 4)
    done = [each for number in range(count) for each in stream.add(picture(number))]
    done += stream.finish()
    assert ids(done) == [
        [f"{n:03d}" for n in range(first, min(first + batch_size, count))] for first in range(0, count, batch_size)
    ]
    assert list(stream.finish()) == []


def test_only_so_many_batches_are_in_flight(executor: ThreadPoolExecutor) -> None:
    lock = threading.Lock()
    started: list[str] = []
    collected: list[Done] = []

    def work(pictures: Sequence[Located]) -> Done:
        with lock:
            started.append(pictures[0].image_id)
        return outcomes_of(pictures)

    stream = BatchStream([(executor, work)], 1, 2)
    for number in range(20):
        collected += stream.add(picture(number))
        with lock:
            assert len(started) - len(collected) <= 2
    collected += stream.finish()
    assert len(collected) == 20


def test_it_waits_for_nothing_while_there_is_room(executor: ThreadPoolExecutor) -> None:
    release = threading.Event()

    def work(pictures: Sequence[Located]) -> Done:
        assert release.wait(10)
        return outcomes_of(pictures)

    stream = BatchStream([(executor, work)], 2, 3)
    for number in range(6):
        assert list(stream.add(picture(number))) == []
    release.set()
    assert len(list(stream.finish())) == 3


def test_an_error_of_the_work_comes_through(executor: ThreadPoolExecutor) -> None:
    def work(pictures: Sequence[Located]) -> Done:
        raise ZeroDivisionError

    stream = BatchStream([(executor, work)], 1, 4)
    assert list(stream.add(picture(1))) == []
    with pytest.raises(ZeroDivisionError):
        list(stream.finish())


def test_each_step_takes_what_the_one_before_gave_on_its_own_threads() -> None:
    seen: list[tuple[int, str]] = []

    def step(number: int) -> Callable[[Any], Any]:
        def work(value: Any) -> Any:
            seen.append((number, threading.current_thread().name.rpartition("_")[0]))
            return [*value, number] if number < 2 else (value, {"read": 0.0})

        return work

    with ThreadPoolExecutor(2, "wait") as waits, ThreadPoolExecutor(1, "compute") as computes:
        stream = BatchStream([(waits, step(0)), (computes, step(1)), (waits, step(2))], 2, 8)
        done = [each for number in range(6) for each in stream.add(picture(number))] + list(stream.finish())
    assert sorted(value[0].image_id for value, _ in done) == ["000", "002", "004"]  # type: ignore[attr-defined]
    assert all(value[2:] == [0, 1] for value, _ in done)
    assert set(seen) == {(0, "wait"), (1, "compute"), (2, "wait")}


@pytest.mark.parametrize("broken", range(3))
def test_an_error_of_any_step_comes_through_and_no_later_step_runs(executor: ThreadPoolExecutor, broken: int) -> None:
    ran: list[int] = []

    def step(number: int) -> Callable[[Any], Any]:
        def work(value: Any) -> Any:
            ran.append(number)
            if number == broken:
                raise ZeroDivisionError
            return value

        return work

    stream = BatchStream([(executor, step(number)) for number in range(3)], 1, 4)
    list(stream.add(picture(1)))
    with pytest.raises(ZeroDivisionError):
        list(stream.finish())
    assert ran == list(range(broken + 1))
