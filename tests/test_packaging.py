"""What is built and shipped: versions that agree, pins that hold, and archives that carry everything."""

import contextlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = [
    *("setup.py", "pyproject.toml", "constraints.txt", "MANIFEST.in", "run_local.sh"),
    *("README.md", "CHANGELOG.md", "LICENSE"),
]
PYTHONS = ("3.11", "3.12", "3.13")


class Built(NamedTuple):
    """The two archives, and the files that have to be in both, relative to the root."""

    sdist: Path
    wheel: Path
    package_files: set[str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Builds the sdist, and the wheel out of it, from a copy of the source with other files beside it."""
    source = tmp_path_factory.mktemp("source")
    litter = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.egg-info", ".*_cache")
    for folder in ("pipeline", "model", "tests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=litter)
    for name in SHIPPED:
        shutil.copy(ROOT / name, source / name)
    for data in (
        "model/pretrained/made_up/model.tflite",
        "model/pretrained/made_up/saved_model/variables/variables.data-00000-of-00001",
        "pipeline/docs/pages/made_up.md",
    ):
        (source / data).parent.mkdir(parents=True, exist_ok=True)
        (source / data).write_text("data")
    expected = {
        str(path.relative_to(source))
        for folder in ("pipeline", "model")
        for path in (source / folder).rglob("*")
        if path.is_file()
    }
    for unwanted in (
        ".venv/lib/pipeline/litter.py",
        "out/run/pipeline/litter.py",
        "build/lib/pipeline/litter.py",
        "pipeline/__pycache__/litter.cpython-311.pyc",
    ):
        (source / unwanted).parent.mkdir(parents=True, exist_ok=True)
        (source / unwanted).write_text("")
    for folder in (".venv/lib/pipeline", "out/run/pipeline"):
        (source / folder / "__init__.py").write_text("")

    target = tmp_path_factory.mktemp("dist")
    # As Beam's --setup_file does it, and without the network.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return Built(next(target.glob("*.tar.gz")), next(target.glob("*.whl")), expected)


def test_sdist_carries_everything(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert built.package_files - files == set()
    assert {*SHIPPED, "tests/run.sh", "tests/test_packaging.py"} - files == set()
    assert [name for name in files if "litter" in name] == []


def test_wheel_carries_the_packages_and_their_data_only(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    # The Python interface is there under its own name as well.
    interface = {
        name.removeprefix("pipeline/") for name in built.package_files if name.startswith("pipeline/maskbeam/")
    }
    assert "maskbeam/__init__.py" in interface
    assert files == built.package_files | interface


def test_versions_agree(built: Built) -> None:
    assert built.sdist.name == f"maskbeam-{setup_version()}.tar.gz"
    headings = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert headings[0] == setup_version()
    # A checkout that was not installed has no metadata to compare.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        assert importlib.metadata.version("maskbeam") == setup_version()


def setup_version() -> str:
    found = re.search(r'^    version="([^"]+)"', (ROOT / "setup.py").read_text("utf-8"), flags=re.MULTILINE)
    assert found is not None
    return found[1]


def requirements(built: Built) -> list[Requirement]:
    with zipfile.ZipFile(built.wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def pinned(python: str) -> dict[str, str]:
    """Package → version, for Linux and this Python."""
    environment = {"python_version": python, "python_full_version": python + ".0", "sys_platform": "linux"}
    found: dict[str, str] = {}
    for pin in pins():
        if pin.marker is None or Marker(str(pin.marker)).evaluate(environment):
            assert pin.name not in found, f"{pin.name} is pinned twice for Python {python}"
            found[pin.name] = next(iter(pin.specifier)).version
    return found


def test_constraints_are_exact_and_name_no_place() -> None:
    for pin in pins():
        assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
        assert pin.url is None
        assert not pin.extras
        assert pin.name == canonicalize_name(pin.name)
    names = [pin.name for pin in pins()]
    assert names == sorted(names)
    text = (ROOT / "constraints.txt").read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", text, flags=re.MULTILINE)


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_has_a_pin_that_fits(built: Built, python: str) -> None:
    versions = pinned(python)
    wanted = requirements(built)
    assert len(wanted) > 20
    for requirement in wanted:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_core_needs_no_training_framework(built: Built) -> None:
    core = {requirement.name for requirement in requirements(built) if "extra" not in str(requirement.marker)}
    assert core == {
        *("ai-edge-litert", "apache-beam", "jinja2", "numpy", "obstore", "opencv-python-headless", "pillow", "pyarrow"),
        "rich",
    }


def test_readme_names_the_set_up_and_the_extras_and_its_links_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "./run_local.sh" in readme
    assert "bash tests/run.sh" in readme
    for extra in ("train", "gcp", "aws", "geo", "medical", "video", "playground", "test"):
        assert f"`{extra}`" in readme, extra
    links = re.findall(r"\]\(([^)#\s]+)", readme)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
