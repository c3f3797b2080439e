"""How much is summed of each group of pictures: less where there are many groups, so that memory is bounded."""

from pipeline.core.measures.measure import Detail

MAX_GROUPS = 10_000
"""Maximum number of groups; with more, none is summed, but each picture's group is still in the tables."""
MAX_MATRIX_CELLS = 10_000_000
"""Maximum number of cells of all groups' confusion matrices, groups × classes²: 80 MB."""
MAX_GROUP_CLASSES_WITH_INTERVALS = 1_000
"""Maximum of groups × classes with intervals, whose blocks take 6 kB per class."""
FEW_GROUPS = Detail(histogram_bins=1_000)
MANY_GROUPS = Detail(blocks=0, histogram_bins=42)
"""A group of three classes takes less than 5 kB."""


def group_detail(groups: int, num_classes: int) -> Detail | None:
    """What is summed of each group.

    Args:
        groups: how many there are in the whole job, so that the answer doesn't depend on how it is run.
        num_classes: the model's number of classes.

    Returns:
        The detail of every group's totals; None if there are too many groups.
    """
    if groups > MAX_GROUPS or groups * num_classes**2 > MAX_MATRIX_CELLS:
        return None
    return FEW_GROUPS if groups * num_classes <= MAX_GROUP_CLASSES_WITH_INTERVALS else MANY_GROUPS


def groups_note(groups: int, num_classes: int) -> str | None:
    """Why `summary.json` has no `groups`; None if it has, or if no groups were requested."""
    if not groups or group_detail(groups, num_classes) is not None:
        return None
    limit = min(MAX_GROUPS, MAX_MATRIX_CELLS // num_classes**2)
    return f"{groups:,} groups are too many to sum; at most {limit:,} are; the column group of the tables names each"
