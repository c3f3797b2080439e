"""Sources: what each names, under which ids, and which names are refused."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import OptionError
from pipeline.core.records import Failure, FileRef
from pipeline.core.wording import ignored_text
from pipeline.sources.checks import check_pictures
from pipeline.sources.folders import FolderSource
from pipeline.sources.ignored import MAX_ENDINGS, Ignored
from pipeline.sources.source import Listed, Source, unsafe_name
from pipeline.sources.sources import parse_sources, parse_truths


def parse(*texts: object) -> list[Source]:
    """All sources of some texts, flat."""
    return [source for group in parse_sources([str(text) for text in texts], "--input") for source in group]


def listed(sources: Iterable[Source]) -> tuple[list[str], list[Failure], int]:
    """Ids, failures and the number of ignored files."""
    items = [item for source in sources for item in source.items()]
    ids = [item.image_id for item in items if isinstance(item, Listed)]
    failures = [item for item in items if isinstance(item, Failure)]
    return ids, failures, sum(item.files for item in items if isinstance(item, Ignored))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for name in ("a.jpg", "deep/b.PNG", "deep/er/c.tiff", "readme.txt", "deep/._a.jpg", "noending", ".jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1234")
    return root


def test_a_folder_is_walked_and_other_files_are_counted(folder: Path) -> None:
    sources = parse(folder)
    assert [type(source) for source in sources] == [FolderSource]
    assert listed(sources) == (["a.jpg", "deep/b.PNG", "deep/er/c.tiff"], [], 4)


def test_ignored_files_are_counted_by_their_endings(folder: Path) -> None:
    (item,) = [item for item in parse(folder)[0].items() if isinstance(item, Ignored)]
    assert item == Ignored((("", 2), ("._*", 1), (".txt", 1)))
    assert item.files == 4
    assert ignored_text(dict(item.by_ending)) == "4 other files are ignored: 2 without ending, 1 ._*, 1 .txt"
    many = {".a": 1, ".b": 2, ".c": 1, ".d": 1_000}
    assert ignored_text(many) == "1,004 other files are ignored: 1,000 .d, 2 .b, 1 .a, …"


def test_names_of_many_endings_take_bounded_room(tmp_path: Path) -> None:
    for number in range(MAX_ENDINGS + 40):
        (tmp_path / f"a.{number:03}").write_bytes(b"")
    for name in ("b.001", "odd.\x1b[2J", "long." + 60 * "x"):
        (tmp_path / name).write_bytes(b"")
    (item,) = parse(tmp_path)[0].items()
    assert isinstance(item, Ignored)
    counts = dict(item.by_ending)
    assert item.files == MAX_ENDINGS + 43
    assert (counts[".001"], counts["other"], len(counts)) == (2, 42, MAX_ENDINGS + 1)


def test_a_trailing_slash_changes_no_id(folder: Path) -> None:
    assert listed(parse(f"{folder}/")) == listed(parse(folder))


def test_a_listed_file_has_its_size_and_version(folder: Path) -> None:
    first = next(item for item in parse(folder)[0].items() if isinstance(item, Listed))
    assert first.file == FileRef(str(folder / "a.jpg"), 4, str((folder / "a.jpg").stat().st_mtime_ns))


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("pets/*.jpg", ["a.jpg"]),
        ("pets/deep/*", ["b.PNG"]),
        ("pets/**/*.*", ["a.jpg", "deep/b.PNG", "deep/er/c.tiff"]),
        ("p*/deep/b.*", ["pets/deep/b.PNG"]),
        ("pets/de[e]p/?.PNG", ["deep/b.PNG"]),
        ("pets/a.jpg", ["a.jpg"]),
    ],
)
def test_ids_of_a_glob_are_relative_to_its_fixed_part(folder: Path, pattern: str, ids: list[str]) -> None:
    assert listed(parse(folder.parent / pattern))[0] == ids


def test_a_folder_whose_name_looks_like_a_glob_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "scans [2024]").mkdir()
    (tmp_path / "scans [2024]" / "a.png").write_bytes(b"")
    assert listed(parse(tmp_path / "scans [2024]"))[0] == ["a.png"]


def test_several_sources_are_distinguished_by_their_base_names(tmp_path: Path) -> None:
    for name in ("north/a.png", "south/a.png", "west/a.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "list.csv").write_text("image\nwest/a.png\n")
    ids, _, _ = listed(parse(tmp_path / "north", tmp_path / "south" / "*.png", tmp_path / "list.csv"))
    assert ids == ["north/a.png", "south/a.png", "list/a.png"]


def test_equal_base_names_are_refused(tmp_path: Path) -> None:
    for name in ("1/pets", "2/pets"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(OptionError, match="two sources have the base name 'pets'"):
        parse(tmp_path / "1" / "pets", tmp_path / "2" / "pets")
    with pytest.raises(OptionError, match="base name 'pets'"):
        parse(tmp_path / "1" / "pets", tmp_path / "2" / "pets" / "*.png")


def test_masks_take_the_prefix_of_their_pictures(tmp_path: Path) -> None:
    for name in ("1/pictures", "2/photos", "1/masks", "2/masks"):
        (tmp_path / name).mkdir(parents=True)
    groups = parse_sources([str(tmp_path / "1/pictures"), str(tmp_path / "2/photos")], "--input")
    truths = parse_truths([str(tmp_path / "1/masks"), str(tmp_path / "2/masks")], groups)
    assert [[truth.prefix for truth in group] for group in truths] == [["pictures"], ["photos"]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty source"),
        ("nowhere", "no such file or folder"),
        ("nowhere/list.csv", "no such file"),
        ("nowhere/pictures.zip", "no such file"),
        ("file.txt", "neither a folder"),
        ("ftp://host/pictures", "unknown kind of storage ftp://"),
        ("hdfs://host/a.png", "unknown kind of storage hdfs://"),
    ],
)
def test_what_is_no_source_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(OptionError, match=said) as caught:
        parse(text)
    assert str(caught.value).startswith("--input")
    assert "\n" not in str(caught.value)


def test_whether_anything_is_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("")
    check_pictures("--input in", parse(folder))
    for nothing, said in (("empty", ""), ("texts", "; 1 other file is ignored: 1 .txt"), ("*.png", "")):
        with pytest.raises(OptionError, match=rf"^--input in: has no picture{said}$"):
            check_pictures("--input in", parse(tmp_path / nothing))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (b"new\nline.png", "control characters"),
        (b"bell\x07.png", "control characters"),
        (b"back\\slash.png", "backslash"),
    ],
)
def test_a_name_that_no_output_can_have_is_a_failure(tmp_path: Path, name: bytes, said: str) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"")
    ids, failures, _ = listed(parse(tmp_path))
    assert ids == []
    assert [(failure.stage, failure.error_type) for failure in failures] == [("locate", "UnsafeName")]
    assert said in failures[0].message


def test_a_name_that_is_not_utf_8_is_a_failure_that_can_be_written(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    ids, failures, _ = listed(parse(tmp_path))
    assert ids == []
    assert failures[0].error_type == "UnsafeName"
    assert "not UTF-8" in failures[0].message
    assert (failures[0].image_id + failures[0].source_uri).encode("utf-8")


@pytest.mark.parametrize(
    "name", ["a.png", "deep/er/a b.png", "ünï.jpg", "名前.png", "a..b.png", ".a/b.png", ":d/e.png"]
)
def test_ordinary_names_are_safe(name: str) -> None:
    assert unsafe_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a.png",
        "a//b.png",
        "../a.png",
        "a/../b.png",
        "a/./b.png",
        "C:/a.png",
        "a\\b.png",
        "a\0.png",
        "a/",
        "\udcff",
    ],
)
def test_dangerous_names_are_not(name: str) -> None:
    assert unsafe_name(name) is not None


@given(st.text(alphabet=st.sampled_from("ab./\\:\n ü"), max_size=12))
def test_a_safe_name_stays_below_the_output(name: str) -> None:
    if unsafe_name(name) is None:
        below = os.path.normpath(os.path.join("/out/masks", name))
        assert below == f"/out/masks/{name}"


@pytest.mark.parametrize(
    ("image_id", "key"),
    [("a.jpg", "a"), ("deep/a.b.PNG", "deep/a.b"), ("a", "a"), ("a.v1", "a.v1"), ("jpg/a", "jpg/a")],
)
def test_the_pairing_key_is_the_id_without_a_pictures_ending(image_id: str, key: str) -> None:
    assert Listed(image_id, FileRef("x")).pairing_key == key
