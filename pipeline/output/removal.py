"""Which masks of earlier runs a run would remove, and whether it may."""

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
"""A larger share of the masks is removed only on request."""


class MaskCounts(NamedTuple):
    """Numbers of masks in an output.

    Args:
        existing: all masks.
        unlisted: masks of pictures that the sources no longer have, or that failed since.
        unwanted: masks in the output of a job that writes none.
        replaced: masks of unchanged pictures that another model or other options made, and that are made again.
    """

    existing: int = 0
    unlisted: int = 0
    unwanted: int = 0
    replaced: int = 0

    @property
    def removed(self) -> int:
        """How many are removed."""
        return self.unlisted + self.unwanted + self.replaced

    @staticmethod
    def total(counts: Iterable["MaskCounts"]) -> "MaskCounts":
        """The sum of several counts."""
        return MaskCounts(*(sum(column) for column in zip(MaskCounts(), *counts, strict=True)))


def removal_text(counts: MaskCounts) -> str:
    """How many masks are removed and why, for messages; "" if none is."""
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
    return f"{counts.removed:,} of {counts.existing:,} masks of earlier runs: {', '.join(reasons)}"


def check_removal(output: str, counts: MaskCounts, *, may_remove: bool) -> None:
    """Checks that a run removes at most a tenth of an output's masks, unless it may remove any number.

    Args:
        output: absolute folder or bucket prefix.
        counts: of the output's masks.
        may_remove: whether any number may be removed.

    Raises:
        OptionError: too many would be removed.
    """
    if not may_remove and counts.removed > MAX_REMOVED_SHARE * counts.existing:
        raise OptionError(
            f"{output}: this run would remove {removal_text(counts)}; nothing was removed."
            " Choose another --output, or add --prune to remove them, or --existing overwrite to start over"
        )


def expected_removal(output: str, recipe: Recipe, *, has_masks: bool) -> MaskCounts:
    """The masks of a finished run that a run with this recipe removes whatever its pictures are.

    Args:
        output: absolute folder or bucket prefix.
        recipe: the job's.
        has_masks: whether the job writes masks.

    Returns:
        Their numbers; all 0 without the summary of a finished run.

    Raises:
        OSError: the output can't be read.
    """
    try:
        summary = json.loads(filesystem.read_bytes(filesystem.join(output, SUMMARY_FILE)))
        existing = int(summary["images"]["segmented"])
        if summary["run"]["options"]["mask_format"] == MASK_FORMATS[-1]:
            return MaskCounts()
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return MaskCounts()
    if not has_masks:
        return MaskCounts(existing, unwanted=existing)
    inference = Marker.read(output).inference
    is_other = bool(inference) and inference != recipe.inference_digest()
    return MaskCounts(existing, replaced=existing if is_other else 0)
