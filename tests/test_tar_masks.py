"""Masks in tar files: each once, at the place that the tables name, whatever was killed, repeated or changed."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from apache_beam.pvalue import TaggedOutput
from records_of import values_of
from small_archive import TINY_MODEL, Archive, Finished, packed_masks, run_job

from pipeline.core.errors import StorageError
from pipeline.core.records import OutputFile, PictureRecord
from pipeline.output import tar_parts
from pipeline.output.delivery import file_uri, read_file
from pipeline.output.repacking import delete_other_parts, has_other_members, part_and_size, rewritten, unpacked
from pipeline.output.tar_parts import TarParts, is_part, member_bytes
from pipeline.storage import filesystem
from pipeline.transforms import coders, repack_masks

Repack = Callable[[str, str, list[PictureRecord]], list[PictureRecord]]
ROOT = Path(__file__).resolve().parent.parent
NAMES = [f"{'long ' * 30 if number == 3 else 'deep/'}{number} ü.jpg" for number in range(6)]


def data_of(name: str) -> bytes:
    return name.encode() * (20 + len(name) % 7)


def members_of(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


# One process's tar files.


def test_masks_are_where_they_are_said_to_be_after_every_flush(tmp_path: Path) -> None:
    parts = TarParts(str(tmp_path))
    places: dict[str, tuple[str, int]] = {}
    for name in NAMES:
        places[name] = parts.add(name, data_of(name))
        parts.flush()
        assert len(set(places.values())) == len(places)
        for known, (part, offset) in places.items():
            content = (tmp_path / part).read_bytes()
            assert content[offset : offset + len(data_of(known))] == data_of(known)
        (path,) = (tmp_path / "masks").iterdir()
        assert members_of(path) == {f"{known}.png": data_of(known) for known in places}
        assert is_part(f"masks/{path.name}")
        known_bytes = sum(member_bytes(known, len(data_of(known))) for known in places)
        assert not has_other_members(str(tmp_path), f"masks/{path.name}", known_bytes)
        assert has_other_members(str(tmp_path), f"masks/{path.name}", known_bytes - 512)
        # One that was cut off is not taken for whole.
        assert has_other_members(str(tmp_path), f"masks/{path.name}", known_bytes + 512)


def test_nothing_is_written_twice_without_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = TarParts(str(tmp_path))
    parts.flush()
    parts.add("a", b"1")
    parts.flush()
    monkeypatch.setattr(filesystem, "write_bytes", lambda *_: pytest.fail("written again"))
    parts.flush()


def test_a_full_or_sealed_file_is_followed_by_the_next(tmp_path: Path) -> None:
    parts = TarParts(str(tmp_path), "0" * 16, part_bytes=2_000)
    added = [parts.add(name, bytes(600))[0] for name in "abcdef"]
    assert added == [f"masks/part-{'0' * 16}-0000{number}.tar" for number in (0, 0, 1, 1, 2, 2)]
    parts.seal()
    parts.seal()
    assert parts.add("g", b"1")[0].endswith("-00003.tar")
    parts.flush()
    found = {path.name[-5]: sorted(members_of(path)) for path in (tmp_path / "masks").iterdir()}
    assert found == {"0": ["a.png", "b.png"], "1": ["c.png", "d.png"], "2": ["e.png", "f.png"], "3": ["g.png"]}


@pytest.mark.parametrize(("part_bytes", "numbers"), [(3_072, [0, 0, 1, 1]), (3_073, [0, 0, 0, 1]), (1, [0, 1, 2, 3])])
def test_a_file_that_has_its_size_gets_no_more_members(part_bytes: int, numbers: list[int], tmp_path: Path) -> None:
    parts = TarParts(str(tmp_path), "0" * 16, part_bytes=part_bytes)
    assert member_bytes("a", 600) == 1_536
    assert [int(parts.add(name, bytes(600))[0][-9:-4]) for name in "abcd"] == numbers


def test_a_flush_that_failed_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = TarParts(str(tmp_path), part_bytes=1_000)
    for name in "abc":
        parts.add(name, bytes(600))
    with monkeypatch.context() as patched:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patched.setattr(filesystem, "write_bytes", full)
        with pytest.raises(StorageError, match="No space left"):
            parts.flush()
    parts.add("d", bytes(600))
    parts.flush()
    found = [name for path in (tmp_path / "masks").iterdir() for name in members_of(path)]
    assert sorted(found) == ["a.png", "b.png", "c.png", "d.png"]


def test_many_threads_share_the_files(tmp_path: Path) -> None:
    parts = TarParts(str(tmp_path), part_bytes=20_000)
    names = [f"{number}" for number in range(400)]

    def add(name: str) -> tuple[str, int]:
        place = parts.add(name, data_of(name))
        if int(name) % 20 == 0:
            parts.flush()
        return place

    with ThreadPoolExecutor(8) as threads:
        places = dict(zip(names, threads.map(add, names), strict=True))
    parts.flush()
    for name, (part, offset) in places.items():
        assert (tmp_path / part).read_bytes()[offset:].startswith(data_of(name))
    assert sum(len(members_of(path)) for path in (tmp_path / "masks").iterdir()) == len(names)


# Putting in order what several runs left.


def packed_record(name: str, part: str, offset: int) -> PictureRecord:
    data = data_of(name)
    mask = OutputFile("mask", "d", len(data), zlib.crc32(data), part, offset)
    return PictureRecord(name, "", "", 1, 1, 0, "", values_of((1,)), files=(mask,))


@pytest.fixture
def packed(tmp_path: Path) -> list[PictureRecord]:
    parts = TarParts(str(tmp_path))
    records = [packed_record(name, *parts.add(name, data_of(name))) for name in NAMES]
    parts.flush()
    return records


def test_a_tar_file_with_other_members_is_rewritten_without_them(tmp_path: Path, packed: list[PictureRecord]) -> None:
    old = packed[0].files[0].part
    kept = [packed[4], packed[1]]
    repacked = rewritten(str(tmp_path), old, kept)
    assert repacked == rewritten(str(tmp_path), old, kept[::-1])  # a repeated task does the same
    (new,) = {record.files[0].part for record in repacked}
    assert new != old
    assert members_of(tmp_path / new) == {f"{record.image_id}.png": data_of(record.image_id) for record in repacked}
    assert [record.image_id for record in repacked] == sorted(record.image_id for record in kept)
    for record in repacked:
        assert read_file(str(tmp_path), record.image_id, record.files[0]) == data_of(record.image_id)
        assert file_uri(record.image_id, record.files[0]) == f"{new}!{record.image_id}.png"
    sizes = [size for record in repacked for _, size in part_and_size(record)]
    assert not has_other_members(str(tmp_path), new, sum(sizes))
    (tmp_path / "masks/part-mine.tar").write_bytes(b"")  # no name of ours
    assert delete_other_parts(str(tmp_path), [new]) == 1
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == sorted([Path(new).name, "part-mine.tar"])


def test_packed_masks_become_files_and_back(tmp_path: Path, packed: list[PictureRecord]) -> None:
    single = unpacked(str(tmp_path), packed[0].files[0].part, packed)
    for record in single:
        assert (record.files[0].part, record.files[0].offset_bytes) == ("", 0)
        assert (tmp_path / f"masks/{record.image_id}.png").read_bytes() == data_of(record.image_id)
    again = rewritten(str(tmp_path), "", single)
    for record in again:
        assert read_file(str(tmp_path), record.image_id, record.files[0]) == data_of(record.image_id)


def test_files_whose_masks_were_packed_are_deleted_later(tmp_path: Path, packed: list[PictureRecord]) -> None:
    single = unpacked(str(tmp_path), packed[0].files[0].part, packed)

    def stale(records: list[PictureRecord], *, packs: bool) -> list[str]:
        encoded = [coders.PictureRecordCoder().encode(record) for record in records]
        found = repack_masks._repack(((records[0].files[0].part, 0), encoded), str(tmp_path), packs)
        return [one.value for one in found if isinstance(one, TaggedOutput)]

    assert sorted(stale(single, packs=True)) == sorted(f"masks/{record.image_id}.png" for record in single)
    # A tar file whose masks are in another now is deleted as a whole.
    assert stale(packed, packs=True) == []
    assert stale(packed, packs=False) == []


@pytest.mark.parametrize("spoil", ["altered", "cut", "gone"])
def test_a_mask_that_is_not_what_was_recorded_stops_the_job(
    tmp_path: Path, packed: list[PictureRecord], spoil: str
) -> None:
    path = tmp_path / packed[0].files[0].part
    content = path.read_bytes()
    if spoil == "gone":
        path.unlink()
    else:
        path.write_bytes(
            content[:-3_000] if spoil == "cut" else content.replace(data_of(NAMES[5]), data_of(NAMES[5])[::-1])
        )
    for repack in (rewritten, unpacked):
        with pytest.raises(StorageError):
            repack(str(tmp_path), packed[0].files[0].part, packed)


@pytest.mark.parametrize("repack", [rewritten, unpacked])
def test_a_cut_mask_without_a_checksum_stops_the_job(
    repack: Repack, tmp_path: Path, packed: list[PictureRecord]
) -> None:
    # As an early version recorded it.
    records = [replace(one, files=(replace(one.files[0], crc32=-1),)) for one in packed]
    part = packed[0].files[0].part
    assert len(repack(str(tmp_path), part, records)) == len(records)
    path = tmp_path / part
    path.write_bytes(path.read_bytes()[: packed[-1].files[0].offset_bytes + 3])
    with pytest.raises(StorageError, match=f"mask of {NAMES[5]} was altered"):
        repack(str(tmp_path), part, records)


# Whole jobs.


def expected_masks(scored_job: Finished) -> dict[str, bytes]:
    return {
        f"{path.relative_to(scored_job.output / 'masks')}": path.read_bytes() for path in files_in(scored_job.output)
    }


def files_in(output: Path) -> list[Path]:
    return [path for path in (output / "masks").rglob("*") if path.is_file()]


def by_member(output: Path) -> dict[str, bytes]:
    """All packed masks by their member's name, each in one tar file alone."""
    packed = packed_masks(output)
    members = {place.partition("!")[2]: data for place, data in packed.items()}
    assert len(members) == len(packed), "a mask in two tar files"
    return members


def check(finished: Finished, expected: dict[str, bytes]) -> None:
    assert finished.status == 0, finished.err
    assert by_member(finished.output) == expected
    assert {row["mask_uri"] for row in finished.rows} == packed_masks(finished.output).keys()
    assert all(path.suffix == ".tar" for path in files_in(finished.output))


def test_tar_files_hold_what_single_files_hold_through_all_changes(
    archive: Archive, scored_job: Finished, tmp_path: Path
) -> None:
    expected = expected_masks(scored_job)
    pictures = tmp_path / "images"
    shutil.copytree(archive.images, pictures)
    later, gone = archive.image_ids[4], archive.image_ids[0]
    (pictures / later).rename(tmp_path / "later")
    options = ["--input", pictures, "--ground_truth", archive.masks, "--mask_format", "tar"]

    job = run_job(tmp_path / "out", *options)
    check(job, {name: data for name, data in expected.items() if name != f"{later}.png"})
    (tmp_path / "later").rename(pictures / later)
    again = run_job(tmp_path / "out", *options)
    check(again, expected)
    assert again.summary["run"]["resumed"] == len(expected) - 1
    assert again.summary["confusion_matrix"] == scored_job.summary["confusion_matrix"]
    assert len(files_in(again.output)) == 2

    inodes = {path: path.stat().st_ino for path in files_in(again.output)}
    idle = run_job(tmp_path / "out", *options)
    check(idle, expected)
    assert {path: path.stat().st_ino for path in files_in(idle.output)} == inodes
    # What leaves or changes leaves its tar file, too.
    (pictures / gone).unlink()
    (pictures / later).write_bytes((pictures / later).read_bytes())
    less = run_job(tmp_path / "out", *options)
    check(less, {name: data for name, data in expected.items() if name != f"{gone}.png"})
    assert less.summary["run"]["resumed"] == len(expected) - 2
    files = run_job(tmp_path / "out", *options[:-2])
    assert {f"{name}.png" for name in files.masks} == expected.keys() - {f"{gone}.png"}
    assert files.summary["run"]["resumed"] == len(expected) - 1


def test_many_small_tar_files(
    archive: Archive, scored_job: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_parts, "PART_BYTES", 4_000)
    job = run_job(tmp_path / "out", "--input", archive.images, "--mask_format", "tar")
    check(job, expected_masks(scored_job))
    assert len(files_in(job.output)) > 3


def test_repeated_bundles_leave_each_mask_once(archive: Archive, scored_job: Finished, tmp_path: Path) -> None:
    options = ["--input", archive.images, "--mask_format", "tar", "--direct_runner_bundle_repeat=1"]
    check(run_job(tmp_path / "out", *options), expected_masks(scored_job))


def test_masks_that_the_journal_does_not_know_go(archive: Archive, scored_job: Finished, tmp_path: Path) -> None:
    # Killed between the writing of a tar file and that of the journal.
    options = ["--input", archive.images, "--mask_format", "tar"]
    run_job(tmp_path / "out", *options)
    shutil.rmtree(tmp_path / "out/_progress/journal")
    again = run_job(tmp_path / "out", *options)
    assert again.summary["run"]["resumed"] == 0
    check(again, expected_masks(scored_job))


def test_a_killed_job_loses_no_mask_and_has_none_twice(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2_500):
        (tmp_path / f"in/{number}.jpg").hardlink_to(archive.images / "sideways.jpg")
    command = [sys.executable, "-m", "pipeline", "--input", str(tmp_path / "in"), "--model", str(TINY_MODEL)]
    command += ["--output", str(tmp_path / "out"), "--mask_format", "tar"]
    resumed = 0
    for kill in range(3):
        job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        parts = set(files_in(tmp_path / "out"))
        deadline = time.monotonic() + 300
        while not set(files_in(tmp_path / "out")) - parts and job.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3 * kill)
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
    last = run_job(tmp_path / "out", "--input", tmp_path / "in", "--mask_format", "tar")
    resumed = last.summary["run"]["resumed"]
    assert resumed > 0
    assert last.summary["images"]["segmented"] == 2_500
    members = by_member(tmp_path / "out")
    assert len(members) == 2_500
    assert len(set(members.values())) == 1
    assert {row["mask_uri"] for row in last.rows} == packed_masks(tmp_path / "out").keys()


@pytest.mark.full
def test_two_processes_write_their_own_tar_files(archive: Archive, scored_job: Finished, tmp_path: Path) -> None:
    options = ["--input", archive.images, "--mask_format", "tar"]
    workers = ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"]
    check(run_job(tmp_path / "out", *options, *workers), expected_masks(scored_job))


def test_a_failed_picture_has_no_mask(archive: Archive, tmp_path: Path) -> None:
    shutil.copytree(archive.images, tmp_path / "in")
    options = ["--input", tmp_path / "in", "--mask_format", "tar", "--max_failure_ratio", 1]
    run_job(tmp_path / "out", *options)
    (tmp_path / "in/grey.png").write_bytes(b"no picture any more")
    job = run_job(tmp_path / "out", *options)
    assert [failure["image_id"] for failure in job.failures] == ["grey.png"]
    assert "grey.png.png" not in by_member(tmp_path / "out")
    assert len(by_member(tmp_path / "out")) == len(archive.image_ids) - 1


def test_a_record_is_found_in_its_own_tar_file_alone(tmp_path: Path) -> None:
    record = packed_record("a", "masks/part-0000000000000000-00000.tar", 512)
    other = replace(record, files=(replace(record.files[0], part="masks/part-1111111111111111-00000.tar"),))
    assert next(part_and_size(record)) == (record.files[0].part, member_bytes("a", len(data_of("a"))))
    assert next(part_and_size(other))[0] != record.files[0].part
    assert list(part_and_size(replace(record, files=()))) == []
