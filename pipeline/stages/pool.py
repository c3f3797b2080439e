"""Keeping every core busy with a bounded number of pictures in flight."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pipeline.core.records import Located
from pipeline.stages.segment import Outcome, Seconds

Done = tuple[list[Outcome], Seconds]


class BatchWindow:
    """One stream of pictures on its way through a shared pool of threads.

    Whole batches are the unit of work: a thread takes its batch from reading to writing, so while some threads wait for
    an interpreter the others read, decode and encode.

    Args:
        work: takes a batch to its outcomes; called from several threads.
        executor: the process's threads, shared between streams.
        batch_size: pictures a batch, at least 1.
        most_batches: batches in flight at most; a further one waits.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Located]], Done],
        executor: ThreadPoolExecutor,
        batch_size: int,
        most_batches: int,
    ) -> None:
        self._work = work
        self._executor = executor
        self._batch_size = batch_size
        self._most_batches = most_batches
        self._gathered: list[Located] = []
        self._in_flight: set[Future[Done]] = set()

    def add(self, picture: Located) -> Iterator[Done]:
        """Takes one picture in.

        Args:
            picture: where it lies.

        Yields:
            Batches that are done meanwhile; waits for one only where the window is full.
        """
        self._gathered.append(picture)
        if len(self._gathered) >= self._batch_size:
            yield from self._submit()

    def finish(self) -> Iterator[Done]:
        """Yields all that is still under way; the window is empty then."""
        if self._gathered:
            yield from self._submit()
        while self._in_flight:
            yield from self._collect()

    def _submit(self) -> Iterator[Done]:
        while len(self._in_flight) >= self._most_batches:
            yield from self._collect()
        batch, self._gathered = self._gathered, []
        self._in_flight.add(self._executor.submit(self._work, batch))

    def _collect(self) -> Iterator[Done]:
        done, self._in_flight = wait(self._in_flight, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()
