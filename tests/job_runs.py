"""Helpers of the tests of whole runs."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from small_archive import (
    TINY_MODEL,
    Archive,
    Finished,
    run_job,
)

ROOT = Path(__file__).resolve().parent.parent
SLOW_MACHINE = re.compile(r"maskbeam: (listing|[0-9,]+ of ).*")
"""The line that comes every half minute where there is no terminal."""


def but_run(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on how the job is run."""
    return {name: value for name, value in summary.items() if name != "run"}


def run_process(output: Path, *arguments: object, program: str | None = None) -> Finished:
    """Runs the command as a separate process, as a user does."""
    start = ["-c", program] if program else ["-m", "pipeline"]
    command = [sys.executable, *start, *map(str, arguments), "--model", str(TINY_MODEL), "--output", str(output)]
    # The least that a terminal can show.
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    return Finished(done.returncode, done.stdout, done.stderr, output)


def break_five(archive: Archive) -> dict[str, tuple[str, str]]:
    """Puts five broken pictures into the archive; returns the stage and type of the failure of each."""
    good = (archive.images / "palette.gif").read_bytes()
    jpeg = (archive.images / "sideways.jpg").read_bytes()
    for name, data in (
        ("bad/empty.png", b""),
        ("bad/text.jpg", b"no picture at all\n"),
        ("bad/cut.jpg", jpeg[: len(jpeg) // 2]),
        ("bad/page.png", b"<!DOCTYPE html>"),
        ("bad/cut.gif", good[: len(good) // 2]),
    ):
        path = archive.images / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return {
        "bad/cut.gif": ("decode", "Truncated"),
        "bad/cut.jpg": ("decode", "Truncated"),
        "bad/empty.png": ("decode", "Empty"),
        "bad/page.png": ("decode", "NotAPicture"),
        "bad/text.jpg": ("decode", "NotAPicture"),
    }


def refused(tmp_path: Path, *arguments: object, model: object = TINY_MODEL, output: Path | None = None) -> str:
    target = output or tmp_path / "refused"
    done = run_job(target, *arguments, model=str(model))
    assert (done.status, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("maskbeam: ")
    assert not (target / "summary.json").exists()
    return line.removeprefix("maskbeam: ")
