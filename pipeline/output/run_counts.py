"""The counts of a run, which are summed over workers: numbers by name and detail."""

from collections.abc import Mapping
from dataclasses import dataclass, field

CountKey = tuple[str, str]
"""A name, and a detail if the count has several; else ""."""

RESUMED, UPDATED, INFERRED_AGAIN, UNPAIRED_TRUTH = "resumed", "updated", "inferred_again", "unpaired_truth"
IGNORED, SECONDS, DELETED = "ignored", "seconds", "deleted"


@dataclass(frozen=True, slots=True)
class RunCounts:
    """The counts of a run.

    Args:
        resumed: number of pictures whose inference is from an earlier run.
        updated: how many of these got new or verified outputs or values.
        inferred_again: number of pictures inferred again for an output that needs logits; their other files were kept.
        unpaired_truth: number of masks without a picture.
        ignored: numbers of files of the sources that are not pictures, by ending.
        seconds: seconds by stage, summed over workers.
    """

    resumed: int = 0
    updated: int = 0
    inferred_again: int = 0
    unpaired_truth: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @staticmethod
    def of(sums: Mapping[CountKey, float]) -> "RunCounts":
        """Makes the counts from their sums; missing ones are 0."""
        return RunCounts(
            **{name: int(sums.get((name, ""), 0)) for name in (RESUMED, UPDATED, INFERRED_AGAIN, UNPAIRED_TRUTH)},
            ignored={detail: int(sums[name, detail]) for name, detail in sorted(sums) if name == IGNORED},
            seconds={detail: sums[name, detail] for name, detail in sorted(sums) if name == SECONDS},
        )
