"""Whether an output may be used, and what of an earlier run is read or deleted before anything is written."""

import json
from pathlib import Path

import pytest

from pipeline.core.errors import OptionError, StorageError
from pipeline.output.earlier_run import (
    ERROR,
    OVERWRITE,
    RESUME,
    EarlierPath,
    FoundFile,
    FoundTar,
    Marker,
    begin,
    begin_writing,
    check_output,
    holds_results,
    read_earlier,
)
from pipeline.output.journal_format import FORMAT

TAR = f"part-{'0' * 16}-00000.tar"
LEFT = ("_progress/tmp/cut-off", f"_progress/packed/masks/{TAR}")
JOURNAL = ("_progress/journal/a.jsonl.gz", "_progress/journal/b.jsonl.gz")
RESULTS = (
    "summary.json",
    "images/part-00000-of-00001.parquet",
    "masks/a.png.png",
    f"masks/{TAR}",
    "overlays/a.png.png",
)


def names_of(output: Path) -> set[str]:
    return {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output of a run that was stopped."""
    for name in (*LEFT, *JOURNAL, *RESULTS, "_progress/journal/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    (tmp_path / "_progress/output.json").write_bytes(Marker("d1").to_bytes())
    return tmp_path


def test_a_new_output_is_marked_and_has_nothing_of_earlier_runs(tmp_path: Path) -> None:
    assert begin(str(tmp_path), RESUME, None) == []
    assert names_of(tmp_path) == {"_progress/output.json"}
    assert holds_results(str(tmp_path))
    assert Marker.read(str(tmp_path)) == Marker("", FORMAT)


def test_of_an_earlier_run_nothing_is_deleted_but_what_was_cut_off(output: Path) -> None:
    before = names_of(output)
    paths = begin(str(output), RESUME, None)
    assert names_of(output) == before - set(LEFT)
    assert {(one.kind, one.uri.removeprefix(f"{output}/")) for one in paths} == {
        *(("journal", name) for name in JOURNAL),
        *((name, folder) for name, folder in (("mask", "masks"), ("overlay", "overlays"))),
        ("probabilities", "probabilities"),
    }
    for one in paths:
        if one.kind == "journal":
            assert one.written_ns == Path(one.uri).stat().st_mtime_ns


def test_with_overwrite_the_journal_is_deleted_so_that_a_killed_job_does_not_resume_it(output: Path) -> None:
    before = names_of(output)
    paths = begin(str(output), OVERWRITE, None)
    assert {one.kind for one in paths} == {"mask", "overlay", "probabilities"}
    assert names_of(output) == before - {*LEFT, *JOURNAL, "_progress/journal/notes.txt"}


def test_the_summary_is_deleted_before_the_marker_names_another_model(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.output import earlier_run

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(earlier_run.filesystem, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left"):
            begin_writing(str(output), Marker("d2"))
    assert "summary.json" not in names_of(output)
    assert Marker.read(str(output)) == Marker("d1")
    begin_writing(str(output), Marker("d2"))
    assert Marker.read(str(output)) == Marker("d2")


def test_masks_are_found_as_files_and_in_tar_files(output: Path) -> None:
    (output / "masks/notes.txt").write_bytes(b"mine")
    (output / "masks/part-mine.tar").write_bytes(b"mine")
    found = list(read_earlier(EarlierPath("mask", str(output / "masks"))))
    written_ns = {path.name: path.stat().st_mtime_ns for path in (output / "masks").iterdir()}
    assert sorted(found, key=repr) == [
        FoundFile("mask", "a.png", 5, written_ns["a.png.png"]),
        FoundTar(f"masks/{TAR}", 5, written_ns[TAR]),
    ]


@pytest.mark.parametrize("existing", [RESUME, OVERWRITE, ERROR])
def test_which_outputs_may_be_used(existing: str, output: Path, tmp_path: Path) -> None:
    check_output(str(tmp_path / "fresh"), existing, [])
    if existing == ERROR:
        with pytest.raises(OptionError, match="has results"):
            check_output(str(output), existing, [])
    else:
        check_output(str(output), existing, [])


def test_a_later_format_is_refused_unless_the_run_starts_over(output: Path) -> None:
    marker = {"maskbeam_output": 1, "journal_format": FORMAT + 1, "inference": ""}
    (output / "_progress/output.json").write_text(json.dumps(marker))
    check_output(str(output), OVERWRITE, [])
    with pytest.raises(OptionError, match=f"has format {FORMAT + 1}"):
        check_output(str(output), RESUME, [])


@pytest.mark.parametrize("folder", ["masks", "overlays", "probabilities"])
def test_files_that_maskbeam_did_not_write_are_not_deleted(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    check_output(str(tmp_path), RESUME, [])
    (tmp_path / folder / "mine.png").write_bytes(b"1")
    for existing in (RESUME, OVERWRITE):
        with pytest.raises(OptionError, match=f"a folder {folder} that maskbeam did not write"):
            check_output(str(tmp_path), existing, [])
    (tmp_path / "summary.json").write_text("{}")
    check_output(str(tmp_path), RESUME, [])
