"""Modules and lines of each room and floor of the source, for the tables of `pipeline/docs/architecture.md`.

python tests/benchmarks/house.py
python tests/benchmarks/house.py --revision 2567269
"""

import argparse
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOPS = ("pipeline", "model")
FLOORS = {
    "roof": ("pipeline", "pipeline/app", "pipeline/flink", "pipeline/dataflow", "pipeline/maskbeam"),
    "second": ("pipeline/transforms",),
    "first": (
        *("model", "model/networks", "model/data", "model/samples"),
        *("pipeline/stages", "pipeline/storage", "pipeline/sources", "pipeline/engines", "pipeline/output"),
        *("pipeline/segmenting", "pipeline/report", "pipeline/progress"),
    ),
    "ground": ("pipeline/core",),
}
"""The rooms of each floor; `pipeline/stages` is that of earlier revisions."""


def lines_by_file(revision: str | None) -> Iterator[tuple[str, int]]:
    """The number of lines of each Python file, by its path in the repository.

    Args:
        revision: of git; None for the files as they are now.
    """
    if revision is None:
        for path in (path for top in TOPS for path in (ROOT / top).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), len(path.read_text("utf-8").splitlines())
        return
    command = ["git", "grep", "--count", "", revision, "--", *(f"{top}/*.py" for top in TOPS)]
    counted = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for line in counted.splitlines():
        _, path, count = line.split(":")
        yield path, int(count)


def rooms(revision: str | None = None) -> dict[str, tuple[int, int]]:
    """The number of modules and of their lines, by room, largest first."""
    counts: dict[str, tuple[int, int]] = {}
    for path, count in lines_by_file(revision):
        parts = path.split("/")
        room = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        modules, lines = counts.get(room, (0, 0))
        counts[room] = (modules + (parts[-1] != "__init__.py"), lines + count)
    return dict(sorted(counts.items(), key=lambda item: -item[1][1]))


def print_table(heading: str, rows: Mapping[str, tuple[int, int]]) -> None:
    """Prints modules, lines and shares as Markdown."""
    total = sum(lines for _, lines in rows.values())
    print(f"| {heading} | modules | lines | share |\n|---|---:|---:|---:|")
    for name, (modules, lines) in rows.items():
        print(f"| {name} | {modules} | {lines:,} | {lines / total:.0%} |")
    print(f"| all | {sum(modules for modules, _ in rows.values())} | {total:,} | |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--revision", help="of git; by default the files as they are now")
    found = rooms(parser.parse_args().revision)
    print_table("room", {f"`{room}`": counts for room, counts in found.items()})
    print()
    floors = {floor: [found[room] for room in names if room in found] for floor, names in FLOORS.items()}
    print_table("floor", {floor: (sum(m for m, _ in n), sum(lines for _, lines in n)) for floor, n in floors.items()})


if __name__ == "__main__":
    main()
