"""The reference pages hold what the code holds: endings, exit statuses, stages and types of failures."""

import re
from pathlib import Path

from pipeline.core.decode import PICTURE_ENDINGS

DOCS = Path(__file__).resolve().parent.parent / "pipeline" / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_the_endings_of_pictures_are_listed() -> None:
    text = " ".join(page("inputs.md").split())
    listed = re.search(r"one of the endings `([^`]+)`", text)
    assert listed is not None
    assert set(listed[1].split()) == PICTURE_ENDINGS
