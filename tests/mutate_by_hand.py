"""Applies the mutants of tests/hand_mutants.json, one at a time in a copy of the repository, and runs their tests.

    python tests/mutate_by_hand.py            all of them, over an hour of one core
    python tests/mutate_by_hand.py resume     those of files whose path contains the text

They are changes that a mutation tool does not make, or in code that runs only within a job or a training: an order, a
dropped condition, a lost failure, an option that is not used. Each has the tests that have to fail. A mutant with
`survives` changes no result, for the reason given. Prints what survived and the score.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_COPIED = ("model", "pipeline", "tests", "pyproject.toml", "setup.py", "README.md")
_LIMIT_S = 600
_TESTS_FAILED = 1
_RESULTS = ("killed", "survived", "not run", "outdated")


@dataclass(frozen=True)
class HandMutant:
    """One change of the code.

    Args:
        file: relative to the repository.
        old: what is replaced; it occurs once in the file.
        new: what replaces it.
        tests: arguments of pytest.
        survives: why no test can fail; "" where one has to.
    """

    file: str
    old: str
    new: str
    tests: list[str]
    survives: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()!r} -> {self.new.strip()!r}"


def result_of(mutant: HandMutant, copy: Path) -> str:
    """What the tests say of a mutant.

    Args:
        mutant: to be applied.
        copy: of the repository; it is as before afterwards.

    Returns:
        `killed` or `survived`; `not run` where pytest ended otherwise than by a test's failure; `outdated` where
        what is to be replaced does not occur once.
    """
    target = copy / mutant.file
    source = target.read_text("utf-8")
    if source.count(mutant.old) != 1:
        return "outdated"
    target.write_text(source.replace(mutant.old, mutant.new), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not full", *mutant.tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        status = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=_LIMIT_S).returncode
    except subprocess.TimeoutExpired:
        return "killed"
    finally:
        target.write_text(source, "utf-8")
    if status < 0:  # by a signal: a library ended the process
        return "killed"
    return {0: "survived", _TESTS_FAILED: "killed"}.get(status, "not run")


def main() -> None:
    """Applies the mutants, prints the survivors and the score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", default="", help="a text that the path of a file contains")
    wanted = parser.parse_args().path
    everything = [HandMutant(**one) for one in json.loads((ROOT / "tests/hand_mutants.json").read_text("utf-8"))]
    mutants = [one for one in everything if wanted in one.file]
    results: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in _COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        for mutant in mutants:
            results.append(result_of(mutant, copy))
            if results[-1] != "killed":
                print(f"{results[-1]}: {mutant}; {mutant.survives or 'no reason is known'}", flush=True)
    print(", ".join(f"{results.count(result)} {result}" for result in _RESULTS))


if __name__ == "__main__":
    main()
