"""Makes the journals that `tests/test_journal.py` and `tests/test_resume_plan.py` read as an earlier version's.

    python tests/data/make_journal.py journal_v2

Only to be run for a new format: a stored journal shows that what that version wrote is still read. Into the folder of
that name beside this file go one journal a set of options, and `expected.json` with the pictures and the outcomes.
"""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from small_archive import make_archive, run_job  # noqa: E402

from pipeline.output.journal_format import entries, parse_entry  # noqa: E402
from pipeline.sources.pairing import pair  # noqa: E402
from pipeline.sources.source import Listed, Source  # noqa: E402
from pipeline.sources.sources import parse_sources, parse_truths  # noqa: E402

# The pictures' paths are in the journal, so they are the same for everybody.
WORK = Path("/tmp/maskbeam_journal")
PICTURES = 8
OPTIONS: dict[str, list[object]] = {
    "plain": [],
    "everything": ["--overlays", 3, "--probabilities"],
    "no_masks": ["--mask_format", "none"],
    "tar": ["--mask_format", "tar"],
}


def main() -> None:
    """Runs the jobs and stores what they left."""
    folder = HERE / sys.argv[1]
    shutil.rmtree(WORK, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    archive = make_archive(WORK / "archive")
    for name in archive.image_ids[PICTURES:]:
        (archive.images / name).unlink()
        archive.mask_path(name).unlink(missing_ok=True)
    (archive.images / "broken.png").write_bytes(b"no picture")
    shutil.copy(archive.images / archive.image_ids[0], archive.images / "no truth.png")
    archive.mask_path(archive.image_ids[1]).write_bytes(b"no mask")
    cases = []
    for name, options in OPTIONS.items():
        sources = ["--input", archive.images, "--ground_truth", archive.masks, "--max_failure_ratio", 1]
        finished = run_job(WORK / name, *sources, *options)
        assert finished.status == 0, finished.err
        parts = sorted((WORK / name / "_progress/journal").iterdir())
        content = b"".join(part.read_bytes() for part in parts)
        (folder / f"{name}.jsonl.gz").write_bytes(content)
        outcomes = {image_id: parse_entry(line) for image_id, line in entries(content)}
        pictures = located(str(archive.images), str(archive.masks))
        for picture in pictures:
            picture["overlay"] = (WORK / name / f"overlays/{picture['image_id']}.png").exists()
        cases.append(
            {
                "name": name,
                "pictures": pictures,
                "recorded": {
                    image_id: {"type": type(outcome).__name__, **asdict(outcome)}
                    for image_id, outcome in sorted(outcomes.items())
                },
                "parts": {
                    f"masks/{path.name}": path.stat().st_size for path in (WORK / name / "masks").glob("part-*.tar")
                },
            }
        )
    (folder / "expected.json").write_text(json.dumps(cases, separators=(",", ":"), ensure_ascii=False) + "\n")
    shutil.rmtree(WORK)


def located(images: str, masks: str) -> list[dict[str, Any]]:
    """The pictures and their truths as the job finds them: URI, size and version."""
    groups = parse_sources([images], "--input")
    truths = parse_truths([masks], groups)
    by_key: dict[str, tuple[list[Listed], list[Any]]] = {}
    for place, sources in enumerate((groups[0], truths[0])):
        for listed in listed_of(sources):
            pair_of = by_key.setdefault(listed.pairing_key, ([], []))
            pair_of[0].append(listed) if place == 0 else pair_of[1].append(listed.file)
    found = [one for pictures, files in by_key.values() for one in pair(pictures, files).located]
    return [
        {
            "image_id": one.image_id,
            "image": [one.image.uri, one.image.size_bytes, one.image.version],
            "truth": [one.truth.uri, one.truth.size_bytes, one.truth.version] if one.truth else None,
        }
        for one in sorted(found, key=lambda one: one.image_id)
    ]


def listed_of(sources: Any) -> list[Listed]:
    """All files of some sources."""
    each: list[Source] = list(sources)
    return [item for source in each for item in source.items() if isinstance(item, Listed)]


if __name__ == "__main__":
    main()
