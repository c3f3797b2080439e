"""Wrong archives of every kind: each walk ends, in bounded memory, with failures and never with another exception."""

import os
from collections import Counter
from dataclasses import replace

import pytest
from archive_mutants import Mutant, mutants
from memory_growth import growth

from pipeline.core.records import Failure
from pipeline.sources.archives.members import Fault, Member
from pipeline.sources.archives.parallel import walk_tar_in_parallel
from pipeline.sources.archives.spool import SPOOL_FOLDER
from pipeline.sources.archives.tar import walk_tar
from pipeline.sources.ignored import Ignored
from pipeline.sources.reading import FileReader
from pipeline.sources.source import Listed
from pipeline.sources.sources import parse_sources
from pipeline.storage import filesystem
from pipeline.storage.stored_file import StoredFile

OUTPUT = "/fuzz/out"
FAULTS = {"BrokenArchive", "Truncated", "UnsafeName", "NotAFile", "Empty", "TooLarge", "NoImage"}

MAX_UNPACKED = 1032
"""Deflate unpacks a byte to so many at most."""


class _Store:
    """Files in memory. Every read is counted, and a walk that doesn't come to its end fails for that."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.reads_left = 0

    def read_range(self, uri: str, offset: int, length: int) -> bytes:
        self.reads_left -= 1
        assert self.reads_left >= 0, "the walk reads on and on"
        # File systems refuse offsets far beyond. A zip's local header can claim 128 KiB of name and extra fields.
        assert 0 <= offset <= len(self.files[uri]) + (128 << 10), f"a read at byte {offset:,}"
        assert 0 <= length <= 16 << 20, f"{length:,} bytes are asked for"
        return self.files[uri][offset : offset + length]

    def write_bytes(self, uri: str, data: bytes, scratch: str | None = None) -> None:
        self.files[uri] = bytes(data)

    def stat_file(self, uri: str) -> StoredFile:
        return StoredFile(uri, len(self.files[uri]), "version")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> _Store:
    """Takes the place of the storage, whose calls for files the sources use."""
    memory = _Store()
    for name in ("read_range", "write_bytes", "stat_file"):
        monkeypatch.setattr(filesystem, name, getattr(memory, name))
    monkeypatch.setattr(filesystem, "exists", lambda uri: uri in memory.files)
    return memory


def _fuzz(store: _Store, mutant: Mutant) -> list[str]:
    """Lists and reads one mutant; gives the kinds of what came of it."""
    uri = f"/fuzz/x{mutant.ending}"
    store.files = {uri: mutant.data}
    [[source]] = parse_sources([uri], "--input")
    size = len(mutant.data) * (MAX_UNPACKED if mutant.data.startswith(b"\x1f\x8b") else 1)
    store.reads_left = 32 + len(mutant.data) // 8
    read, items, pictures = FileReader(OUTPUT), [], []
    for item in replace(source, spool=f"{OUTPUT}/{SPOOL_FOLDER}").items():
        items.append(item)
        assert len(items) <= 4 + size // 16, "the walk does not end"
    kinds = []
    for item in items:
        kinds.append(item.error_type if isinstance(item, Failure) else type(item).__name__)
        if isinstance(item, Failure):
            assert item.error_type in FAULTS
            assert 0 < len(item.message) < 300
            (item.image_id + item.source_uri + item.message).encode()
        elif isinstance(item, Listed):
            store.reads_left = 8
            try:
                data = read(item.file)
            except (OSError, ValueError):
                kinds.append("unreadable")
                data = b""
            else:
                assert len(data) == item.file.size_bytes
            pictures.append((item.image_id, len(data)))
        else:
            assert isinstance(item, Ignored)
    kept = pictures[: len(mutant.kept)]
    assert [name for name, _ in kept] == list(mutant.kept)
    assert all(size > 0 for _, size in kept)
    return kinds


def _fuzz_many(store: _Store, count: int, seed: int) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for number, mutant in enumerate(mutants(count, seed)):
        try:
            kinds.update(_fuzz(store, mutant))
        except Exception as error:
            error.add_note(f"mutant {number} of seed {seed}, {mutant.ending}")
            raise
    return kinds


def test_wrong_archives_end_as_pictures_and_failures(store: _Store) -> None:
    with growth() as grown:
        kinds = _fuzz_many(store, 6_000, 1)
    # Mutants that all fail the same check would test little.
    assert set(kinds) >= {*FAULTS, "Listed", "Ignored", "unreadable"}
    assert grown[0] < 64 << 20


@pytest.mark.full
def test_a_hundred_thousand_wrong_archives(store: _Store) -> None:
    with growth() as grown:
        kinds = _fuzz_many(store, 100_000, int(os.environ.get("FUZZ_SEED", "2")))
    print(f"{dict(kinds)}, memory rose by {grown[0] >> 20} MiB")
    assert grown[0] < 64 << 20


def test_wrong_tars_are_walked_in_parallel_as_one_header_after_the_other() -> None:
    for mutant in mutants(1_500, 3):
        if mutant.ending != ".tar":
            continue
        data = _Bytes(mutant.data * 6)
        one_by_one: list[Member | Fault] = list(walk_tar(data))
        at_once = list(walk_tar_in_parallel(data, len(data.data), members=3, threads=3))
        assert at_once == one_by_one


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset >= 0
        return self.data[offset : offset + length]
