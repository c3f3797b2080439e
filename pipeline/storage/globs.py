"""Glob patterns, with the same meaning for local files and for objects in buckets."""

import re
from collections.abc import Sequence

GLOB_CHARACTERS = re.compile(r"[*?\[]")
ANY_FOLDERS = "**"


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Translates a glob to a regular expression: `*` and `?` match within one name, `**/` any number of folders."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        rest = pattern[position:]
        bracket = re.match(r"\[(!?)([^\]]+)\]", rest)
        if rest.startswith(f"{ANY_FOLDERS}/"):
            parts.append("(?:.*/)?")
            position += 3
        elif rest.startswith(ANY_FOLDERS):
            parts.append(".*")
            position += 2
        elif bracket:
            inner = bracket[2].replace("\\", "\\\\")
            parts.append(f"[{'^' if bracket[1] else ''}{inner}]")
            position += bracket.end()
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0])))
            position += 1
    return re.compile("".join(parts), re.DOTALL)


def can_match_below(pattern: str, folder: str, ending: str) -> bool:
    """Whether a glob can match a file with an ending below a folder, whether or not such a file exists.

    Args:
        pattern: absolute path or URI.
        folder: absolute path or URI.
        ending: the end of the file's name.
    """
    literal_end = re.split(r"[*?\]]", pattern)[-1].rpartition("/")[2]
    can_end = literal_end.endswith(ending) or ending.endswith(literal_end)
    return can_end and _reaches(pattern.split("/"), folder.rstrip("/").split("/"))


def _reaches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the parts of a pattern can match a path below a folder, given by its names."""
    if not names:
        return bool(parts)
    if not parts:
        return False
    if parts[0] == ANY_FOLDERS:
        return _reaches(parts[1:], names) or _reaches(parts, names[1:])
    return bool(glob_regex(parts[0]).fullmatch(names[0])) and _reaches(parts[1:], names[1:])
