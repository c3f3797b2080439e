"""The base of DoFns that process pictures in threads of their process."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.shared import Shared

from pipeline.output.journal import Journal
from pipeline.progress.counts import ProgressReporter
from pipeline.transforms.global_window import in_global_window
from pipeline.transforms.picture_counts import PictureCounts
from pipeline.transforms.while_used import Resource, WhileUsed


class ProcessState(Protocol[Resource]):
    """What the bundles of a process share.

    Attributes:
        journal: where finished pictures are recorded.
        threads: exist while a DoFn uses them.
    """

    journal: Journal
    threads: WhileUsed[Resource]


State = TypeVar("State", bound=ProcessState[Any])


class ThreadsDoFn(beam.DoFn, Generic[State]):
    """Starts and ends the threads of a process, and emits the seconds of each stage at the end of a bundle.

    Args:
        make_state: makes the state of a process; called once per process.
        progress: where to report pictures.
        shared: Beam's handle of the state.
    """

    def __init__(self, make_state: Callable[[], State], progress: ProgressReporter, shared: Shared) -> None:
        self._make_state = make_state
        self._shared = shared
        self.threads: Any = None
        self.counts = PictureCounts(progress)

    def setup(self) -> None:
        self.state: State = self._shared.acquire(self._make_state)
        self.threads = self.state.threads.enter()

    def teardown(self) -> None:
        if self.threads is not None:
            self.threads = None
            self.state.threads.leave()

    def start_bundle(self) -> None:
        self._seconds: dict[str, float] = {}

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Adds the seconds of stages to those of the bundle."""
        for stage, value in seconds.items():
            self._seconds[stage] = self._seconds.get(stage, 0.0) + value

    def end_bundle(self) -> Iterator[Any]:
        """Stores the journal and yields the seconds of the bundle; for the end of `finish_bundle`."""
        # Nothing may be written after the end of the job, when the output may belong to another run.
        self.state.journal.flush()
        for item in self._seconds.items():
            yield in_global_window(TaggedOutput("seconds", item))
        self.counts.flush()
