"""Other options or another model in the same output: what they change is made again, and nothing else is inferred."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_archive import TINY_MODEL, Archive, Finished, make_archive, packed_masks, run_job

PICTURES = 20


def everything_in(finished: Finished) -> dict[str, bytes]:
    """The bytes of all results but the summary, and what it says but for the run."""
    wanted = [path for path in finished.output.rglob("*") if path.is_file() and "_progress" not in path.parts]
    contents = {
        str(path.relative_to(finished.output)): path.read_bytes()
        for path in wanted
        if path.name not in ("summary.json", "report.html") and path.suffix != ".tar"
    }
    if packed := packed_masks(finished.output):
        # Which tar file holds a mask is chance; the tables must say it right.
        rows = [row | {"mask_uri": row["mask_uri"].partition("!")[2]} for row in finished.rows]
        places = {row["mask_uri"] for row in finished.rows}
        assert places == packed.keys()
        contents = {name: data for name, data in contents.items() if not name.endswith(".parquet")}
        contents |= {place.partition("!")[2]: data for place, data in packed.items()}
        contents["rows"] = repr(rows).encode()
    numbers = {name: value for name, value in finished.summary.items() if name != "run"}
    return contents | {"summary": json.dumps(numbers).encode()}


@dataclass(frozen=True)
class Kept:
    """An archive and a finished job with the default options, copied for each test.

    Args:
        archive: the pictures.
        output: the job's folder.
    """

    archive: Archive
    output: Path

    def run(self, output: Path, *options: object, model: Path = TINY_MODEL) -> Finished:
        sources = ["--input", self.archive.images, "--ground_truth", self.archive.masks]
        finished = run_job(output, *sources, *options, model=model)
        assert finished.status == 0, finished.err
        return finished


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    root = tmp_path_factory.mktemp("options")
    kept = Kept(make_archive(root / "archive"), root / "first")
    kept.run(kept.output)
    return kept


@pytest.fixture
def kept(first: Kept, tmp_path: Path) -> Kept:
    shutil.copytree(first.output, tmp_path / "out")  # with its times
    return Kept(first.archive, tmp_path / "out")


def counts(finished: Finished) -> tuple[int, int, int]:
    run = finished.summary["run"]
    return run["resumed"], run["updated"], run["inferred_again"]


def has_inferred(finished: Finished) -> bool:
    return "infer" in finished.summary["run"]["stages"]


def model_with(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The tiny model with other metadata."""
    shutil.copytree(TINY_MODEL, folder)
    metadata = json.loads((folder / "metadata.json").read_text())
    change(metadata)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


@pytest.mark.parametrize(
    ("options", "updated"),
    [
        (["--overlays", 6], 6),
        (["--ignore_label", 1], PICTURES),
        (["--label_map", "0=0,1=1,2=1"], PICTURES),
        (["--mask_format", "tar"], 0),
        (["--mask_format", "none", "--prune"], 0),
        (["--group_by_regex", "^([a-z]+)"], 0),
        (["--max_pixels", 50_000], 0),
    ],
    ids=lambda value: "_".join(map(str, value)).strip("-") if isinstance(value, list) else "",
)
def test_options_that_need_no_inference(kept: Kept, tmp_path: Path, options: list[object], updated: int) -> None:
    again = kept.run(kept.output, *options)
    assert counts(again) == (PICTURES, updated, 0)
    assert not has_inferred(again)
    assert everything_in(again) == everything_in(kept.run(tmp_path / "fresh", *options))
    # And back again.
    back = kept.run(kept.output)
    assert has_inferred(back) == ("none" in options)
    assert everything_in(back) == everything_in(kept.run(tmp_path / "plain"))


def test_another_ground_truth_only_counts_again(kept: Kept, tmp_path: Path) -> None:
    sources = ["--input", kept.archive.images]
    without = run_job(kept.output, *sources)
    assert (counts(without), has_inferred(without)) == ((PICTURES, PICTURES, 0), False)
    assert everything_in(without) == everything_in(run_job(tmp_path / "fresh", *sources))
    assert "(20 by an earlier run, 20 of them updated without inference)" in " ".join(without.out.split())
    with_truth = kept.run(kept.output)
    assert (counts(with_truth), has_inferred(with_truth)) == ((PICTURES, PICTURES, 0), False)
    assert everything_in(with_truth) == everything_in(kept.run(tmp_path / "plain"))


def test_probabilities_are_inferred_and_the_masks_stay(kept: Kept, tmp_path: Path) -> None:
    times = {path: path.stat().st_mtime_ns for path in (kept.output / "masks").rglob("*.png")}
    again = kept.run(kept.output, "--probabilities")
    assert counts(again) == (0, 0, PICTURES)
    assert "(20 inferred again, with their other files kept)" in " ".join(again.out.split())
    assert {path: path.stat().st_mtime_ns for path in (kept.output / "masks").rglob("*.png")} == times
    assert everything_in(again) == everything_in(kept.run(tmp_path / "fresh", "--probabilities"))
    idle = kept.run(kept.output, "--probabilities")
    assert counts(idle) == (PICTURES, 0, 0)


def test_colours_and_names_reach_masks_overlays_and_tables(kept: Kept, tmp_path: Path) -> None:
    def change(metadata: dict[str, Any]) -> None:
        metadata["classes"][1] |= {"name": "background", "color": "#102030"}

    kept.run(kept.output, "--overlays", 4)
    model = model_with(tmp_path / "model", change)
    again = kept.run(kept.output, "--overlays", 4, model=model)
    assert (counts(again), has_inferred(again)) == ((PICTURES, PICTURES, 0), False)
    assert everything_in(again) == everything_in(kept.run(tmp_path / "fresh", "--overlays", 4, model=model))
    palette = Image.open(again.output / f"masks/{kept.archive.image_ids[0]}.png").getpalette()
    assert palette is not None
    assert palette[3:6] == [0x10, 0x20, 0x30]
    assert "area_px_background" in again.rows[0]


def test_another_input_section_is_inferred_again(kept: Kept, tmp_path: Path) -> None:
    def change(metadata: dict[str, Any]) -> None:
        metadata["input"] |= {"height": 48}

    model = model_with(tmp_path / "model", change)
    again = kept.run(kept.output, "--prune", model=model)
    assert counts(again) == (0, 0, 0)
    assert everything_in(again) == everything_in(kept.run(tmp_path / "fresh", model=model))


def test_a_higher_limit_of_pixels_segments_what_was_too_large(kept: Kept, tmp_path: Path) -> None:
    sources = ["--input", kept.archive.images, "--max_failure_ratio", 1]
    limited = run_job(tmp_path / "limited", *sources, "--max_pixels", 15_000)
    segmented, failures = limited.summary["images"]["segmented"], limited.failures
    assert 0 < segmented < PICTURES
    again = run_job(tmp_path / "limited", *sources)
    assert counts(again) == (segmented, 0, 0)
    fresh = run_job(tmp_path / "fresh", *sources)
    assert everything_in(again) == everything_in(fresh)
    lowered = run_job(tmp_path / "limited", *sources, "--max_pixels", 15_000)
    assert lowered.failures == failures
    assert counts(lowered) == (segmented, 0, 0)


def test_a_copy_of_an_output_is_verified_and_not_inferred(kept: Kept, tmp_path: Path) -> None:
    kept.run(kept.output, "--mask_format", "tar", "--overlays", 3)
    copy = tmp_path / "copy"
    for path in sorted(kept.output.rglob("*"), key=lambda path: "masks" in path.parts):  # the journal first
        if path.is_file():
            (copy / path.relative_to(kept.output)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy / path.relative_to(kept.output))
    later = 1 + max(path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file())
    for folder in ("masks", "overlays"):
        for path in (copy / folder).rglob("*"):
            os.utime(path, ns=(later, later))
    again = kept.run(copy, "--mask_format", "tar", "--overlays", 3)
    assert (counts(again), has_inferred(again)) == ((PICTURES, PICTURES, 0), False)
    assert everything_in(again) == everything_in(kept.run(kept.output, "--mask_format", "tar", "--overlays", 3))


@pytest.mark.parametrize("mask_format", ["png", "tar"])
def test_masks_that_were_altered_are_made_again(kept: Kept, tmp_path: Path, mask_format: str) -> None:
    options = ["--mask_format", mask_format]
    expected = everything_in(kept.run(kept.output, *options))
    masks = [path for path in (kept.output / "masks").rglob("*") if path.is_file()]
    altered = masks if mask_format == "tar" else masks[:3]
    for path in altered:
        content = np.frombuffer(path.read_bytes(), np.uint8).copy()
        if mask_format == "tar":
            place = content.tobytes().index(b"\x89PNG")
            content[place + 60 : place + 90] = 0  # the first mask of each tar file
        else:
            content[60:90] = 0
        path.write_bytes(content.tobytes())
    again = kept.run(kept.output, *options)
    assert everything_in(again) == expected
    assert again.summary["run"]["resumed"] == PICTURES - len(altered)
    assert has_inferred(again)
