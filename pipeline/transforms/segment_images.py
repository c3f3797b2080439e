"""From located pictures to records: the DoFn that runs the segmenter."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.utils.shared import Shared

from pipeline.core.process import prepare_process
from pipeline.core.recipe import Recipe
from pipeline.core.records import Failure, Located, PictureRecord
from pipeline.engines.load import load_engine, usable_cores
from pipeline.engines.model_folder import ModelFolder
from pipeline.output.journal import Journal
from pipeline.output.outputs import Destination
from pipeline.progress.counts import Count, ProgressReporter
from pipeline.segmenting.byte_budget import ByteBudget
from pipeline.segmenting.memory import usable_memory_bytes
from pipeline.segmenting.segmenter import PictureBatch, Segmenter
from pipeline.segmenting.stage_threads import Done, StageThreads
from pipeline.transforms import coders  # noqa: F401  (registers the records' coders)
from pipeline.transforms.global_window import in_global_window
from pipeline.transforms.threads_do_fn import ThreadsDoFn
from pipeline.transforms.while_used import WhileUsed


@dataclass(frozen=True)
class EngineSettings:
    """How a process runs the model.

    Args:
        model: the checked model.
        threads: batches in the engine at a time; 0 for the worker's cores, shared between its processes.
        batch_size: views per batch, at least 1.
        processes: worker processes that share a machine; used if `threads` is 0.
        accelerator: the step's resource hint, in Beam's form `type:…;count:1;…`; "" for none.
    """

    model: ModelFolder
    threads: int
    batch_size: int
    processes: int = 1
    accelerator: str = ""


class SegmentOutputs(NamedTuple):
    """The outputs of `SegmentImages`.

    Args:
        records: `PictureRecord`, a record for each mask that was written.
        failures: `Failure`, one for each picture that could not be segmented.
        seconds: (stage, seconds) pairs, to be summed.
    """

    records: PCollection[PictureRecord]
    failures: PCollection[Failure]
    seconds: PCollection[tuple[str, float]]


class _SegmentState:
    """Shared by all bundles of a process: the engine, and the threads that run pictures through it."""

    def __init__(self, engine: EngineSettings, recipe: Recipe, destination: Destination) -> None:
        prepare_process()
        threads = engine.threads or max(1, usable_cores() // engine.processes)
        self._segmenter = Segmenter(
            recipe,
            destination,
            load_engine(engine.model, threads),
            decoding=ByteBudget(usable_memory_bytes() // 2 // engine.processes),
            engine_batch=engine.batch_size,
            split=engine.model.split(),
        )
        self.journal = Journal(destination.root, destination.holder, self._segmenter.delivery)
        self.threads = WhileUsed(lambda: StageThreads(self._segmenter, threads, self._deliver), StageThreads.shutdown)

    def _deliver(self, batch: PictureBatch) -> Done:
        """Writes a batch and records it at once, because Beam may keep a bundle open for hours."""
        outcomes, seconds = self._segmenter.deliver(batch)
        self.journal.add(outcomes)
        return outcomes, seconds


class _SegmentDoFn(ThreadsDoFn[_SegmentState]):
    """Runs a bundle's pictures in the process's threads."""

    def __init__(
        self,
        engine: EngineSettings,
        recipe: Recipe,
        destination: Destination,
        progress: ProgressReporter,
        shared: Shared,
    ) -> None:
        super().__init__(partial(_SegmentState, engine, recipe, destination), progress, shared)
        self._batch_size = engine.batch_size

    def start_bundle(self) -> None:
        super().start_bundle()
        self._stream = self.threads.stream(self._batch_size)

    def process(self, picture: Located) -> Iterator[Any]:
        for done in self._stream.add(picture):
            yield from self._outputs(done)

    def finish_bundle(self) -> Iterator[Any]:
        for done in self._stream.finish():
            for output in self._outputs(done):
                yield in_global_window(output)
        yield from self.end_bundle()

    def _outputs(self, done: Done) -> Iterator[Any]:
        outcomes, seconds = done
        self.add_seconds(seconds)
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self.counts.add(Count.FAILED)
                yield TaggedOutput("failures", outcome)
            else:
                self.counts.add(Count.SEGMENTED)
                yield outcome


class SegmentImages(beam.PTransform[Any, Any]):
    """Writes the outputs of each picture and emits its record; one shared engine per process.

    Args:
        engine: how a process runs the model.
        recipe: what determines the results.
        destination: where and what to write.
        progress: where to report segmented and failed pictures.
    """

    def __init__(
        self, engine: EngineSettings, recipe: Recipe, destination: Destination, progress: ProgressReporter
    ) -> None:
        super().__init__()
        self._engine = engine
        self._recipe = recipe
        self._destination = destination
        self._progress = progress

    def expand(self, located: PCollection[Located]) -> SegmentOutputs:
        segment = beam.ParDo(
            _SegmentDoFn(self._engine, self._recipe, self._destination, self._progress, Shared())
        ).with_output_types(PictureRecord, failures=Failure, seconds=tuple[str, float])
        if self._engine.accelerator:
            # Only on this step; the others don't use an accelerator.
            segment = segment.with_resource_hints(accelerator=self._engine.accelerator)
        outputs = located | "Infer" >> segment.with_outputs("failures", "seconds", main="records")
        return SegmentOutputs(outputs.records, outputs.failures, outputs.seconds)
