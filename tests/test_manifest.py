"""Manifests: CSV and JSON lines as people and programs write them, and what is refused."""

import json
from pathlib import Path

import pytest

from pipeline.core.errors import OptionError
from pipeline.sources.manifest import BrokenRow, ManifestRow, read_manifest


def rows_of(path: Path) -> list[ManifestRow]:
    rows = list(read_manifest(str(path)))
    assert all(isinstance(row, ManifestRow) for row in rows)
    return [row for row in rows if isinstance(row, ManifestRow)]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_paths_count_from_the_manifests_own_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.png", "12345")
    manifest = write(
        tmp_path / "list.csv", f"image,mask\nin/a.png,in/a_mask.png\n{tmp_path}/b.png,\ngs://b/c.png,s3://b/c.png\n"
    )
    first, second, third = rows_of(manifest)
    assert (first.image.uri, first.image.size_bytes) == (f"{tmp_path}/in/a.png", 5)
    assert first.mask is not None
    assert first.mask.uri == f"{tmp_path}/in/a_mask.png"
    assert (second.image.uri, second.image.size_bytes, second.mask) == (f"{tmp_path}/b.png", -1, None)
    assert third.image.uri == "gs://b/c.png"
    assert third.mask is not None
    assert third.mask.uri == "s3://b/c.png"


def test_ids_are_the_column_or_the_path_below_the_common_parent(tmp_path: Path) -> None:
    manifest = write(tmp_path / "l.csv", "image,image_id\n/data/x/a.png,\n/data/y/b.png,\n/data/y/c.png,mine/c\n")
    assert [row.image_id for row in rows_of(manifest)] == ["x/a.png", "y/b.png", "mine/c"]
    manifest = write(tmp_path / "m.csv", "image\npets/a.png\npets/b.png\n")
    assert [row.image_id for row in rows_of(manifest)] == ["a.png", "b.png"]
    manifest = write(tmp_path / "n.csv", "image\na.png\npets/b.png\n")
    assert [row.image_id for row in rows_of(manifest)] == ["a.png", "pets/b.png"]


def test_parents_are_compared_by_folders_not_by_letters(tmp_path: Path) -> None:
    manifest = write(tmp_path / "l.csv", "image\npets/a.png\npets_2/b.png\n")
    assert [row.image_id for row in rows_of(manifest)] == ["pets/a.png", "pets_2/b.png"]


def test_csv_as_programs_write_it(tmp_path: Path) -> None:
    text = '\ufeffimage,image_id,site\r\n"a,1.png","say ""hi""", north \r\n\r\nb.png,b,"two\r\nlines"\r\n'
    first, second = rows_of(write(tmp_path / "l.csv", text))
    assert first.image.uri == f"{tmp_path}/a,1.png"
    assert first.image_id == 'say "hi"'
    assert first.columns == (("site", "north"),)
    assert second.columns == (("site", "two\r\nlines"),)


def test_json_lines_take_numbers_and_skip_nulls_and_blank_lines(tmp_path: Path) -> None:
    lines = [{"image": "a.png", "mask": None, "site": 7, "tags": ["x"]}, {"image": "b.png", "image_id": "b"}]
    text = "\n\n".join(json.dumps(line) for line in lines)
    for ending in ("jsonl", "ndjson", "JSONL"):
        first, second = rows_of(write(tmp_path / f"l.{ending}", text))
        assert (first.image_id, first.mask) == ("a.png", None)
        assert first.columns == (("site", "7"), ("tags", '["x"]'))
        assert second.image_id == "b"


def test_both_kinds_say_the_same(tmp_path: Path) -> None:
    lines = [{"image": f"pets/{n}.png", "image_id": f"id/{n}", "mask": f"masks/{n}.png", "site": "s"} for n in range(3)]
    as_json = write(tmp_path / "l.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    as_csv = write(
        tmp_path / "l.csv", "image,image_id,mask,site\n" + "".join(",".join(line.values()) + "\n" for line in lines)
    )
    assert rows_of(as_json) == rows_of(as_csv)


def test_a_row_without_an_image_is_one_failure(tmp_path: Path) -> None:
    manifest = write(tmp_path / "l.csv", "image,site\na.png,north\n,south\nb.png,west\n")
    first, failure, last = read_manifest(str(manifest))
    assert isinstance(failure, BrokenRow)
    assert "line 3" in failure.message
    assert isinstance(first, ManifestRow)
    assert isinstance(last, ManifestRow)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("l.csv", "", "no column 'image'"),
        ("l.jsonl", '{"picture": "a.png"}\n', "no column 'image'"),
        ("l.csv", "picture,mask\na.png,b.png\n", "no column 'image'"),
        ("l.csv", 'image\n"a.png\n', "line"),
        ("l.csv", b"image\n\xff\xfe.png\n", "not UTF-8"),
        ("l.jsonl", '{"image": "a.png"}\n{"image": \n', "line 2, is not JSON"),
        ("l.jsonl", '["a.png"]\n', "line 1, is not a JSON object"),
        ("l.jsonl", b'{"image": "\xff"}\n', "not UTF-8"),
    ],
)
def test_what_is_no_manifest_is_refused_in_one_line(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    manifest = write(tmp_path / name, content)
    with pytest.raises(OptionError, match=said) as caught:
        list(read_manifest(str(manifest)))
    assert str(manifest) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_no_system_takes_is_left_to_the_read(tmp_path: Path) -> None:
    (row,) = rows_of(write(tmp_path / "l.jsonl", '{"image": "a\\u0000.png", "image_id": "a"}\n'))
    assert row.image.size_bytes == -1
