"""The reference pages hold what the code holds: endings, exit statuses, stages and types of failures.

`python tests/test_reference.py` writes the table of types again.
"""

import re
from pathlib import Path

from pipeline.app import launcher
from pipeline.core.decode import PICTURE_ENDINGS
from pipeline.core.errors import STAGES, ErrorType
from pipeline.output import results
from pipeline.output.resume import RETRIED_ERRORS

DOCS = Path(__file__).resolve().parent.parent / "pipeline" / "docs"
TYPES = re.compile(r"(<!-- types: .*-->\n)(.*)(<!-- end of types -->)", re.DOTALL)


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def types_table() -> str:
    """All types of failures as a table in Markdown."""
    rows = [f"| `{one}` | {one.meaning} | {one.remedy} |" for one in sorted(ErrorType)]
    return "\n".join(["| type | meaning | what to do |", "|---|---|---|", *rows]) + "\n"


def first_cells(text: str, heading: str) -> list[str]:
    """The first cells of the table below a heading, without its head."""
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [row.split("|")[1].strip() for row in rows[2:]]


def test_the_endings_of_pictures_are_listed() -> None:
    text = " ".join(page("inputs.md").split())
    listed = re.search(r"one of the endings `([^`]+)`", text)
    assert listed is not None
    assert set(listed[1].split()) == PICTURE_ENDINGS


def test_every_type_of_failure_is_explained() -> None:
    found = TYPES.search(page("failures.md"))
    assert found is not None
    assert found[2] == types_table(), "run: python tests/test_reference.py"
    for one in ErrorType:
        assert re.fullmatch(r"[A-Z][A-Za-z]+", one)
        assert all(re.fullmatch(r"[A-Z`][^\n|]+\.", text) for text in (one.meaning, one.remedy)), one


def test_every_exit_status_is_listed() -> None:
    text = page("failures.md")
    statuses = {launcher.DONE, launcher.BROKEN, launcher.UNUSABLE, launcher.TOO_MANY_FAILURES, launcher.INTERRUPTED}
    assert {int(cell) for cell in first_cells(text, "Exit statuses")} == statuses
    for run_status in (results.STATUS_DONE, results.STATUS_NO_TRUTH, results.STATUS_TOO_MANY_FAILURES):
        assert f"| `{run_status}` |" in text


def test_every_stage_is_listed() -> None:
    assert first_cells(page("failures.md"), "Stages") == [f"`{stage}`" for stage in STAGES]


def test_the_failures_that_a_resume_does_again_are_listed() -> None:
    section = page("failures.md").partition("\n## Retrying failures\n")[2].partition("The others are kept")[0]
    assert set(re.findall(r"`([A-Z][A-Za-z]+)`", section)) == RETRIED_ERRORS


if __name__ == "__main__":
    path = DOCS / "failures.md"
    path.write_text(TYPES.sub(lambda found: found[1] + types_table() + found[3], path.read_text("utf-8")), "utf-8")
