"""run_local.sh with a fake Python: what it installs, when it installs again, and its errors."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Answers like a Python whose pip, pipeline and model only write down what they were asked.
FAKE_PYTHON = f"""#!/bin/bash
case "$1 $2" in
    "-m venv")
        [[ ! -e "$FAKE/no_venv" ]] || exit 1
        rm -rf "$4"; mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
    "-m pip")
        [[ $3 != --version ]] || exit 0
        shift 2; echo "pip $*" >>"$FAKE/log"
        [[ ! -e "$FAKE/no_network" ]] || exit 1 ;;
    "-m model") echo "$*" >>"$FAKE/log"; mkdir -p "$5/images" ;;
    "-m pipeline") echo "$PWD: $*" >>"$FAKE/log"; exit 3 ;;
    "-c import ensurepip"*) [[ ! -e "$FAKE/no_venv" ]] ;;
    *) exec "{sys.executable}" "$@" ;;
esac
"""
BROKEN_PYTHON = "#!/bin/bash\nexit 127\n"
OLD_PYTHON = "#!/bin/bash\n[[ $1 != -c ]] || exit 1\n"


class Checkout:
    """A copy of what run_local.sh needs, and a PATH with only system tools and the fake Python."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "check out"
        self.tools = folder / "bin"
        self.caller = folder / "caller"
        for made in (self.root, self.tools, self.caller):
            made.mkdir()
        for name in ("run_local.sh", "setup.py", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for tool in ("bash", "cat", "cp", "dirname", "flock", "mkdir", "mv", "rm"):
            found = shutil.which(tool)
            if found:
                (self.tools / tool).symlink_to(found)

    def add_python(self, name: str, text: str = FAKE_PYTHON) -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(self.root / "run_local.sh"), *arguments],
            env={"PATH": str(self.tools), "FAKE": str(self.caller), **variables},
            cwd=self.caller,
            capture_output=True,
            text=True,
        )

    def set_up(self, extras: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(MASKBEAM_SETUP_ONLY="1", MASKBEAM_EXTRAS=extras)

    def log(self) -> list[str]:
        """What was asked since the last look."""
        log = self.caller / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def installed(self) -> list[str]:
        return [line.rpartition(str(self.root))[2] for line in self.log() if "-e " in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.parametrize("text", [None, BROKEN_PYTHON, OLD_PYTHON], ids=["none", "broken shim", "too old"])
def test_no_fitting_python_is_one_line_and_status_2(checkout: Checkout, text: str | None) -> None:
    if text is not None:
        checkout.add_python("python3", text)
    result = checkout.run()
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == ("maskbeam: no Python 3.11, 3.12 or 3.13 was found; install one, or name it in PYTHON\n")


def test_python_without_venv_is_one_line_and_status_2(checkout: Checkout) -> None:
    checkout.add_python("python3")
    (checkout.caller / "no_venv").touch()
    result = checkout.run()
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "lacks the modules venv and ensurepip" in result.stderr


def test_a_later_candidate_is_taken_where_the_first_does_not_start(checkout: Checkout) -> None:
    checkout.add_python("python3", BROKEN_PYTHON)
    checkout.add_python("python3.12")
    assert checkout.set_up().returncode == 0


def test_the_named_python_comes_first(checkout: Checkout) -> None:
    checkout.add_python("python3", BROKEN_PYTHON)
    checkout.add_python("mine")
    assert checkout.run(PYTHON=str(checkout.tools / "mine"), MASKBEAM_SETUP_ONLY="1").returncode == 0


def test_installs_once_and_again_when_something_changed(checkout: Checkout) -> None:
    checkout.add_python("python3")
    first = checkout.set_up()
    assert first.returncode == 0, first.stderr
    assert "installing the core" in first.stderr
    assert checkout.installed() == [""]
    second = checkout.set_up()
    assert second.stderr == ""
    assert checkout.installed() == []
    with (checkout.root / "constraints.txt").open("a") as constraints:
        constraints.write("\n# changed\n")
    checkout.set_up()
    assert checkout.installed() == [""]


def test_extras_add_up(checkout: Checkout) -> None:
    checkout.add_python("python3")
    checkout.set_up()
    checkout.set_up("test")
    checkout.set_up("train,test")
    assert checkout.installed() == ["", "[test]", "[test,train]"]
    checkout.set_up("test")
    checkout.set_up()
    assert checkout.installed() == []
    (checkout.root / "setup.py").write_text("# changed\n")
    checkout.set_up()
    assert checkout.installed() == ["[test,train]"]


def test_a_failed_installation_is_continued(checkout: Checkout) -> None:
    checkout.add_python("python3")
    (checkout.caller / "no_network").touch()
    result = checkout.set_up()
    assert result.returncode == 1
    assert "the installation failed" in result.stderr
    (checkout.caller / "no_network").unlink()
    checkout.log()
    assert checkout.set_up().returncode == 0
    assert checkout.installed() == [""]


def test_an_incomplete_environment_is_made_again(checkout: Checkout) -> None:
    checkout.add_python("python3")
    (checkout.root / ".venv/bin").mkdir(parents=True)
    (checkout.root / ".venv/bin/python").write_text(BROKEN_PYTHON)
    (checkout.root / ".venv/bin/python").chmod(0o755)
    assert checkout.set_up().returncode == 0
    assert checkout.installed() == [""]


def test_a_moved_checkout_is_installed_again(checkout: Checkout) -> None:
    checkout.add_python("python3")
    checkout.set_up()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    checkout.log()
    checkout.set_up()
    assert checkout.installed() == [""]


def test_arguments_are_passed_on_in_the_callers_folder(checkout: Checkout) -> None:
    checkout.add_python("python3")
    result = checkout.run("--input", "my pictures", "--output", "")
    assert result.returncode == 3
    assert checkout.log()[-1] == f"{checkout.caller}: -m pipeline --input my pictures --output "


def test_without_arguments_the_sample_is_made_once_and_segmented(checkout: Checkout) -> None:
    checkout.add_python("python3")
    (checkout.root / "out/sample/images").mkdir(parents=True)  # an interrupted one
    job = (
        f"{checkout.root}: -m pipeline --input out/sample/images --ground_truth out/sample/masks "
        "--model shapes --output out/run"
    )
    assert checkout.run().returncode == 3
    sample = "-m model sample --output out/sample --count 100 --seed 7"
    assert checkout.log()[-2:] == [sample, job]
    assert checkout.run().returncode == 3
    assert checkout.log() == [job]


def test_runs_this_package_from_any_folder(checkout: Checkout) -> None:
    # The real interpreter behind -m pipeline, in a folder that has another `pipeline`.
    (checkout.root / "pipeline").mkdir()
    (checkout.root / "pipeline/__init__.py").touch()
    (checkout.root / "pipeline/__main__.py").write_text("import os; print('ours', os.getcwd())")
    (checkout.caller / "pipeline").mkdir()
    (checkout.caller / "pipeline/__main__.py").write_text("print('theirs')")
    checkout.add_python("python3", FAKE_PYTHON.replace('"-m pipeline")', '"-m never")'))
    result = checkout.run("--help", PYTHONPATH=str(checkout.caller))
    assert result.stdout == f"ours {checkout.caller}\n", result.stderr
