"""Located pictures to records: the DoFn around the way of a picture."""

from collections.abc import Iterator
from dataclasses import dataclass
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
from pipeline.segmenting.crew import Crew, Done
from pipeline.segmenting.memory import usable_memory_bytes
from pipeline.segmenting.segmenter import PictureBatch, Segmenter
from pipeline.transforms import coders  # noqa: F401  (registers the records' coders)
from pipeline.transforms.global_window import in_global_window
from pipeline.transforms.picture_counts import PictureCounts
from pipeline.transforms.while_used import WhileUsed


@dataclass(frozen=True)
class EngineSettings:
    """How a process runs the model.

    Args:
        model: the checked model.
        threads: batches in the engine at a time; 0 for the worker's cores, shared between its processes.
        batch_size: windows a batch, at least 1.
        processes: worker processes that share a machine; it counts where `threads` is 0.
        accelerator: what the step asks of a machine in Beam's words, `type:…;count:1;…`; "" for nothing.
    """

    model: ModelFolder
    threads: int
    batch_size: int
    processes: int = 1
    accelerator: str = ""


class Segmented(NamedTuple):
    """What segmenting gives.

    Args:
        records: `PictureRecord`, a record for each mask that was written.
        failures: `Failure`, a line for each picture that could not be done.
        seconds: (stage, seconds) pairs, to be summed.
    """

    records: PCollection[PictureRecord]
    failures: PCollection[Failure]
    seconds: PCollection[tuple[str, float]]


class _Loaded:
    """What all bundles of a process share: the engine, and the threads that take pictures through it."""

    def __init__(self, engine: EngineSettings, recipe: Recipe, destination: Destination) -> None:
        prepare_process()
        threads = engine.threads or max(1, usable_cores() // engine.processes)
        self._segmenter = Segmenter(
            recipe,
            destination,
            load_engine(engine.model, threads),
            decoding=ByteBudget(usable_memory_bytes() // 2 // engine.processes),
            engine_batch=engine.batch_size,
        )
        self.journal = Journal(destination.root, destination.holder)
        self.crew = WhileUsed(lambda: Crew(self._segmenter, threads, self._deliver), Crew.shutdown)

    def _deliver(self, batch: PictureBatch) -> Done:
        """Writes a batch and records it at once, for Beam may keep a bundle open for hours."""
        outcomes, seconds = self._segmenter.deliver(batch)
        self.journal.add(outcomes)
        return outcomes, seconds


class _SegmentDoFn(beam.DoFn):
    """Feeds a bundle's pictures through the process's threads."""

    def __init__(
        self,
        engine: EngineSettings,
        recipe: Recipe,
        destination: Destination,
        progress: ProgressReporter,
        shared: Shared,
    ) -> None:
        self._engine = engine
        self._recipe = recipe
        self._destination = destination
        self._counts = PictureCounts(progress)
        self._shared = shared
        self._crew: Crew | None = None

    def setup(self) -> None:
        self._loaded: _Loaded = self._shared.acquire(lambda: _Loaded(self._engine, self._recipe, self._destination))
        self._crew = self._loaded.crew.enter()

    def teardown(self) -> None:
        if self._crew is not None:
            self._crew = None
            self._loaded.crew.leave()

    def start_bundle(self) -> None:
        assert self._crew is not None, "Beam calls setup first"
        self._seconds: dict[str, float] = {}
        self._stream = self._crew.stream(self._engine.batch_size)

    def process(self, picture: Located) -> Iterator[Any]:
        for done in self._stream.add(picture):
            yield from self._outputs(done)

    def finish_bundle(self) -> Iterator[Any]:
        for done in self._stream.finish():
            for output in self._outputs(done):
                yield in_global_window(output)
        # Nothing may be written behind the end of the job, by which time the mask may be another's.
        self._loaded.journal.flush()
        for item in self._seconds.items():
            yield in_global_window(TaggedOutput("seconds", item))
        self._counts.flush()

    def _outputs(self, done: Done) -> Iterator[Any]:
        outcomes, seconds = done
        for stage, value in seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + value
        for outcome in outcomes:
            if isinstance(outcome, Failure):
                self._counts.add(Count.FAILED)
                yield TaggedOutput("failures", outcome)
            else:
                self._counts.add(Count.SEGMENTED)
                yield outcome


class SegmentImages(beam.PTransform[Any, Any]):
    """Writes a mask a picture and emits its record; one shared engine a process.

    Args:
        engine: how a process runs the model.
        recipe: what decides the results.
        destination: where and what to write.
        progress: where to report what is done.
    """

    def __init__(
        self, engine: EngineSettings, recipe: Recipe, destination: Destination, progress: ProgressReporter
    ) -> None:
        super().__init__()
        self._engine = engine
        self._recipe = recipe
        self._destination = destination
        self._progress = progress

    def expand(self, located: PCollection[Located]) -> Segmented:
        segment = beam.ParDo(
            _SegmentDoFn(self._engine, self._recipe, self._destination, self._progress, Shared())
        ).with_output_types(PictureRecord, failures=Failure, seconds=tuple[str, float])
        if self._engine.accelerator:
            # On this step alone: the others have no use for it.
            segment = segment.with_resource_hints(accelerator=self._engine.accelerator)
        outputs = located | "Infer" >> segment.with_outputs("failures", "seconds", main="records")
        return Segmented(outputs.records, outputs.failures, outputs.seconds)
