"""Files and lines of each room of the source, for the table of `pipeline/docs/architecture.md`.

python tests/benchmarks/house.py
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def rooms() -> dict[str, tuple[int, int]]:
    """The number of modules and of their lines, by room, largest first."""
    counts: dict[str, tuple[int, int]] = {}
    for path in (path for top in ("pipeline", "model") for path in (ROOT / top).rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        room = "model" if parts[0] == "model" else "/".join(parts[:2]) if len(parts) > 2 else "pipeline"
        modules, lines = counts.get(room, (0, 0))
        lines += len(path.read_text("utf-8").splitlines())
        counts[room] = (modules + (path.name != "__init__.py"), lines)
    return dict(sorted(counts.items(), key=lambda item: -item[1][1]))


def main() -> None:
    """Prints the table."""
    found = rooms()
    total = sum(lines for _, lines in found.values())
    print("| room | modules | lines | share |\n|---|---:|---:|---:|")
    for room, (modules, lines) in found.items():
        print(f"| `{room}` | {modules} | {lines:,} | {lines / total:.0%} |")
    print(f"| all | {sum(modules for modules, _ in found.values())} | {total:,} | |")


if __name__ == "__main__":
    main()
