"""Counts of files whose names are not those of pictures, by ending, in bounded memory."""

from collections import Counter
from dataclasses import dataclass

MAX_ENDINGS = 64
"""Maximum number of different endings that are counted separately, the first that occur."""
OTHER_ENDINGS = "other"
_MAX_ENDING_LENGTH = 12
_MACOS_COMPANION = "._"


@dataclass(frozen=True, slots=True)
class Ignored:
    """Files of a source whose names are not those of pictures.

    Args:
        by_ending: endings in lower case with their dot ("" for none), and the number of files with each.
    """

    by_ending: tuple[tuple[str, int], ...] = ()

    @property
    def files(self) -> int:
        """The number of files."""
        return sum(count for _, count in self.by_ending)


class IgnoredFiles:
    """Counts names by ending."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Counts one file by its path or name."""
        ending = _ending(name)
        if ending not in self._counts and len(self._counts) >= MAX_ENDINGS:
            ending = OTHER_ENDINGS
        self._counts[ending] += 1

    def total(self) -> Ignored:
        """The counts, sorted by ending."""
        return Ignored(tuple(sorted(self._counts.items())))


def _ending(name: str) -> str:
    base = name.rpartition("/")[2]
    if base.startswith(_MACOS_COMPANION):
        return f"{_MACOS_COMPANION}*"
    stem, dot, ending = base.rpartition(".")
    if not stem or not dot or not ending:
        return ""
    if len(ending) > _MAX_ENDING_LENGTH or not ending.isalnum():
        return OTHER_ENDINGS
    return f".{ending.lower()}"
