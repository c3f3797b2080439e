"""Holds the floors of the house: reads every import of the source, without running any of it."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

TOP_LEVEL = {
    "pipeline", "model", "tests", "setup.py", "README.md", "run_local.sh", "pyproject.toml",
    "constraints.txt", "MANIFEST.in", "LICENSE", "CHANGELOG.md", ".gitignore", ".dockerignore", ".ci",
}  # fmt: skip

CORE = "pipeline.core"
FIRST_FLOOR = (
    "pipeline.storage", "pipeline.sources", "pipeline.engines", "pipeline.output", "pipeline.report",
    "pipeline.progress", "pipeline.segmenting",
)  # fmt: skip
# What a room may import of this project. A room that is not named here has no floor, and fails.
FLOORS = {
    "pipeline.core": (CORE,),
    "pipeline.storage": (CORE, "pipeline.storage"),
    "pipeline.report": (CORE, "pipeline.report"),
    "pipeline.progress": (CORE, "pipeline.progress"),
    "pipeline.sources": (CORE, "pipeline.storage", "pipeline.sources"),
    "pipeline.engines": (CORE, "pipeline.storage", "pipeline.engines"),
    "pipeline.output": (CORE, "pipeline.storage", "pipeline.sources", "pipeline.report", "pipeline.output"),
    "pipeline.segmenting": (
        CORE, "pipeline.storage", "pipeline.sources", "pipeline.engines", "pipeline.output", "pipeline.segmenting",
    ),
    "pipeline.transforms": (CORE, *FIRST_FLOOR, "pipeline.transforms"),
    "pipeline.app": ("pipeline",),
    "pipeline.dataflow": ("pipeline",),
    "pipeline.flink": ("pipeline",),
    "pipeline.__main__": ("pipeline",),
    # The Python interface and the command `maskbeam`, which start whichever is asked for.
    "pipeline.maskbeam": ("pipeline", "model"),
    "model.networks": (CORE, "pipeline.storage", "pipeline.engines", "model.networks"),
    "model.data": (CORE, "pipeline.storage", "pipeline.sources", "pipeline.segmenting", "model.data"),
    "model.samples": (CORE, "model.samples"),
    "model": ("model", CORE, *FIRST_FLOOR),
}  # fmt: skip
# The ground is pure functions: of other packages only these, and nothing that reaches files by their path.
CORE_PACKAGES = {"numpy", "PIL", "cv2"}
CORE_FORBIDDEN = {"os", "pathlib", "shutil", "glob", "tempfile", "subprocess", "socket", "urllib"}
# Below the second floor only this module may import Beam, to see the options that Beam gave a worker.
STORE_OPTIONS = "pipeline.storage.store_options"
# The one module of the pipeline that needs TensorFlow; imported inside a function, when it is asked for.
TENSORFLOW_ENGINE = "pipeline.engines.tensorflow"
TENSORFLOW = {"tensorflow", "keras", "tf_keras", "tensorflow_datasets", "tensorflow_hub"}
# These train with any Keras backend.
KERAS_ALONE = (
    "model.networks.layers", "model.networks.network", "model.networks.efficientnet", "model.networks.encoder_weights",
    "model.networks.spread", "model.networks.transfer", "model.networks.distil", "model.networks.optimizer",
    "model.losses",
)  # fmt: skip
# Beam reads the hints of these when the graph is built; as strings they would be lost.
HINTS_READ = ("pipeline.transforms", "pipeline.app.graph")


@dataclass(frozen=True)
class Import:
    """One imported name: `from a import b` is a.b, whether b is a module or not."""

    name: str
    line: int
    at_import: bool  # run when the module is imported, so neither in a function nor for the type checker alone
    for_types: bool  # below `if TYPE_CHECKING:`


def is_in(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def imports_of(module: str, source: str, *, is_package: bool = False) -> Iterator[Import]:
    package = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, at_import: bool, for_types: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import, for_types)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *([node.module] if node.module else [])]
            for alias in node.names:
                yield Import(".".join([*base, alias.name]), node.lineno, at_import, for_types)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                yield from visit(child, False, True)
            for child in node.orelse:
                yield from visit(child, at_import, for_types)
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from visit(child, at_import and not inside, for_types)

    return visit(ast.parse(source), True, False)


def breaches(module: str, source: str, *, is_package: bool = False) -> list[str]:
    """What in this source is against the rules of the house, a line each."""
    room = next((room for room in FLOORS if is_in(module, room)), None)
    if room is None:
        return [] if module == "pipeline" else [f"{module}: has no floor"]
    found = []
    for imported in imports_of(module, source, is_package=is_package):
        name, where = imported.name, f"{module}:{imported.line}"
        package = name.split(".")[0]
        if package in ("pipeline", "model", "tests") and not is_in(name, *FLOORS[room]):
            found.append(f"{where}: {room} must not import {name}")
        if package == "apache_beam" and is_in(module, CORE, *FIRST_FLOOR) and module != STORE_OPTIONS:
            found.append(f"{where}: {name} below the second floor")
        if room == "pipeline.core" and package != "pipeline":
            standard = package in sys.stdlib_module_names and package not in CORE_FORBIDDEN
            if not standard and package not in CORE_PACKAGES:
                found.append(f"{where}: {name} on the ground floor")
        heavy = package in TENSORFLOW or is_in(name, TENSORFLOW_ENGINE)
        if heavy and imported.at_import and is_in(module, "pipeline") and module != TENSORFLOW_ENGINE:
            found.append(f"{where}: {name} is imported before it is asked for")
        if is_in(module, *KERAS_ALONE) and package in TENSORFLOW - {"keras"}:
            found.append(f"{where}: {name} where Keras alone is meant")
        if name == "__future__.annotations" and is_in(module, *HINTS_READ):
            found.append(f"{where}: {name} hides the hints from Beam")
    return found


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The cycles that a depth-first walk meets; empty if and only if there is none."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(node: str, path: list[str]) -> None:
        if node in path:
            found.append([*path[path.index(node) :], node])
        elif node not in done:
            for target in sorted(graph.get(node, ())):
                walk(target, [*path, node])
            done.add(node)

    for node in sorted(graph):
        walk(node, [])
    return found


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Module → modules that it imports, at its top or inside a function; imports for types are left out."""
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        for imported in imports_of(module, source):
            # The name may be something inside a module.
            for target in (imported.name, imported.name.rpartition(".")[0]):
                if target in sources and not imported.for_types:
                    graph[module].add(target)
                    break
    return graph


def class_names(source: str) -> list[str]:
    return [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]


def repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for top in ("pipeline", "model") for path in (ROOT / top).rglob("*.py"))
MODULES = {module_name(path): path for path in FILES if path.name != "__init__.py"}


def test_there_is_something_to_read() -> None:
    assert {"pipeline.core.scores", "pipeline.storage.filesystem", "model.networks.network"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_keeps_to_its_floor(module: str) -> None:
    assert breaches(module, MODULES[module].read_text(encoding="utf-8")) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    assert cycles(import_graph({name: path.read_text("utf-8") for name, path in MODULES.items()})) == []


def test_no_file_name_occurs_twice() -> None:
    assert repeated(path.name for path in FILES if path.stem not in ("__init__", "__main__")) == []


def test_no_class_name_occurs_twice() -> None:
    assert repeated(name for path in FILES for name in class_names(path.read_text("utf-8"))) == []


def test_init_files_are_empty_and_everywhere() -> None:
    written = [module_name(path) for path in FILES if path.name == "__init__.py" and path.stat().st_size]
    assert written == ["pipeline.maskbeam"]  # the names that `import maskbeam` gives
    folders = {path.parent for path in FILES}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_tests_are_flat() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_top_level_holds_what_the_contract_names() -> None:
    try:
        git = ["git", "-C", str(ROOT)]
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        listed = subprocess.run([*git, "ls-files", "-z"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    if Path(top.stdout.strip()).resolve() != ROOT:
        pytest.skip("the checkout is another project's")
    names = [name for name in listed.stdout.split("\0") if name]
    assert {name.split("/")[0] for name in names} - TOP_LEVEL == set()
    assert [name for name in names if name.startswith(".ci/") and name != ".ci/run"] == []


# The rules themselves: what each must find, and what it must accept.


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("pipeline.core.a", "import apache_beam as beam", "below the second floor"),
        ("pipeline.core.a", "def f():\n    import keras", "on the ground floor"),
        ("pipeline.core.a", "from pathlib import Path", "on the ground floor"),
        ("pipeline.core.a", "import pyarrow.parquet", "on the ground floor"),
        ("pipeline.core.a", "from pipeline.storage import filesystem", "must not import pipeline.storage.filesystem"),
        ("pipeline.core.a", "from ..storage import filesystem", "must not import pipeline.storage.filesystem"),
        ("pipeline.core.a", "from pipeline import storage", "must not import pipeline.storage"),
        ("pipeline.core.a", "import pipeline", "must not import pipeline"),
        ("pipeline.sources.a", "from pipeline.transforms.b import c", "must not import pipeline.transforms"),
        ("pipeline.sources.a", "from pipeline.output import journal", "must not import pipeline.output"),
        ("pipeline.storage.a", "from pipeline.sources import sources", "must not import pipeline.sources"),
        ("pipeline.sources.a", "def f():\n    import apache_beam.io", "below the second floor"),
        ("pipeline.storage.store_options_b", "import apache_beam", "below the second floor"),
        ("pipeline.engines.a", "import tensorflow as tf", "before it is asked for"),
        ("pipeline.engines.a", "from pipeline.engines.tensorflow import E", "before it"),
        ("pipeline.sources.a", "try:\n    import tensorflow\nexcept ImportError:\n    pass", "before it"),
        ("pipeline.app.a", "class A:\n    import keras", "before it is asked for"),
        ("pipeline.transforms.a", "from pipeline.app import options", "must not import pipeline.app"),
        ("pipeline.transforms.a", "from __future__ import annotations", "hides the hints"),
        ("pipeline.app.graph", "from __future__ import annotations", "hides the hints"),
        ("pipeline.app.a", "def f():\n    from model.fit import draw", "must not import model.fit"),
        ("pipeline.attic.a", "", "has no floor"),
        ("model.a", "from pipeline.transforms import b", "must not import pipeline.transforms"),
        ("model.a", "import pipeline.app.job_options", "must not import pipeline.app"),
        ("model.networks.a", "from model import fit", "must not import model.fit"),
        ("model.data.a", "from model.networks import network", "must not import model.networks"),
        ("model.samples.a", "from pipeline.sources import source", "must not import pipeline.sources"),
        ("model.networks.network", "import tensorflow as tf", "where Keras alone is meant"),
        ("model.losses", "def f():\n    from tensorflow import math", "where Keras alone is meant"),
    ],
)  # fmt: skip
def test_rules_find_a_breach(module: str, source: str, said: str) -> None:
    found = breaches(module, source)
    assert len(found) >= 1
    assert any(said in line for line in found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipeline.core.a", "import io\nimport cv2\nfrom PIL import Image\nimport pipeline.core.b"),
        ("pipeline.storage.store_options", "from apache_beam.io.filesystems import FileSystems"),
        ("pipeline.engines.tensorflow", "import keras\nimport tensorflow as tf"),
        ("pipeline.engines.a", "def f():\n    from pipeline.engines.tensorflow import E"),
        ("pipeline.sources.a", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tensorflow"),
        ("pipeline.transforms.a", "import apache_beam as beam\nfrom pipeline.storage import filesystem"),
        ("pipeline.app.a", "from pipeline.transforms.b import C\nfrom pipeline.app import d"),
        ("pipeline.__main__", "from pipeline.app.launcher import main"),
        ("model.networks.network", "import keras\nfrom keras import ops"),
        ("model.train", "import tensorflow\nimport pipeline.storage.filesystem\nfrom model import network"),
    ],
)  # fmt: skip
def test_rules_let_pass_what_is_right(module: str, source: str) -> None:
    assert breaches(module, source) == []


def test_repeated_names_are_found() -> None:
    assert sorted(class_names("class A:\n    class B: ...\ndef f():\n    class A: ...")) == ["A", "A", "B"]
    assert repeated(["a", "b", "a", "c", "c"]) == ["a", "c"]


def test_cycles_are_found() -> None:
    ring = {"p.a": "from p import b", "p.b": "def f():\n    from p.c import x", "p.c": "import p.a"}
    assert cycles(import_graph(ring)) == [["p.a", "p.b", "p.c", "p.a"]]
    assert cycles(import_graph({**ring, "p.c": "import os"})) == []
    assert cycles(import_graph({**ring, "p.c": "if TYPE_CHECKING:\n    import p.a"})) == []
