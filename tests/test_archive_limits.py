"""What archives unpack to: the same limits in every compressed form, and memory and spool that stay bounded."""

import gzip
import io
import random
import shutil
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from bombs import MIB, dense, gzip_of, huge_example, large_tar
from hostile_headers import example, record_header, tar_header, tar_member
from memory_growth import growth
from packing import example_of, tar_of, tfrecord_of, varint, zip_of
from PIL import Image
from small_archive import draw_picture, run_job

from pipeline.core.errors import TRUTH_STAGE
from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.limits import max_file_bytes
from pipeline.core.records import Failure
from pipeline.sources.archives.unpacking import BOMB_BYTES, BOMB_RATIO, MAX_MEMBER_BYTES
from pipeline.sources.reading import FileReader
from pipeline.sources.source import Listed
from pipeline.sources.sources import parse_sources

# The documented limits as numbers: a changed constant of the code must fail.
GIBIBYTE = 1 << 30
MAX_GROWN_BYTES = 96 * MIB
"""A part of the spool, put together, and pieces; the pictures here are up to ten times as large."""


@dataclass(frozen=True)
class _Found:
    """What a source lists.

    Args:
        pictures: the listed files, by id.
        faults: id or name in the archive, stage and error type.
        spool_bytes: what the spool takes.
    """

    pictures: dict[str, Listed]
    faults: list[tuple[str, str, str]]
    spool_bytes: int


def _list(path: Path, max_bytes: int = MAX_MEMBER_BYTES) -> _Found:
    [[source]] = parse_sources([str(path)], "--input")
    spool = path.parent / SPOOL_FOLDER
    items = list(replace(source, spool=str(spool), max_bytes=max_bytes).items())
    return _Found(
        {item.image_id: item for item in items if isinstance(item, Listed)},
        [(item.image_id, item.stage, item.error_type) for item in items if isinstance(item, Failure)],
        sum(part.stat().st_size for part in spool.rglob("*") if part.is_file()),
    )


def test_the_example_that_is_put_together_is_an_example(tmp_path: Path) -> None:
    path = tmp_path / "x.tfrecord"
    path.write_bytes(gzip_of([*huge_example("a.png", 2, b"12345678" * (MIB // 8)), example("b.png", b"b")]))
    found = _list(path)
    assert found.faults == []
    read = FileReader(str(tmp_path))
    assert read(found.pictures["a.png"].file) == b"12345678" * (MIB // 4)
    assert read(found.pictures["b.png"].file) == b"b"


@pytest.mark.parametrize(
    ("records", "mebibytes"), [(1, 200), pytest.param(3, 1_000, marks=pytest.mark.full)], ids=["small", "3 GB"]
)
def test_a_gzipped_record_that_is_a_bomb_is_refused_in_bounded_memory(
    records: int, mebibytes: int, tmp_path: Path
) -> None:
    bombs = [part for number in range(records) for part in huge_example(f"bomb{number}.png", mebibytes, bytes(MIB))]
    path = tmp_path / "x.tfrecord"
    path.write_bytes(gzip_of([example("a.png", b"before"), *bombs, example("b.png", b"after")]))
    with growth() as grown:
        found = _list(path)
    assert sorted(found.pictures) == ["a.png", "b.png"]
    assert found.faults == [(f"bomb{number}.png", "locate", "TooLarge") for number in range(records)]
    assert grown[0] < MAX_GROWN_BYTES
    assert found.spool_bytes < 2 * path.stat().st_size + MIB


@pytest.mark.parametrize("mebibytes", [150, pytest.param(1_000, marks=pytest.mark.full)])
def test_a_compressed_member_within_the_limits_is_copied_in_bounded_memory(mebibytes: int, tmp_path: Path) -> None:
    piece = dense(78)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(large_tar(mebibytes, piece))
    assert BOMB_BYTES < mebibytes * MIB < BOMB_RATIO * path.stat().st_size
    with growth() as grown:
        found = _list(path)
    assert found.faults == []
    assert grown[0] < MAX_GROWN_BYTES
    assert found.spool_bytes < 2 * path.stat().st_size
    read = FileReader(str(tmp_path))
    assert read(found.pictures["a.png"].file) == b"before"
    assert read(found.pictures["b.png"].file) == b"after"
    large = read(found.pictures["large0.png"].file)
    assert len(large) == mebibytes * MIB
    assert all(large[at : at + MIB] == piece for at in range(0, len(large), MIB))


def test_many_members_that_are_each_within_the_limits_fill_no_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.tgz"
    path.write_bytes(large_tar(60, bytes(MIB), members=8))
    assert path.stat().st_size < MIB
    with growth() as grown:
        found = _list(path)
    assert found.faults == []
    assert grown[0] < MAX_GROWN_BYTES
    # Only the first was not yet known to be part of a stream that unpacks to so much.
    assert found.spool_bytes < 60 * MIB + 8 * path.stat().st_size
    assert FileReader(str(tmp_path))(found.pictures["large7.png"].file) == bytes(60 * MIB)


@pytest.mark.parametrize(("ratio", "faults"), [(40, []), (400, [("large0.png", "locate", "TooLarge")])])
def test_the_ratio_is_that_of_the_member_and_not_of_what_was_read(
    ratio: int, faults: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    # The whole archive is one read of storage, noise before the member included.
    noise = random.Random(1).randbytes(MIB)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip_of([tar_member("noise.png", noise), _tail(ratio)]))
    assert path.stat().st_size < 8 * MIB
    assert _list(path).faults == faults


def _tail(ratio: int) -> bytes:
    return tar_header("large0.png", 70 * MIB) + dense(ratio) * 70 + bytes(1024)


def test_longer_pictures_than_the_job_would_read_are_not_copied(tmp_path: Path) -> None:
    noise = random.Random(1)
    files = {f"{number}.png": noise.randbytes(size) for number, size in enumerate((900, 2 * MIB, 2 * MIB + 1))}
    (tmp_path / "x.tar.gz").write_bytes(tar_of(files, gzip=True))
    records = tfrecord_of(
        example_of({"image/encoded": data, "image/filename": name.encode()}) for name, data in files.items()
    )
    (tmp_path / "x.tfrecord").write_bytes(gzip.compress(records, 1))
    for name in ("x.tar.gz", "x.tfrecord"):
        found = _list(tmp_path / name, max_bytes=2 * MIB)
        assert sorted(found.pictures) == ["0.png", "1.png"]
        assert found.faults == [("2.png", "locate", "TooLarge")]
        # Its claim alone refuses it, and what doesn't shrink is copied as it is.
        assert found.spool_bytes == 900 + 2 * MIB
        shutil.rmtree(tmp_path / SPOOL_FOLDER)


def test_a_job_passes_the_maximum_picture_size_to_its_sources(tmp_path: Path) -> None:
    max_pixels = 10_000
    size = max_file_bytes(max_pixels) + 1
    parts: list[bytes | tuple[bytes, int]] = [tar_header("large.png", size), (dense(30), size // MIB)]
    rest = size % MIB
    buffer = io.BytesIO()
    Image.fromarray(draw_picture(7, 40, 30)).save(buffer, "PNG")
    parts += [bytes(rest + -size % 512), tar_member("good.png", buffer.getvalue()), bytes(1024)]
    (tmp_path / "x.tar.gz").write_bytes(gzip_of(parts))
    job = run_job(
        tmp_path / "out", "--input", tmp_path / "x.tar.gz", "--max_pixels", max_pixels, "--max_failure_ratio", 1
    )
    assert sorted(job.masks) == ["good.png"]
    [failure] = job.failures
    assert (failure["image_id"], failure["stage"], failure["error_type"]) == ("large.png", "locate", "TooLarge")
    assert f"{size - 1:,}" in failure["message"]


def test_a_mask_that_is_too_large_costs_the_score_and_not_the_picture(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(draw_picture(7, 40, 30)).save(buffer, "PNG")
    mask = io.BytesIO()
    Image.new("L", (40, 30), 1).save(mask, "PNG")
    # Its header is a mask's of 40 by 30; what follows makes it too large to be copied.
    features = {"image/encoded": buffer.getvalue(), "image/filename": b"a.png"}
    large = example_of({**features, "segmentation_mask": mask.getvalue() + bytes(65 * MIB)})
    small = example_of({**features, "image/filename": b"b.png", "segmentation_mask": mask.getvalue()})
    (tmp_path / "x.tfrecord").write_bytes(gzip.compress(tfrecord_of([large, small]), 1))
    job = run_job(tmp_path / "out", "--input", tmp_path / "x.tfrecord", "--max_failure_ratio", 1)
    assert sorted(job.masks) == ["a.png", "b.png"]
    images = job.summary["images"]
    assert (images["segmented"], images["failed"], images["truth_failed"], images["with_ground_truth"]) == (2, 0, 1, 1)
    [failure] = job.failures
    assert (failure["image_id"], failure["stage"], failure["error_type"]) == ("a.png", TRUTH_STAGE, "TooLarge")
    # The progress counts pictures, and a mask is none.
    assert "maskbeam: 2 pictures in" in job.err
    assert "failed" not in job.err


def test_records_of_masks_never_give_a_picture_in_place_of_a_mask_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "i.tar").write_bytes(tar_of({"a.png": b"picture"}))
    bomb = example_of({"image/encoded": b"picture", "image/filename": b"a.png", "segmentation_mask": bytes(65 * MIB)})
    (tmp_path / "m.tfrecord").write_bytes(gzip.compress(tfrecord_of([bomb]), 1))
    [[source]] = parse_sources([str(tmp_path / "m.tfrecord")], "--ground_truth")
    [failure] = replace(source, spool=str(tmp_path / SPOOL_FOLDER), is_truth=True).items()
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.error_type) == (TRUTH_STAGE, "TooLarge")


def _sparse(path: Path, parts: Iterable[bytes | int]) -> Path:
    """Writes a file of pieces and, where a number is, of so many zeros that take no disk."""
    with path.open("wb") as file:
        for part in parts:
            if isinstance(part, int):
                file.seek(part, io.SEEK_CUR)
            else:
                file.write(part)
    return path


def _stored_zip(size: int, packed: int, method: int = zipfile.ZIP_STORED) -> list[bytes | int]:
    """A zip of one member, of zeros."""
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, method, 0, 0, 0, packed, size, 7, 0) + b"big.png"
    central = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, method, 0, 0, 0, packed, size, 7, 0, 0, 0, 0, 0, 0)
    central += b"big.png"
    return [
        local,
        packed,
        central,
        struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local) + packed, 0),
    ]


def _gibibyte(kind: str, size: int) -> list[bytes | int]:
    if kind == "zip":
        return _stored_zip(size, size)
    if kind == "tar":
        return [tar_header("big.png", size), size + -size % 512, bytes(1024)]
    head = b""
    for field in (b"\x0a", b"\x0a", b"\x12", b"\x0a", b"\x0a"):
        key = b"\x0a\x05image" if field == b"\x12" else b""
        head = key + field + varint(len(head) + size) + head
    return [record_header(len(head) + size) + head, size, bytes(4)]


@pytest.mark.parametrize("kind", ["tar", "zip", "tfrecord"])
def test_a_gibibyte_is_the_most_that_is_read_by_range(kind: str, tmp_path: Path) -> None:
    most = _list(_sparse(tmp_path / f"most.{kind}", _gibibyte(kind, GIBIBYTE)))
    assert [listed.file.size_bytes for listed in most.pictures.values()] == [GIBIBYTE]
    assert most.faults == []
    more = _list(_sparse(tmp_path / f"more.{kind}", _gibibyte(kind, GIBIBYTE + 1)))
    assert more.pictures == {}
    assert [error_type for _, _, error_type in more.faults] == ["TooLarge"]


def test_a_gibibyte_is_the_most_that_is_unpacked(tmp_path: Path) -> None:
    claims = tar_header("big.png", GIBIBYTE + 1) + random.Random(1).randbytes(3 * MIB)
    (tmp_path / "x.tar.gz").write_bytes(gzip_of([claims]))
    found = _list(tmp_path / "x.tar.gz")
    assert found.faults == [("big.png", "locate", "TooLarge"), ("", "locate", "Truncated")]
    assert found.spool_bytes == 0


@pytest.mark.parametrize(
    ("size", "packed", "method", "faults"),
    [
        (1_000, 1_000, zipfile.ZIP_STORED, []),
        (1_000, 999, zipfile.ZIP_STORED, ["NotAFile"]),
        (1_000, 5_000_000, zipfile.ZIP_STORED, ["NotAFile"]),
        (1_000, 2_000, zipfile.ZIP_DEFLATED, []),
        (1_000, 5_000_000, zipfile.ZIP_DEFLATED, ["NotAFile"]),
        (64 * MIB, 9, zipfile.ZIP_DEFLATED, []),
        (64 * MIB + 1, 9, zipfile.ZIP_DEFLATED, ["TooLarge"]),
        (90_000_000, 900_000, zipfile.ZIP_DEFLATED, []),
        (90_000_001, 900_000, zipfile.ZIP_DEFLATED, ["TooLarge"]),
    ],
)
def test_sizes_that_a_zips_directory_claims_are_held_against_the_limits(
    size: int, packed: int, method: int, faults: list[str], tmp_path: Path
) -> None:
    found = _list(_sparse(tmp_path / "x.zip", _stored_zip(size, packed, method)))
    assert [error_type for _, _, error_type in found.faults] == faults
    assert len(found.pictures) == (not faults)


def test_a_zip_member_beyond_the_archives_end_is_a_failure(tmp_path: Path) -> None:
    data = bytearray(zip_of({"a.png": b"first" * 20, "b.png": b"second" * 20}, compression=zipfile.ZIP_STORED))
    entry = data.rindex(b"b.png") - 46
    data[entry + 42 : entry + 46] = struct.pack("<L", len(data) - 100)
    (tmp_path / "x.zip").write_bytes(data)
    found = _list(tmp_path / "x.zip")
    assert list(found.pictures) == ["a.png"]
    assert found.faults == [("b.png", "locate", "NotAFile")]


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tfrecord"])
@pytest.mark.parametrize(("cut", "error_type"), [(4, "Truncated"), (9, "Truncated"), (0, "BrokenArchive")])
def test_a_stream_with_a_wrong_or_missing_checksum_is_a_failure_although_all_members_are_complete(
    name: str, cut: int, error_type: str, tmp_path: Path
) -> None:
    plain = tar_of({"a.png": b"data"}) if name == "x.tar.gz" else example("a.png", b"data")
    data = bytearray(gzip.compress(plain))
    if cut:
        del data[-cut:]
    else:
        data[-8] ^= 1
    (tmp_path / name).write_bytes(data)
    found = _list(tmp_path / name)
    assert found.faults == [("", "locate", error_type)]
    assert len(found.pictures) <= 1
