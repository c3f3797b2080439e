"""The scripts of tests/benchmarks use names of the source that exist; the measurements themselves are run by hand."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parent / "benchmarks").glob("*.py"))


def imported_names(script: Path) -> Iterator[tuple[str, str]]:
    """Module and name of each import from the pipeline, also inside functions."""
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
            yield from ((node.module or "", alias.name) for alias in node.names)


def is_missing(module: str, name: str) -> bool:
    if module == "pipeline.engines.tensorflow" and importlib.util.find_spec("tensorflow") is None:
        return False
    if hasattr(importlib.import_module(module), name):
        return False
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return True
    return False


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_benchmark_imports_names_that_exist(script: Path) -> None:
    assert [(module, name) for module, name in imported_names(script) if is_missing(module, name)] == []


def test_a_missing_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("def f():\n    from pipeline.core.records import Located, Nothing\n")
    names = list(imported_names(tmp_path / "old.py"))
    assert [name for module, name in names if is_missing(module, name)] == ["Nothing"]
