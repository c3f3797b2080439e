"""What a glob matches, in one reading for files on this machine and for buckets."""

import re

GLOB_CHARACTERS = re.compile(r"[*?\[]")
ANY_FOLDERS = "**"


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression: `*` and `?` match within a folder's name, `**/` any number of folders."""
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
