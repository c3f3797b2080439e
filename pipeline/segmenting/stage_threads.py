"""The threads that read, compute and write pictures, with a bounded number of pictures in flight."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from pipeline.core.records import Located
from pipeline.segmenting.segmenter import Outcome, PictureBatch, Segmenter
from pipeline.segmenting.stage_clock import Seconds

Done = tuple[list[Outcome], Seconds]
Step = tuple[ThreadPoolExecutor, Callable[[Any], Any]]

# A store needs about 50 to 150 ms for a file, a picture about 7 to 35 ms of a core; this many threads wait for the
# store while a core computes.
_IO_THREADS_A_CORE = 12
# Passing pictures between threads costs cache misses and a wait for Python's interpreter lock: in groups of four,
# decoding takes a sixth less time than one by one. Larger groups would leave a core idle at the end of a small job.
_PICTURES_A_HANDOVER = 4


class StageThreads:
    """The threads of a process: one per core that computes, and others that read and write files.

    Computing threads do nothing else, so that their caches and heaps stay warm.

    Args:
        segmenter: has the steps for a batch.
        cores: number of computing threads, at least 1.
        deliver: replaces the last step of the segmenter.
    """

    def __init__(self, segmenter: Segmenter, cores: int, deliver: Callable[[PictureBatch], Done] | None = None) -> None:
        io_threads = _IO_THREADS_A_CORE * cores
        self._workers = ThreadPoolExecutor(cores, "maskbeam-worker")
        # Readers may wait for room in the budget, which only writers free, so each have their own queue.
        self._readers = ThreadPoolExecutor(io_threads, "maskbeam-reader")
        self._writers = ThreadPoolExecutor(io_threads, "maskbeam-writer")
        self._max_batches = io_threads + 2 * cores
        self._steps: list[Step] = [
            (self._readers, segmenter.fetch),
            (self._workers, segmenter.compute),
            (self._writers, deliver or segmenter.deliver),
        ]

    def stream(self, batch_size: int) -> "BatchStream":
        """Opens a stream of pictures, which are passed on in multiples of a batch; streams share the threads.

        Args:
            batch_size: pictures per batch, at least 1.
        """
        batches = math.ceil(_PICTURES_A_HANDOVER / batch_size)
        return BatchStream(self._steps, batches * batch_size, self._max_batches)

    def shutdown(self) -> None:
        """Waits for all batches in flight and ends the threads."""
        for threads in (self._readers, self._workers, self._writers):
            threads.shutdown()


class BatchStream:
    """A stream of pictures through the threads of a process.

    Args:
        steps: the functions to apply to a batch in order, each with its threads; the first takes the pictures, each
            other one the result of the one before, and the last returns the outcomes.
        batch_size: pictures per batch, at least 1.
        max_batches: maximum number of batches in flight.
    """

    def __init__(self, steps: Sequence[Step], batch_size: int, max_batches: int) -> None:
        self._steps = steps
        self._batch_size = batch_size
        self._max_batches = max_batches
        self._gathered: list[Located] = []
        self._in_flight: set[Future[Done]] = set()

    def add(self, picture: Located) -> Iterator[Done]:
        """Adds one picture.

        Args:
            picture: the located picture.

        Yields:
            Batches that are finished; waits for one only if `max_batches` are in flight.
        """
        self._gathered.append(picture)
        if len(self._gathered) >= self._batch_size:
            yield from self._submit()

    def finish(self) -> Iterator[Done]:
        """Yields all batches that are still in flight."""
        if self._gathered:
            yield from self._submit()
        while self._in_flight:
            yield from self._collect()

    def _submit(self) -> Iterator[Done]:
        while len(self._in_flight) >= self._max_batches:
            yield from self._collect()
        batch, self._gathered = self._gathered, []
        done: Future[Done] = Future()
        self._in_flight.add(done)
        self._take(0, batch, done)

    def _take(self, number: int, value: Any, done: "Future[Done]") -> None:
        """Hands a batch to the threads of a step, which hand it on to the next."""
        if number == len(self._steps):
            done.set_result(value)
            return
        executor, step = self._steps[number]

        def work() -> None:
            try:
                self._take(number + 1, step(value), done)
            except BaseException as error:
                done.set_exception(error)

        executor.submit(work)

    def _collect(self) -> Iterator[Done]:
        done, self._in_flight = wait(self._in_flight, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
