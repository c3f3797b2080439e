"""What is counted of a run, as it is summed over workers: numbers under a name and a detail."""

from collections.abc import Mapping
from dataclasses import dataclass, field

CountKey = tuple[str, str]
"""A name, and a detail where there are several of it, else ""."""

RESUMED, UPDATED, INFERRED_AGAIN, UNPAIRED_TRUTH = "resumed", "updated", "inferred_again", "unpaired_truth"
IGNORED, SECONDS, DELETED = "ignored", "seconds", "deleted"


@dataclass(frozen=True, slots=True)
class RunCounts:
    """The counts of a run.

    Args:
        resumed: pictures whose inference is an earlier run's.
        updated: those of them of which something was made or verified.
        inferred_again: pictures that were inferred again for an output that needs it; their other files were kept.
        unpaired_truth: masks that belong to no picture.
        ignored: how many files of the sources are no pictures, by their endings.
        seconds: seconds a stage, summed over workers.
    """

    resumed: int = 0
    updated: int = 0
    inferred_again: int = 0
    unpaired_truth: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of(sums: Mapping[CountKey, float]) -> "RunCounts":
        """The counts out of their sums; what was never counted is 0."""
        return RunCounts(
            **{name: int(sums.get((name, ""), 0)) for name in (RESUMED, UPDATED, INFERRED_AGAIN, UNPAIRED_TRUTH)},
            ignored={detail: int(sums[name, detail]) for name, detail in sorted(sums) if name == IGNORED},
            seconds={detail: sums[name, detail] for name, detail in sorted(sums) if name == SECONDS},
        )
