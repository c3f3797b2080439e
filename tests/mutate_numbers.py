"""Mutates the numbers of pipeline/core that mutmut leaves alone: those outside functions, and in decorated ones.

    python tests/mutate_numbers.py [FILE …]

Each number is raised by one in a copy of the repository, and the tests that `[tool.mutmut]` of pyproject.toml selects
have to fail. The tests named after the file run first. Prints the survivors and the score; files are relative to
pipeline/core.
"""

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_CORE = Path("pipeline/core")
_COPIED = ("model", "pipeline", "tests", "pyproject.toml", "setup.py", "README.md")
# mutmut mutates functions with one of these decorators.
_MUTATED_BY_MUTMUT = {"staticmethod", "classmethod"}
_LIMIT_S = 600


@dataclass(frozen=True)
class Number:
    """A number in a source file.

    Args:
        file: the file, relative to the repository.
        line: counted from 1.
        start: its first column, in bytes.
        end: one past its last column.
        value: its value.
    """

    file: Path
    line: int
    start: int
    end: int
    value: float

    def mutated(self, source: bytes) -> bytes:
        """The file's content with the number raised by one."""
        lines = source.splitlines(keepends=True)
        line = lines[self.line - 1]
        lines[self.line - 1] = line[: self.start] + repr(self.value + 1).encode() + line[self.end :]
        return b"".join(lines)


def numbers_of(file: Path) -> Iterator[Number]:
    """The numbers of a file that mutmut leaves alone."""

    def visit(node: ast.AST) -> Iterator[Number]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef) and _is_mutated_by_mutmut(child):
                continue
            if isinstance(child, ast.Constant) and type(child.value) in (int, float):
                assert child.end_col_offset is not None
                yield Number(file, child.lineno, child.col_offset, child.end_col_offset, child.value)
            yield from visit(child)

    return visit(ast.parse((ROOT / file).read_bytes()))


def _is_mutated_by_mutmut(function: ast.FunctionDef) -> bool:
    names = [decorator.id if isinstance(decorator, ast.Name) else "" for decorator in function.decorator_list]
    return not names or (len(names) == 1 and names[0] in _MUTATED_BY_MUTMUT)


def a_test_fails(copy: Path, first: str) -> bool:
    """Whether a selected test fails in a copy, or does not end in time.

    Args:
        copy: of the repository.
        first: the name of the test file that runs before the others.
    """
    settings = tomllib.loads((copy / "pyproject.toml").read_text("utf-8"))["tool"]["mutmut"]
    tests = sorted(settings["pytest_add_cli_args_test_selection"], key=lambda test: Path(test).name != first)
    command = [sys.executable, "-m", "pytest", "-q", "-x", *settings["pytest_add_cli_args"], *tests]
    # The copy's modules, not those of an installed maskbeam.
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        return subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=_LIMIT_S).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def is_killed(number: Number, copy: Path) -> bool:
    """Whether a test fails in a copy with the number raised by one."""
    target = copy / number.file
    source = target.read_bytes()
    target.write_bytes(number.mutated(source))
    try:
        return a_test_fails(copy, f"test_{number.file.name}")
    finally:
        target.write_bytes(source)


def main() -> None:
    """Mutates every number, prints the survivors and the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    files = [_CORE / file for file in arguments.files] or sorted(
        path.relative_to(ROOT) for path in (ROOT / _CORE).rglob("*.py")
    )
    numbers = [number for file in files for number in numbers_of(file)]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        if a_test_fails(copy, first=""):
            sys.exit("the tests fail without a mutation")
        killed = 0
        for number in numbers:
            if is_killed(number, copy):
                killed += 1
            else:
                print(f"survived: {number.file}:{number.line}:{number.start} {number.value!r}", flush=True)
    print(f"{killed} of {len(numbers)} killed")


if __name__ == "__main__":
    main()
