"""Numbers in archives' headers: for any value, whole members are kept and the error is one failure."""

import gzip
import io
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_headers import (
    BytesSource,
    base_256,
    example,
    pax_record,
    pax_size,
    record_header,
    tar_header,
    tar_member,
)
from packing import tar_of
from PIL import Image
from small_archive import draw_picture, run_job

from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.records import Failure
from pipeline.sources.archives.listing import Entry, Rejected, list_archive
from pipeline.sources.archives.members import Member
from pipeline.sources.archives.tar import walk_tar
from pipeline.sources.reading import FileReader
from pipeline.sources.source import Listed
from pipeline.sources.sources import parse_sources

GOOD = {"a.png": b"first" * 300, "b.png": b"second" * 200}
TAR_FAULTS = {
    "octal -2000": tar_header("c.png", b"-2000"),
    "octal with a sign": tar_header("c.png", b"+2000"),
    "octal with a prefix": tar_header("c.png", b"0o2000"),
    "octal with a separator": tar_header("c.png", b"1_000"),
    "octal that is decimal": tar_header("c.png", b"999"),
    "base 256, 10**23": tar_header("c.png", base_256(10**23)),
    "base 256, the largest": tar_header("c.png", b"\x80" + b"\xff" * 11),
    "base 256, negative": tar_header("c.png", b"\xff" * 11 + b"\x00"),
    "pax -2000": pax_size("c.png", b"-2000"),
    "pax 10**23": pax_size("c.png", b"100000000000000000000000"),
    "pax 2**63": pax_size("c.png", b"9223372036854775808"),
    "pax of 5,000 digits": pax_size("c.png", b"9" * 5_000),
    "pax with a separator": pax_size("c.png", b"1_000"),
    "pax in Arabic digits": pax_size("c.png", "٣".encode()),
    "pax record of length -9": tar_member("pax", pax_record(b"size", b"9", b"-9"), b"x") + tar_header("c.png"),
    "pax record of length 0": tar_member("pax", pax_record(b"size", b"9", b"0"), b"x") + tar_header("c.png"),
    "pax record of length 10**23": tar_member("pax", pax_record(b"a", b"b", b"%d" % 10**23), b"x")
    + tar_header("c.png"),
    "a long name of -2000 bytes": tar_header("long", b"-2000", b"L") + tar_header("c.png"),
    "a long name of 10**23 bytes": tar_header("long", base_256(10**23), b"L") + tar_header("c.png"),
}
RECORD_FAULTS = {
    "2**64 - 1": record_header(2**64 - 1),
    "2**63": record_header(2**63),
    "2**63 - 1": record_header(2**63 - 1),
    "2**60": record_header(2**60 + 1),
}


def _listed(path: Path) -> tuple[dict[str, bytes], list[tuple[str, str]]]:
    """The bytes of the pictures that a source lists, by id, and its failures: id and error type."""
    [[source]] = parse_sources([str(path)], "--input")
    read = FileReader(str(path.parent))
    items = list(replace(source, spool=str(path.parent / SPOOL_FOLDER)).items())
    pictures = {item.image_id: read(item.file) for item in items if isinstance(item, Listed)}
    return pictures, [(item.image_id, item.error_type) for item in items if isinstance(item, Failure)]


def _tar(pictures: dict[str, bytes], fault: bytes) -> bytes:
    """The pictures, the fault, and a whole picture behind it that nothing leads to."""
    return b"".join(tar_member(*item) for item in pictures.items()) + fault + tar_member("after.png", b"after")


def _records(pictures: dict[str, bytes], fault: bytes) -> bytes:
    return b"".join(example(*item) for item in pictures.items()) + fault + example("after.png", b"after")


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("fault", TAR_FAULTS)
def test_a_number_that_no_tar_can_have_is_one_failure_after_the_good_members(
    fault: str, packed: bool, tmp_path: Path
) -> None:
    data = _tar(GOOD, TAR_FAULTS[fault])
    archive = tmp_path / ("x.tar.gz" if packed else "x.tar")
    archive.write_bytes(gzip.compress(data, 1) if packed else data)
    assert _listed(archive) == (GOOD, [("", "BrokenArchive")])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("fault", RECORD_FAULTS)
def test_a_length_that_no_record_can_have_is_one_failure_after_the_good_records(
    fault: str, packed: bool, tmp_path: Path
) -> None:
    data = _records(GOOD, RECORD_FAULTS[fault])
    archive = tmp_path / "x.tfrecord"
    archive.write_bytes(gzip.compress(data, 1) if packed else data)
    assert _listed(archive) == (GOOD, [("", "BrokenArchive")])


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("size", [10**6, 2**40, 2**60])
def test_a_size_beyond_the_end_is_an_archive_that_is_cut_off(size: int, packed: bool, tmp_path: Path) -> None:
    for name, data in (
        ("x.tar", _tar(GOOD, tar_header("c.txt", base_256(size)))),
        ("x.tfrecord", _records(GOOD, record_header(size))),
    ):
        archive = tmp_path / (name + ".gz" if packed and name == "x.tar" else name)
        archive.write_bytes(gzip.compress(data, 1) if packed else data)
        assert _listed(archive) == (GOOD, [("", "Truncated")])


def test_a_name_longer_than_any_file_system_takes_is_refused_and_not_kept(tmp_path: Path) -> None:
    names = ["n" * 4_092 + ".png", "n" * 4_093 + ".png", "n" * 900_000 + ".png"]
    archive = tmp_path / "x.tar"
    archive.write_bytes(tar_of(dict.fromkeys(names, b"data")))
    items = list(list_archive(str(archive), None))
    assert [item.name for item in items if isinstance(item, Entry)] == names[:1]
    refused = [item for item in items if isinstance(item, Rejected)]
    assert [item.error_type for item in refused] == ["UnsafeName", "UnsafeName"]
    assert max(len(item.name) for item in refused) < 100


def test_headers_for_all_members_behind_them_take_no_memory_that_grows() -> None:
    def record(header: int, number: int) -> bytes:
        return pax_record(b"GNU.sparse.%04d.%04d" % (header, number), b"v" * 900)

    parts = [
        tar_member("global", b"".join(record(header, number) for number in range(1_000)), b"g") for header in range(40)
    ]
    data = b"".join([*parts, tar_member("a.png", b"data"), bytes(1024)])
    tracemalloc.start()
    members = list(walk_tar(BytesSource(data)))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(member.name, member.not_plain) for member in members if isinstance(member, Member)] == [
        ("a.png", "a sparse file")
    ]
    assert peak_bytes < 8 << 20 < len(data) / 4


def test_a_job_keeps_the_good_pictures_of_archives_that_claim_too_much(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(draw_picture(7, 40, 30)).save(buffer, "PNG")
    good = dict.fromkeys(("a.png", "b.png"), buffer.getvalue())
    archives = {
        "negative.tar": _tar(good, TAR_FAULTS["octal -2000"]),
        "negative-packed.tar.gz": gzip.compress(_tar(good, TAR_FAULTS["octal -2000"])),
        "huge.tar": _tar(good, TAR_FAULTS["base 256, 10**23"]),
        "pax.tar": _tar(good, TAR_FAULTS["pax 10**23"]),
        "records.tfrecord": _records(good, RECORD_FAULTS["2**64 - 1"]),
    }
    arguments: list[object] = []
    for name, data in archives.items():
        (tmp_path / name).write_bytes(data)
        arguments += ["--input", tmp_path / name]
    job = run_job(tmp_path / "out", *arguments, "--max_failure_ratio", 1)
    assert job.status == 0, job.err
    assert sorted(job.masks) == sorted(f"{name.partition('.')[0]}/{picture}" for name in archives for picture in good)
    assert [(failure["source_uri"], failure["error_type"]) for failure in job.failures] == sorted(
        (str(tmp_path / name), "BrokenArchive") for name in archives
    )
