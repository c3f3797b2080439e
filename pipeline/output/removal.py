"""Which masks of earlier runs a run would take away, and whether it may."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from pipeline.core.errors import OptionError
from pipeline.core.layout import SUMMARY_FILE
from pipeline.core.recipe import Recipe
from pipeline.output.earlier_run import Marker
from pipeline.output.mask_output import MASK_FORMATS
from pipeline.storage import filesystem

MAX_REMOVED_SHARE = 0.1
"""More of the masks are removed only on demand."""


class MaskCounts(NamedTuple):
    """Masks that are in an output.

    Args:
        there: all of them.
        unlisted: those of pictures that the sources no longer name, or that failed since.
        unwanted: those of a job that writes no masks.
        replaced: those of unchanged pictures that were made with another model or other options, and are made again.
    """

    there: int = 0
    unlisted: int = 0
    unwanted: int = 0
    replaced: int = 0

    @property
    def removed(self) -> int:
        """How many go."""
        return self.unlisted + self.unwanted + self.replaced

    @staticmethod
    def total(counts: Iterable["MaskCounts"]) -> "MaskCounts":
        """The sum of some."""
        return MaskCounts(*(sum(column) for column in zip(MaskCounts(), *counts, strict=True)))


def removal_text(counts: MaskCounts) -> str:
    """How many masks go and why, for people; "" where none does."""
    if not counts.removed:
        return ""
    reasons = [
        f"{count:,} {reason}"
        for count, reason in (
            (counts.unlisted, "of pictures that --input no longer names"),
            (counts.unwanted, "because of --mask_format none"),
            (counts.replaced, "made by another model or with other options"),
        )
        if count
    ]
    return f"{counts.removed:,} of {counts.there:,} masks of earlier runs: {', '.join(reasons)}"


def check_removal(output: str, counts: MaskCounts, *, may_remove: bool) -> None:
    """Refuses to take more than a tenth of an output's masks away unless that was asked for.

    Args:
        output: absolute folder or bucket prefix.
        counts: of the output's masks.
        may_remove: whether any number may go.

    Raises:
        OptionError: too many would go.
    """
    if not may_remove and counts.removed > MAX_REMOVED_SHARE * counts.there:
        raise OptionError(
            f"{output}: this run would remove {removal_text(counts)}; nothing was removed."
            " Name another --output, or add --prune to remove them, or --existing overwrite to make all anew"
        )


def foreseen(output: str, recipe: Recipe, *, has_masks: bool) -> MaskCounts:
    """The masks that a finished run left and that a run with this recipe takes away, without a look at the pictures.

    Args:
        output: absolute folder or bucket prefix.
        recipe: the job's.
        has_masks: whether the job writes masks.

    Returns:
        The masks that go whatever the pictures are; none where no finished run tells.

    Raises:
        OSError: the output can't be read.
    """
    try:
        summary = json.loads(filesystem.read_bytes(filesystem.join(output, SUMMARY_FILE)))
        there = int(summary["images"]["segmented"])
        if summary["run"]["options"]["mask_format"] == MASK_FORMATS[-1]:
            return MaskCounts()
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return MaskCounts()
    if not has_masks:
        return MaskCounts(there, unwanted=there)
    inference = Marker.read(output).inference
    is_other = bool(inference) and inference != recipe.inference_digest()
    return MaskCounts(there, replaced=there if is_other else 0)
