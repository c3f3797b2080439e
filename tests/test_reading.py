"""Reading listed files: exactly their bytes or an error, for any answer of the store."""

import gzip
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from packing import example_of, tar_of, tfrecord_of, zip_of

from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.records import FileRef, Spooled
from pipeline.sources.archives import spool
from pipeline.sources.reading import FileReader
from pipeline.sources.source import Listed
from pipeline.sources.sources import parse_sources
from pipeline.storage import filesystem

DATA = random.Random(1).randbytes(3_000)
RECORD = tfrecord_of([example_of({"image/encoded": DATA, "image/filename": b"a.png"})])
ARCHIVES = {
    "x.tar": tar_of({"a.png": DATA}),
    "x.zip": zip_of({"a.png": DATA}),
    "x.tfrecord": RECORD,
    "x.tar.gz": tar_of({"a.png": DATA}, gzip=True),
    "packed.tfrecord": gzip.compress(RECORD),
}
ReadRange = Callable[[str, int, int], bytes]


def _listed(path: Path) -> FileRef:
    [[source]] = parse_sources([str(path)], "--input")
    [item] = [
        item for item in replace(source, spool=str(path.parent / SPOOL_FOLDER)).items() if isinstance(item, Listed)
    ]
    return item.file


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("missing", [0, 1, 2_999, 3_000])
def test_fewer_bytes_than_were_listed_are_an_error_and_never_a_picture(
    name: str, missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(ARCHIVES[name])
    file, read = _listed(tmp_path / name), FileReader(str(tmp_path))
    whole: ReadRange = filesystem.read_range

    def short(uri: str, offset: int, length: int) -> bytes:
        # As if the file ended so many bytes before the picture's end.
        end = _end(file) - missing
        return whole(uri, offset, max(0, min(length, end - offset)))

    monkeypatch.setattr(filesystem, "read_range", short)
    if not missing:
        assert read(file) == DATA
    else:
        with pytest.raises(ValueError, match=r"ends|without a member"):
            read(file)


def _end(file: FileRef) -> int:
    """Where a picture's bytes end in the file that holds them."""
    if isinstance(file.packing, Spooled):
        return file.packing.offset_bytes + file.packing.packed_bytes
    if file.packing is not None:
        return file.offset_bytes + 30 + len(file.member) + file.packing.packed_bytes
    return file.offset_bytes + file.size_bytes


def test_a_picture_is_put_together_of_as_many_parts_of_the_spool_as_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "PART_BYTES", 700)
    (tmp_path / "x.tar.gz").write_bytes(ARCHIVES["x.tar.gz"])
    file, read = _listed(tmp_path / "x.tar.gz"), FileReader(str(tmp_path))
    # The name of a folder, a digest of the archive's address, may begin with a zero as well.
    parts = sorted(path for path in (tmp_path / SPOOL_FOLDER).rglob("0*") if path.is_file())
    assert [part.stat().st_size for part in parts] == [700, 700, 700, 700, 200]
    assert read(file) == DATA
    parts[2].write_bytes(parts[2].read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends 1 bytes before"):
        read(file)
    parts[2].unlink()
    with pytest.raises(FileNotFoundError):
        read(file)


@pytest.mark.parametrize(("extra_bytes", "requests"), [(0, 1), (64, 1), (65, 2), (60_000, 2)])
def test_a_zip_member_behind_a_long_extra_field_takes_a_second_request(
    extra_bytes: int, requests: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(zip_of({"a.png": DATA}))
    # Only the local header has it, as the directory need not repeat it.
    data[28:30] = struct.pack("<H", extra_bytes)
    data[35:35] = bytes(extra_bytes)
    (tmp_path / "x.zip").write_bytes(data)
    end = data.rindex(b"PK\5\6")
    data[end + 16 : end + 20] = struct.pack("<L", struct.unpack_from("<L", data, end + 16)[0] + extra_bytes)
    (tmp_path / "x.zip").write_bytes(data)
    file, asked = _listed(tmp_path / "x.zip"), []
    whole: ReadRange = filesystem.read_range

    def counted(uri: str, offset: int, length: int) -> bytes:
        asked.append(length)
        return whole(uri, offset, length)

    monkeypatch.setattr(filesystem, "read_range", counted)
    assert FileReader(str(tmp_path))(file) == DATA
    assert len(asked) == requests


@pytest.mark.parametrize("at", [0, 1_500, 2_999])
def test_a_zip_member_that_changed_is_an_error(at: int, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zip_of({"a.png": DATA}, compression=0))
    file = _listed(path)
    data = bytearray(path.read_bytes())
    data[35 + at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        FileReader(str(tmp_path))(file)


def test_a_zip_member_longer_than_its_directory_says_is_an_error(tmp_path: Path) -> None:
    data = bytearray(zip_of({"a.png": DATA}))
    at = data.rindex(b"PK\1\2") + 24
    # Its checksum is that of as much as is unpacked.
    data[at : at + 4] = struct.pack("<L", len(DATA) - 1)
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ValueError, match="another size or checksum"):
        FileReader(str(tmp_path))(_listed(tmp_path / "x.zip"))


def test_a_copy_in_the_spool_that_unpacks_to_another_length_is_an_error(tmp_path: Path) -> None:
    place = Spooled("stream", 0, 0, True)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    copy = packer.compress(DATA) + packer.flush()
    filesystem.write_bytes(str(tmp_path / SPOOL_FOLDER / "stream/000000"), copy)
    file = FileRef("x.tar.gz", len(DATA), "", 0, "a.png", replace(place, packed_bytes=len(copy)))
    read = FileReader(str(tmp_path))
    assert read(file) == DATA
    for size in (len(DATA) - 1, len(DATA) + 1):
        with pytest.raises(ValueError, match=f"not {size:,}"):
            read(replace(file, size_bytes=size))
    filesystem.write_bytes(str(tmp_path / SPOOL_FOLDER / "stream/000000"), b"\xff" * len(copy))
    with pytest.raises(ValueError, match="can't be decompressed"):
        read(file)


@pytest.mark.parametrize(("max_bytes", "expected_bytes"), [(None, 3_000), (3_000, 3_000), (2_999, 3_000), (10, 11)])
def test_a_file_of_unknown_size_is_read_one_byte_beyond_the_limit_at_most(
    max_bytes: int | None, expected_bytes: int, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(DATA)
    read = FileReader(str(tmp_path), max_bytes)
    assert read(FileRef(str(tmp_path / "a.png"))) == DATA[:expected_bytes]
