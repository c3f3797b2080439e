"""Archives: what is listed and read is what Python's own tarfile and zipfile hold, and hostile ones do no harm."""

import io
import random
import struct
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from datagrams import received_reports
from packing import tar_of, zip_of
from PIL import Image
from small_archive import Archive, Finished, draw_picture, run_job

from pipeline.core.errors import TRUTH_STAGE
from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.records import Failure
from pipeline.sources.archives import spool
from pipeline.sources.archives.listing import Entry, Rejected, list_archive
from pipeline.sources.ignored import Ignored
from pipeline.sources.reading import FileReader
from pipeline.sources.sources import parse_sources, parse_truths

FILES = {
    "a.jpg": b"first" * 300,
    "north/b.PNG": b"",
    "north/deep/" + "long " * 40 + "name.png": bytes(range(256)) * 17,
    "ünï/cödé.tif": b"x" * 512,
    "quotes \" and ' and $(spaces).gif": b"y" * 1023,
}
OTHERS = {"readme.txt": b"no picture", "b/._c.jpg": b"macOS"}


def read_all(archive: Path, output: Path) -> tuple[dict[str, bytes], list[Rejected], int]:
    """Everything that an archive gives: its pictures' bytes by name, what was refused, and how many others."""
    read = FileReader(str(output))
    items = list(list_archive(str(archive), str(output / SPOOL_FOLDER)))
    pictures = {item.name: read(item.file) for item in items if isinstance(item, Entry)}
    others = sum(item.files for item in items if isinstance(item, Ignored))
    return pictures, [item for item in items if isinstance(item, Rejected)], others


PACKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "pax": lambda files: tar_of(files, tar_format=tarfile.PAX_FORMAT),
    "gnu": lambda files: tar_of(files, tar_format=tarfile.GNU_FORMAT),
    "tar.gz": lambda files: tar_of(files, gzip=True),
    "gzip in two members": lambda files: _gzip_twice(tar_of(files)),
    "deflated zip": zip_of,
    "stored zip": lambda files: zip_of(files, compression=zipfile.ZIP_STORED),
    "streamed zip": lambda files: _streamed_zip(files),
    "zip behind a program": lambda files: b"#!/bin/sh\n" * 99 + zip_of(files),
    "zip with a comment": lambda files: _commented_zip(files, b"PK\5\6 " * 4_000),
    "zip64": lambda files: _zip64(files),
}


def _gzip_twice(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + b"\0" * 100


class _Unseekable(io.RawIOBase):
    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def _streamed_zip(files: dict[str, bytes]) -> bytes:
    """As `zip -` writes it: sizes only behind the data."""
    stream = _Unseekable()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, data in files.items():
            archive.writestr(name, data)
    return bytes(stream.data)


def _commented_zip(files: dict[str, bytes], comment: bytes) -> bytes:
    buffer = io.BytesIO(zip_of(files))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = comment
    return buffer.getvalue()


def _zip64(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    plain = buffer.getvalue()
    # The directory's end in its 64-bit form, as an archive above 4 GiB has it.
    end = plain.rindex(b"PK\5\6")
    entries, length, offset = struct.unpack_from("<HLL", plain, end + 10)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, length, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    short = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return plain[:end] + end64 + locator + short


@pytest.mark.parametrize("kind", PACKERS)
def test_members_are_listed_and_read_in_every_dialect(kind: str, tmp_path: Path) -> None:
    archive = tmp_path / "its content decides.zip"
    archive.write_bytes(PACKERS[kind](FILES | OTHERS))
    pictures, refused, others = read_all(archive, tmp_path / "out")
    assert pictures == {name: data for name, data in FILES.items() if data}
    assert [(fault.name, fault.error_type) for fault in refused] == [("north/b.PNG", "Empty")]
    assert others == len(OTHERS)


def test_leading_dots_of_a_packed_folder_are_no_part_of_the_name(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    archive.write_bytes(tar_of({"./a.png": b"1", ".//b/c.png": b"2"}))
    assert read_all(archive, tmp_path)[0] == {"a.png": b"1", "b/c.png": b"2"}


def test_a_size_of_base_256_is_read(tmp_path: Path) -> None:
    data = bytearray(tar_of({"a.png": b"z" * 700, "b.png": b"after"}))
    data[124:136] = b"\x80" + (700).to_bytes(11, "big")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    archive = tmp_path / "x.tar"
    archive.write_bytes(data)
    assert read_all(archive, tmp_path)[0] == {"a.png": b"z" * 700, "b.png": b"after"}


def _numbered(count: int) -> dict[str, bytes]:
    random.seed(1)
    return {f"{number:02d}.png": random.randbytes(3_000) for number in range(count)}


@pytest.mark.parametrize("kind", ["pax", "tar.gz", "deflated zip", "stored zip", "streamed zip"])
@pytest.mark.parametrize("share", [0.3, 0.61, 0.85])
def test_a_truncated_archive_gives_its_whole_members_and_one_failure(kind: str, share: float, tmp_path: Path) -> None:
    files = _numbered(10)
    whole = PACKERS[kind](files)
    archive = tmp_path / "cut"
    archive.write_bytes(whole[: int(len(whole) * share)])
    pictures, refused, _ = read_all(archive, tmp_path)
    expected = int(share * 10)
    assert expected - 1 <= len(pictures) <= expected + 1
    assert list(pictures.items()) == list(files.items())[: len(pictures)]
    assert [(fault.name, fault.error_type) for fault in refused] == [("", "Truncated")]


def test_a_tar_without_its_end_mark_loses_no_member(tmp_path: Path) -> None:
    archive = tmp_path / "cut.tar"
    archive.write_bytes(tar_of({"a.png": b"1" * 512})[:1024])
    pictures, refused, _ = read_all(archive, tmp_path)
    assert pictures == {"a.png": b"1" * 512}
    assert [fault.error_type for fault in refused] == ["Truncated"]


def test_a_broken_header_or_stream_ends_the_walk_with_one_failure(tmp_path: Path) -> None:
    files = _numbered(4)
    tar = bytearray(tar_of(files))
    tar[2 * (512 + 3072) + 10] ^= 0xFF
    zipped = bytearray(tar_of(files, gzip=True))
    zipped[len(zipped) // 2] ^= 0xFF
    for name, data in (("x.tar", tar), ("x.tar.gz", zipped)):
        archive = tmp_path / name
        archive.write_bytes(data)
        pictures, refused, _ = read_all(archive, tmp_path)
        assert list(pictures) == list(files)[: len(pictures)]
        assert [fault.name for fault in refused] == [""], name


def test_a_zip_member_whose_bytes_changed_is_not_handed_out(tmp_path: Path) -> None:
    data = bytearray(zip_of({"a.png": b"0123456789" * 10}, compression=zipfile.ZIP_STORED))
    data[45] ^= 1
    archive = tmp_path / "x.zip"
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        read_all(archive, tmp_path)


def test_pictures_of_a_compressed_tar_are_copied_into_parts_of_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PART_BYTES", 5_000)
    files = _numbered(9)
    archive = tmp_path / "x.tgz"
    archive.write_bytes(tar_of(files, gzip=True))
    first = [item for item in list_archive(str(archive), str(tmp_path / SPOOL_FOLDER)) if isinstance(item, Entry)]
    parts = {path.name: path.read_bytes() for path in (tmp_path / SPOOL_FOLDER).rglob("*") if path.is_file()}
    assert [len(part) for _, part in sorted(parts.items())] == [5_000] * 5 + [2_000]
    again = [item for item in list_archive(str(archive), str(tmp_path / SPOOL_FOLDER)) if isinstance(item, Entry)]
    names_only = [item for item in list_archive(str(archive), None) if isinstance(item, Entry)]
    assert first == again == names_only
    assert {item.name: FileReader(str(tmp_path))(item.file) for item in first} == files


def _hostile_tar() -> bytes:
    buffer = io.BytesIO()
    picture = _png()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = picture, link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(data) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(data))

        add("/absolute.png")
        add("../../outside.png")
        add("inside/../../outside.png")
        add("symbolic.png", tarfile.SYMTYPE, link="/etc/passwd")
        add("hard.png", tarfile.LNKTYPE, link="good.png")
        add("device.png", tarfile.CHRTYPE)
        add("block.png", tarfile.BLKTYPE)
        add("pipe.png", tarfile.FIFOTYPE)
        add("sparse.png", tarfile.GNUTYPE_SPARSE, b"")
        add("new\nline.png")
        add("not UTF-8 \udcff.png")
        add("back\\slash.png")
        add("empty.png", data=b"")
        add("a folder.png/", tarfile.DIRTYPE)
        add("quotes ' \" `$(touch x)`.png")
        add("good.png")
    return buffer.getvalue()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_picture(7, 40, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def _hostile_zip() -> bytes:
    buffer = io.BytesIO()
    picture = _png()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("/absolute.png", "../../outside.png", "new\nline.png", "good.png"):
            archive.writestr(name, picture)
        archive.writestr("empty.png", b"")
        link = zipfile.ZipInfo("symbolic.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        with archive.open("bomb.png", "w") as bomb:
            for _ in range(80):
                bomb.write(bytes(1 << 20))
        archive.writestr("lzma.png", picture, compress_type=zipfile.ZIP_LZMA)
        archive.writestr("lies.png", bytes(1 << 20))
    data = bytearray(buffer.getvalue())
    # The directory now claims that a megabyte is ten bytes long.
    entry = data.rindex(b"lies.png") - 46
    data[entry + 24 : entry + 28] = struct.pack("<L", 10)
    return bytes(data)


def _run_on(archive: Path) -> Finished:
    return run_job(archive.parent / "deep" / "er" / "out", "--input", archive, "--max_failure_ratio", 1)


@pytest.mark.parametrize("name", ["hostile.tar", "hostile.tar.gz"])
def test_a_hostile_tar_costs_a_line_a_member_and_writes_nothing_outside(name: str, tmp_path: Path) -> None:
    import gzip

    archive = tmp_path / name
    archive.write_bytes(gzip.compress(_hostile_tar()) if name.endswith("gz") else _hostile_tar())
    job = _run_on(archive)
    assert job.status == 0
    assert sorted(job.masks) == ["good.png", "quotes ' \" `$(touch x)`.png"]
    faults = [(failure["image_id"], failure["error_type"]) for failure in job.failures]
    assert faults == sorted(
        [
            ("../../outside.png", "UnsafeName"),
            ("/absolute.png", "UnsafeName"),
            ("back\\slash.png", "UnsafeName"),
            ("block.png", "NotAFile"),
            ("device.png", "NotAFile"),
            ("empty.png", "Empty"),
            ("hard.png", "NotAFile"),
            ("inside/../../outside.png", "UnsafeName"),
            ("new\nline.png", "UnsafeName"),
            ("not UTF-8 \\udcff.png", "UnsafeName"),
            ("pipe.png", "NotAFile"),
            ("sparse.png", "NotAFile"),
            ("symbolic.png", "NotAFile"),
        ]
    )
    assert {path.name for path in tmp_path.iterdir()} == {name, "deep"}
    assert not (job.output / SPOOL_FOLDER).exists()


def test_a_hostile_zip_costs_a_line_a_member_and_writes_nothing_outside(tmp_path: Path) -> None:
    archive = tmp_path / "hostile.zip"
    archive.write_bytes(_hostile_zip())
    job = _run_on(archive)
    assert sorted(job.masks) == ["good.png"]
    faults = {failure["image_id"]: failure["error_type"] for failure in job.failures}
    assert faults == {
        "/absolute.png": "UnsafeName",
        "../../outside.png": "UnsafeName",
        "new\nline.png": "UnsafeName",
        "empty.png": "Empty",
        "symbolic.png": "NotAFile",
        "bomb.png": "TooLarge",
        "lzma.png": "NotAFile",
        "lies.png": "Unreadable",
    }
    assert {path.name for path in tmp_path.iterdir()} == {"hostile.zip", "deep"}


def test_bombs_in_a_stream_and_headers_without_end_stay_in_bounded_memory(tmp_path: Path) -> None:
    def header(name: str, size: int, kind: bytes) -> bytes:
        member = tarfile.TarInfo(name)
        member.size, member.type = size, kind
        return member.tobuf(tarfile.GNU_FORMAT)

    size = 130 << 20
    for kind, expected in ((tarfile.REGTYPE, "TooLarge"), (tarfile.GNUTYPE_LONGNAME, "BrokenArchive")):
        archive = tmp_path / "bomb.tar.gz"
        packer = zlib.compressobj(9, wbits=31)
        with archive.open("wb") as file:
            file.write(packer.compress(header("bomb.png", size, kind)))
            for _ in range(size >> 20):
                file.write(packer.compress(bytes(1 << 20)))
            file.write(packer.compress(bytes(1024)) + packer.flush())
        tracemalloc.start()
        items = list(list_archive(str(archive), str(tmp_path / SPOOL_FOLDER)))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [item.error_type for item in items if isinstance(item, Rejected)] == [expected]
        assert peak_bytes < 100 << 20
        # What was copied before it was known to be a bomb stays until the job ends, deflated.
        copied = sum(part.stat().st_size for part in (tmp_path / SPOOL_FOLDER).rglob("*") if part.is_file())
        assert copied < 1 << 20


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_gives_what_its_folder_gives(
    kind: str, archive: Archive, scored_job: Finished, tmp_path: Path
) -> None:
    from packing import pack

    pictures, masks = pack(archive.images, tmp_path / f"i.{kind}"), pack(archive.masks, tmp_path / f"m.{kind}")
    job = run_job(tmp_path / "out", "--input", pictures, "--ground_truth", masks)
    assert job.status == 0
    assert {name: mask.tobytes() for name, mask in job.masks.items()} == {
        name: mask.tobytes() for name, mask in scored_job.masks.items()
    }
    for part in ("images", "classes", "metrics", "confusion_matrix"):
        assert job.summary[part] == scored_job.summary[part]
    assert job.rows[0]["source_uri"] == f"{pictures}!{archive.image_ids[0]}"


def test_a_glob_of_archives_is_so_many_sources_each_with_its_own_masks(tmp_path: Path) -> None:
    truths = []
    for number in range(2):
        truth = np.zeros((30, 40), np.uint8)
        truth[: 5 + 20 * number] = 1
        truths.append(truth)
        (tmp_path / f"i-{number}.tar").write_bytes(tar_of({"a.png": _png(), "b.png": _png()}))
        (tmp_path / f"m-{number}.tar.gz").write_bytes(tar_of({"a.png": _mask_png(truth)}, gzip=True))
    job = run_job(tmp_path / "out", "--input", tmp_path / "i-*.tar", "--ground_truth", tmp_path / "m-*.tar.gz")
    assert sorted(job.masks) == ["i-0/a.png", "i-0/b.png", "i-1/a.png", "i-1/b.png"]
    assert job.summary["images"]["with_ground_truth"] == 2
    # The same picture twice: only the mask that it was paired with decides its accuracy.
    accuracies = {row["image_id"]: row["pixel_accuracy"] for row in job.rows}
    expected = [float((job.masks["i-0/a.png"] == truth).mean()) for truth in truths]
    assert expected[0] != expected[1]
    assert accuracies == {
        "i-0/a.png": pytest.approx(expected[0]),
        "i-0/b.png": None,
        "i-1/a.png": pytest.approx(expected[1]),
        "i-1/b.png": None,
    }
    one_mask = run_job(tmp_path / "no", "--input", tmp_path / "i-*.tar", "--ground_truth", tmp_path / "m-0.tar.gz")
    assert one_mask.status == 2
    assert "1 sources of masks for 2 archives" in one_mask.err


def _mask_png(mask: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _broken_archives() -> dict[str, tuple[bytes, str]]:
    """Archives of which nothing, or not all, can be read, and the error's type."""
    masks = {f"{number}.png": _png() for number in range(3)}
    unknown = bytearray(zip_of(masks))
    for mark, method in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = -1
        while (at := unknown.find(mark, at + 1)) >= 0:
            struct.pack_into("<H", unknown, at + method, 97)
    noise = random.Random(1).randbytes(5_000)
    return {
        "cut.tar": (tar_of(masks)[:-9_000], "Truncated"),
        "cut.tar.gz": (tar_of(masks, gzip=True)[:-300], "Truncated"),
        "cut.zip": (zip_of(masks)[:-300], "Truncated"),
        "unknown.zip": (bytes(unknown), "NotAFile"),
        "noise.tar": (noise, "BrokenArchive"),
        "noise.tar.gz": (noise, "BrokenArchive"),
        "noise.tgz": (b"\x1f\x8b" + noise, "BrokenArchive"),
        "noise.zip": (noise, "BrokenArchive"),
        "noise.tfrecord": (noise, "BrokenArchive"),
        "empty.tar": (b"", "Truncated"),
        "empty.tar.gz": (b"", "Truncated"),
        "empty.zip": (b"", "Truncated"),
    }


@pytest.mark.parametrize("name", _broken_archives())
@pytest.mark.parametrize("option", ["--input", "--ground_truth"])
def test_a_broken_archive_is_a_failure_of_the_pictures_or_of_the_truth(option: str, name: str, tmp_path: Path) -> None:
    data, error_type = _broken_archives()[name]
    (tmp_path / "pictures").mkdir()
    (tmp_path / name).write_bytes(data)
    pictures = parse_sources([str(tmp_path / (name if option == "--input" else "pictures"))], "--input")
    [[source]] = pictures if option == "--input" else parse_truths([str(tmp_path / name)], pictures)
    failures = [item for item in source.items() if isinstance(item, Failure)]
    stage = "locate" if option == "--input" else TRUTH_STAGE
    members = [f"{number}.png" for number in range(3)] if name == "unknown.zip" else [""]
    # A mask that can't be read has no picture's id: its picture has that.
    assert [(failure.image_id, failure.stage, failure.error_type) for failure in failures] == [
        (member if option == "--input" else "", stage, error_type) for member in members
    ]
    assert [failure.source_uri for failure in failures] == [
        f"{tmp_path / name}!{member}" if member else str(tmp_path / name) for member in members
    ]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_million_empty_members_are_listed_in_constant_memory(kind: str, tmp_path: Path) -> None:
    archive = tmp_path / f"million.{kind}"
    if kind == "tar":
        with archive.open("wb") as file:
            for number in range(1_000_000):
                file.write(tarfile.TarInfo(f"{number:07d}.png").tobuf(tarfile.USTAR_FORMAT))
            file.write(bytes(1024))
    else:
        with zipfile.ZipFile(archive, "w") as packed:
            for number in range(1_000_000):
                packed.writestr(f"{number:07d}.png", b"")
    tracemalloc.start()
    listed = sum(isinstance(item, Rejected) for item in list_archive(str(archive), None))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert listed == 1_000_000
    assert peak_bytes < 10 << 20


@pytest.mark.full
def test_one_large_tar_keeps_two_workers_equally_busy(tmp_path: Path) -> None:
    pictures = 20_000
    drawn = []
    for seed in range(50):
        buffer = io.BytesIO()
        Image.fromarray(draw_picture(seed, 40, 30)).save(buffer, "PNG")
        drawn.append(buffer.getvalue())
    archive = tmp_path / "large.tar"
    archive.write_bytes(tar_of({f"{number:05d}.png": drawn[number % 50] for number in range(pictures)}))
    workers = ("--direct_running_mode", "multi_processing", "--direct_num_workers", 2)
    with received_reports() as reports:
        job = run_job(tmp_path / "out", "--input", archive, "--mask_format", "none", *workers)
    end = time.monotonic()
    assert job.status == 0, job.err
    done = [worker[-1][1] for worker in reports.values()]
    assert sum(done) == pictures
    assert len(done) == 2
    assert max(done) <= 1.2 * min(done)
    begun = sorted(worker[0][0] for worker in reports.values())
    assert begun[1] - begun[0] < 0.2 * (end - begun[0])
