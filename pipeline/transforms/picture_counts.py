"""Counts pictures while a job runs: in Beam's counters, which Dataflow and Flink show, and for the local display."""

from apache_beam.metrics import Metrics

from pipeline.progress.counts import Count, ProgressReporter

NAMESPACE = "maskbeam"
_COUNTERS = {count: Metrics.counter(NAMESPACE, count.value) for count in Count}


class PictureCounts:
    """Counts pictures of a DoFn; to be called from the thread that runs the bundle. No result depends on it.

    Args:
        reporter: to the launcher's display.
    """

    def __init__(self, reporter: ProgressReporter) -> None:
        self._reporter = reporter

    def add(self, count: Count, pictures: int = 1) -> None:
        """Counts pictures.

        Args:
            count: as what.
            pictures: how many.
        """
        if pictures:
            _COUNTERS[count].inc(pictures)
            self._reporter.add(count, pictures)

    def flush(self) -> None:
        """Sends counts that have not been sent yet; for the end of a bundle."""
        self._reporter.flush()
