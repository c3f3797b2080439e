"""Brings pictures of earlier runs up to date: the DoFn that runs the updater."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.utils.shared import Shared

from pipeline.core.process import prepare_process
from pipeline.core.recipe import Recipe
from pipeline.core.records import Located, PictureRecord, Update
from pipeline.engines.load import usable_cores
from pipeline.output.journal import Journal
from pipeline.output.outputs import Destination
from pipeline.progress.counts import Count, ProgressReporter
from pipeline.segmenting.byte_budget import ByteBudget
from pipeline.segmenting.memory import usable_memory_bytes
from pipeline.segmenting.stage_clock import Seconds
from pipeline.segmenting.updater import Updater
from pipeline.transforms import coders  # noqa: F401  (registers the records' coders)
from pipeline.transforms.global_window import in_global_window
from pipeline.transforms.threads_do_fn import ThreadsDoFn
from pipeline.transforms.while_used import WhileUsed

_Done = Future[tuple[PictureRecord | Located, Seconds]]
# Threads wait for storage while others compute.
_THREADS_PER_CORE = 4


class UpdateOutputs(NamedTuple):
    """The outputs of `UpdatePictures`.

    Args:
        records: `PictureRecord`, of the pictures that are up to date.
        todo: `Located`, pictures that have to be segmented after all.
        seconds: (stage, seconds) pairs, to be summed.
    """

    records: PCollection[PictureRecord]
    todo: PCollection[Located]
    seconds: PCollection[tuple[str, float]]


class _UpdateState:
    """Shared by all bundles of a process."""

    def __init__(self, recipe: Recipe, destination: Destination, processes: int) -> None:
        prepare_process()
        cores = max(1, usable_cores() // processes)
        decoding = ByteBudget(usable_memory_bytes() // 4 // processes)
        self._updater = Updater(recipe, destination, decoding=decoding)
        self.threads = WhileUsed(
            lambda: ThreadPoolExecutor(_THREADS_PER_CORE * cores, "maskbeam-updater"), ThreadPoolExecutor.shutdown
        )
        self.max_in_flight = 2 * _THREADS_PER_CORE * cores
        self.journal = Journal(destination.root, destination.holder, self._updater.delivery)

    def update(self, update: Update) -> tuple[PictureRecord | Located, Seconds]:
        """Brings one picture up to date and records it."""
        outcome, seconds = self._updater.update(update)
        if isinstance(outcome, PictureRecord):
            self.journal.add([outcome])
        return outcome, seconds


class _UpdateDoFn(ThreadsDoFn[_UpdateState]):
    def __init__(
        self, recipe: Recipe, destination: Destination, processes: int, progress: ProgressReporter, shared: Shared
    ) -> None:
        super().__init__(partial(_UpdateState, recipe, destination, processes), progress, shared)

    def start_bundle(self) -> None:
        super().start_bundle()
        self._in_flight: list[_Done] = []

    def process(self, update: Update) -> Iterator[Any]:
        self._in_flight.append(self.threads.submit(self.state.update, update))
        while len(self._in_flight) >= self.state.max_in_flight:
            yield self._output(self._in_flight.pop(0))

    def finish_bundle(self) -> Iterator[Any]:
        for done in self._in_flight:
            yield in_global_window(self._output(done))
        yield from self.end_bundle()

    def _output(self, done: _Done) -> Any:
        outcome, seconds = done.result()
        self.add_seconds(seconds)
        if isinstance(outcome, Located):
            return TaggedOutput("todo", outcome)
        self.counts.add(Count.RESUMED)
        return outcome


class UpdatePictures(beam.PTransform[Any, Any]):
    """Makes missing outputs and values of pictures whose inference of an earlier run is still valid.

    Args:
        recipe: what determines the results.
        destination: where and what to write.
        processes: worker processes that share a machine.
        progress: where to report updated pictures.
    """

    def __init__(self, recipe: Recipe, destination: Destination, processes: int, progress: ProgressReporter) -> None:
        super().__init__()
        self._recipe = recipe
        self._destination = destination
        self._processes = processes
        self._progress = progress

    def expand(self, updates: PCollection[Update]) -> UpdateOutputs:
        update = beam.ParDo(
            _UpdateDoFn(self._recipe, self._destination, self._processes, self._progress, Shared())
        ).with_output_types(PictureRecord, todo=Located, seconds=tuple[str, float])
        outputs = updates | "Update" >> update.with_outputs("todo", "seconds", main="records")
        return UpdateOutputs(outputs.records, outputs.todo, outputs.seconds)


def inferred_again(picture: Located) -> Iterator[int]:
    """1 for a picture that is inferred again although files of an earlier run are kept."""
    if picture.kept_files:
        yield 1
