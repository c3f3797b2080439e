"""The resume journal: what is written is read, what is spoilt is left out, and other versions' journals are read."""

import gzip
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from records_of import values_of

from pipeline.core.errors import StorageError
from pipeline.core.records import Failure, OutputFile, PictureRecord
from pipeline.output import journal
from pipeline.output.delivery import Delivery
from pipeline.output.earlier_run import EarlierPath, read_earlier
from pipeline.output.journal import Journal
from pipeline.output.journal_format import FORMAT, encode_member, entries, entry_line, parse_entry

VERSION_1 = Path(__file__).resolve().parent / "data" / "journal_v1"
VERSION_2 = Path(__file__).resolve().parent / "data" / "journal_v2"

RECORD = PictureRecord(
    image_id="a/ü\u2028\n.png",
    source_uri="/x/a\udcff.png",
    group="g",
    width=4,
    height=3,
    source_bytes=99,
    fingerprint="f00d",
    values=values_of((5, 7), (0, 5, 3, 7)),
    measured="beef",
    files=(OutputFile("mask", "d1", 81, 4_000_000_000, "masks/a.tar", 512), OutputFile("overlay", "d2", 7, 0)),
    pixel_area_m2=0.25,
    truth_error_type="Broken",
    truth_message="it's broken",
)
FAILURE = Failure("b.png", "/x/b.png", "decode", "Broken", 'it\'s "broken"\n', "beef")


def parts_of(output: Path) -> list[Path]:
    return sorted((output / "_progress/journal").glob("*.jsonl.gz"))


def outcomes_of(content: bytes) -> list[Any]:
    return [parse_entry(line) for _, line in entries(content)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    book = Journal(str(tmp_path), interval_s=60)
    book.add([RECORD, FAILURE])
    assert parts_of(tmp_path) == []
    book.flush()
    plain = replace(RECORD, values=values_of((5, 7)), pixel_area_m2=None, files=(), truth_error_type="")
    book.add([plain])
    book.flush()
    (part,) = parts_of(tmp_path)
    assert outcomes_of(part.read_bytes()) == [RECORD, FAILURE, plain]


def test_outcomes_reach_the_disk_by_time_and_by_number(tmp_path: Path) -> None:
    by_number = Journal(str(tmp_path / "n"), interval_s=60, max_pending=3)
    by_number.add([RECORD] * 2)
    assert parts_of(tmp_path / "n") == []
    by_number.add([RECORD])
    assert len(outcomes_of(parts_of(tmp_path / "n")[0].read_bytes())) == 3
    by_time = Journal(str(tmp_path / "t"), interval_s=0.05)
    by_time.add([RECORD])
    deadline = time.monotonic() + 10
    while not parts_of(tmp_path / "t") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert outcomes_of(parts_of(tmp_path / "t")[0].read_bytes()) == [RECORD]


class NotingDelivery(Delivery):
    """Notes what is asked of it, and may fail."""

    def __init__(self, noted: list[str]) -> None:
        super().__init__("/nowhere")
        self._noted = noted
        self.fails = False

    def flush(self) -> None:
        if self.fails:
            raise StorageError("the output can't be written: no room for masks")
        self._noted.append("files")

    def seal(self) -> None:
        self._noted.append("seal")


def test_files_are_stored_before_the_entries_that_name_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    write_part = journal.write_part

    def noting(*arguments: Any) -> None:
        noted.append("entries")
        write_part(*arguments)

    monkeypatch.setattr(journal, "write_part", noting)
    delivery = NotingDelivery(noted)
    book = Journal(str(tmp_path), None, delivery, interval_s=60, seal_bytes=400)
    book.add([RECORD])
    book.flush()
    assert noted == ["files", "entries"]
    # Where the files can't be stored no entry names them, until they are.
    delivery.fails = True
    book.add([FAILURE])
    with pytest.raises(StorageError, match="no room for masks"):
        book.flush()
    assert noted == ["files", "entries"]
    delivery.fails = False
    book.flush()
    assert noted == ["files", "entries"] * 2 + ["seal"]  # no tar file may become younger than a part that is sealed
    (part,) = parts_of(tmp_path)
    assert outcomes_of(part.read_bytes()) == [RECORD, FAILURE]


def test_full_parts_are_sealed(tmp_path: Path) -> None:
    book = Journal(str(tmp_path), max_pending=1, seal_bytes=2000)
    for number in range(40):
        book.add([replace(RECORD, image_id=f"{number}.png")])
    parts = parts_of(tmp_path)
    assert 3 < len(parts) < 40
    found = [outcome.image_id for part in parts for outcome in outcomes_of(part.read_bytes())]
    assert sorted(found) == sorted(f"{n}.png" for n in range(40))


def test_a_truncated_or_damaged_part_gives_its_whole_entries() -> None:
    members = [encode_member([entry_line(replace(RECORD, image_id=f"{n}"))]) for n in range(3)]
    whole = b"".join(members)
    for length in range(len(whole)):
        read = [image_id for image_id, _ in entries(whole[:length])]
        assert read == ["0", "1", "2"][: sum(length >= len(b"".join(members[: n + 1])) for n in range(3))]
    spoilt = bytearray(whole)
    spoilt[len(members[0]) + 40] ^= 0xFF
    assert [image_id for image_id, _ in entries(bytes(spoilt))] == ["0"]
    assert list(entries(b"no journal")) == []


def member_of(header: Any, *lines: str) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in (json.dumps(header), *lines)).encode())


def test_absent_fields_have_their_defaults_and_unknown_ones_are_ignored() -> None:
    entry = json.loads(entry_line(RECORD))
    later = entry | {"invented_later": [1, {"a": 2}]}
    later["files"] = [file | {"invented_later": 3} for file in entry["files"]]
    least = {name: entry[name] for name in ("kind", *list(RECORD.__dataclass_fields__)[:8])}
    content = member_of({"maskbeam_journal": FORMAT}, json.dumps(later), json.dumps(least))
    defaults = replace(RECORD, measured="", files=(), pixel_area_m2=None, truth_error_type="", truth_message="")
    assert outcomes_of(content) == [RECORD, defaults]


@pytest.mark.parametrize(
    "line",
    [
        "[]", "{}", "null", '["record",1]', "[NaN]", "{", '{"kind":"spell","image_id":"a"}',
        '{"kind":"record","image_id":7}', '{"kind":"record","image_id":"a"}', '{"kind":"failure","image_id":"a"}',
    ]
    + [
        json.dumps(json.loads(entry_line(RECORD)) | changes)
        for changes in ({"image_id": 7}, {"image_id": None}, {"pixel_area_m2": float("nan")}, {"kind": "spell"})
    ],
)  # fmt: skip
def test_what_is_no_entry_is_left_out(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own and ours)
        parse_entry(line)
    content = member_of({"maskbeam_journal": FORMAT}, line, entry_line(FAILURE).rstrip("\n"))
    assert outcomes_of(content) == [FAILURE]


@pytest.mark.parametrize("header", ["[]", '"maskbeam"', "{}", '{"maskbeam_journal":null}', "no json"])
def test_what_has_no_header_is_left_out(header: str) -> None:
    assert list(entries(gzip.compress(f"{header}\n{entry_line(FAILURE)}".encode()))) == []


def test_a_later_format_stops_the_job_with_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(member_of({"maskbeam_journal": FORMAT + 1}, entry_line(FAILURE)))
    with pytest.raises(StorageError, match=f"later version of maskbeam: its journal has format {FORMAT + 1}"):
        list(read_earlier(EarlierPath("journal", str(tmp_path / "a.jsonl.gz"), 1)))


def test_a_journal_that_cannot_be_written_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "_progress").write_text("a file where a folder must be")
    book = Journal(str(tmp_path), interval_s=0.01)
    book.add([RECORD])
    time.sleep(0.2)
    with pytest.raises(StorageError):
        book.add([RECORD])


def test_outcomes_stay_pending_until_they_and_their_masks_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = Delivery(str(tmp_path), packs_masks=True)
    done: list[str] = []
    fails = {"masks": True, "part": False}

    def flush() -> None:
        done.append("masks")
        if fails["masks"]:
            raise StorageError("full")

    def write(output: str, name: str, content: bytes) -> None:
        if output == str(tmp_path):  # the timer of another test's journal may still run
            done.append("part")
            if fails["part"]:
                raise StorageError("full")
        written_part(output, name, content)

    written_part = journal.write_part
    monkeypatch.setattr(delivery, "flush", flush)
    monkeypatch.setattr(journal, "write_part", write)
    book = Journal(str(tmp_path), None, delivery, interval_s=60)
    book.add([RECORD])
    with pytest.raises(StorageError):
        book.flush()
    # What says where the masks are is not written before them.
    assert done == ["masks"]
    fails |= {"masks": False, "part": True}
    book.add([FAILURE])
    with pytest.raises(StorageError):
        book.flush()
    fails["part"] = False
    book.flush()
    (part,) = parts_of(tmp_path)
    assert outcomes_of(part.read_bytes()) == [RECORD, FAILURE]
    assert done == ["masks", *["masks", "part"] * 2]


@pytest.mark.parametrize("case", json.loads((VERSION_1 / "expected.json").read_text()), ids=lambda case: case["name"])
def test_a_journal_of_version_1_is_read(case: dict[str, Any]) -> None:
    found = {
        outcome.image_id: outcome for outcome in outcomes_of((VERSION_1 / f"{case['name']}.jsonl.gz").read_bytes())
    }
    assert found.keys() == case["recorded"].keys()
    for image_id, then in case["recorded"].items():
        outcome = found[image_id]
        assert type(outcome).__name__ == then["type"]
        for name in ("source_uri", "group", "width", "height", "source_bytes", "stage", "error_type", "message"):
            assert getattr(outcome, name, None) == then.get(name)
        assert outcome.fingerprint == f"1:{then['fingerprint']}"
        if isinstance(outcome, PictureRecord):
            confusion = then["confusion"]
            assert outcome.values == values_of(then["area_px"], confusion and tuple(confusion))
            assert [file.size_bytes for file in outcome.files] == ([then["mask_bytes"]] if then["mask_uri"] else [])


@pytest.mark.parametrize("case", json.loads((VERSION_2 / "expected.json").read_text()), ids=lambda case: case["name"])
def test_a_journal_of_format_2_is_read(case: dict[str, Any]) -> None:
    found = {
        outcome.image_id: outcome for outcome in outcomes_of((VERSION_2 / f"{case['name']}.jsonl.gz").read_bytes())
    }
    assert found.keys() == case["recorded"].keys()
    for image_id, then in case["recorded"].items():
        outcome = found[image_id]
        assert type(outcome).__name__ == then.pop("type")
        now = json.loads(json.dumps(asdict(outcome)))
        assert {name: now[name] for name in then} == then
