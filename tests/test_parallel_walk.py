"""Walking a tar with many reads at a time: what one read after the other finds, in fewer turns and few bytes more."""

import random
import tarfile
import threading
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.archives import parallel
from pipeline.sources.archives.members import Fault, Member
from pipeline.sources.archives.parallel import walk_tar_in_parallel
from pipeline.sources.archives.tar import walk_tar
from pipeline.storage import filesystem


class _Store:
    """Bytes that take their time, and count who asked for them."""

    def __init__(self, data: bytes, answer_s: float = 0.0) -> None:
        self._data = data
        self._answer_s = answer_s
        self._lock = threading.Lock()
        self.reads: Counter[int] = Counter()
        self.bytes = 0

    def read_at(self, offset: int, length: int) -> bytes:
        if self._answer_s:
            time.sleep(self._answer_s)
        data = self._data[offset : offset + length]
        with self._lock:
            self.reads[threading.get_ident()] += 1
            self.bytes += len(data)
        return data


def _member(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, tar_format: int = tarfile.GNU_FORMAT
) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info.tobuf(tar_format) + data + bytes(-len(data) % 512)


def _global_header(**records: str) -> bytes:
    return tarfile.TarInfo.create_pax_global_header(records)


_kinds = st.sampled_from(
    ["plain"] * 6
    + ["empty", "folder", "long name", "pax name", "link", "sparse", "own size", "base 256"]
    + ["nested", "nested, cut", "a header", "zeros", "comment", "shared name", "end"]
)


def _part(kind: str, number: int, size: int) -> bytes:
    noise = random.Random(number).randbytes(size)
    name = f"{number:03d}.png"
    if kind == "long name":
        return _member("long/" * 30 + name, noise)
    if kind == "pax name":
        return _member(f"ünï/{name}" * 20, noise, tar_format=tarfile.PAX_FORMAT)
    if kind == "empty":
        return _member(name)
    if kind == "folder":
        return _member(f"folder{number}/", kind=tarfile.DIRTYPE)
    if kind == "link":
        return _member(name, kind=tarfile.SYMTYPE)
    if kind == "sparse":
        return _member(name, noise, kind=tarfile.GNUTYPE_SPARSE)
    if kind == "own size":
        # A pax header's size counts, not the header's own.
        whole = _member(name, noise)
        pax = tarfile.TarInfo(name)
        pax.pax_headers = {"size": str(size)}
        return pax.tobuf(tarfile.PAX_FORMAT)[:-512] + _member(name)[:512] + whole[512:]
    if kind == "base 256":
        header = bytearray(_member(name, noise))
        header[124:136] = b"\x80" + size.to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header[:512])
        return bytes(header)
    if kind.startswith("nested"):
        inner = b"".join(_member(f"inner{n}.png", noise[: size // 2]) for n in range(9)) + bytes(1024)
        return _member(f"{number}.tar.png", inner[: len(inner) // 2] if kind == "nested, cut" else inner)
    if kind == "a header":
        return _member(name, noise[: size // 512 * 512] + _member("no member.png", noise)[:512])
    if kind == "zeros":
        return _member(name, bytes(size))
    if kind == "comment":
        return _global_header(comment="made by a test")
    if kind == "shared name":
        return _global_header(path="all the same.png")
    if kind == "end":
        return bytes(512)
    return _member(name, noise)


def _both(data: bytes, members: int, threads: int) -> tuple[list[Member | Fault], list[Member | Fault]]:
    return list(walk_tar(_Store(data))), list(
        walk_tar_in_parallel(_Store(data), len(data), members=members, threads=threads)
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(_kinds, st.integers(0, 4_000)), min_size=40, max_size=120),
    st.floats(0.2, 1.2),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=2),
    st.integers(2, 6),
    st.integers(1, 4),
)
def test_any_tar_is_walked_as_one_header_after_the_other(
    parts: list[tuple[str, int]], cut: float, spoilt: list[tuple[float, int]], members: int, threads: int
) -> None:
    # Behind these nothing is walked, or nothing is guessed: most tars shall get further than that.
    parts = [(kind, size) for at, (kind, size) in enumerate(parts) if at > 60 or kind not in ("end", "shared name")]
    data = bytearray(b"".join(_part(kind, number, size) for number, (kind, size) in enumerate(parts)) + bytes(1024))
    for place, value in spoilt if cut < 0.6 else ():
        data[int(place * (len(data) - 1))] = value
    one_by_one, at_once = _both(bytes(data[: int(cut * len(data))]), members, threads)
    assert at_once == one_by_one


def _archive(count: int, size: int, *, tar_format: int = tarfile.GNU_FORMAT, name: str = "{:06d}.png") -> bytes:
    sizes = random.Random(count).choices(range(size // 2, size * 3 // 2), k=count)
    noise = random.Random(size).randbytes(size * 2)
    return b"".join(
        _member(name.format(n), noise[:each], tar_format=tar_format) for n, each in enumerate(sizes)
    ) + bytes(1024)


@pytest.mark.parametrize(
    ("kind", "reads_a_member"),
    [("plain", 1), ("pax", 2), ("nested", 1), ("comment", 1), ("shared name", 2), ("growing", 1), ("shrinking", 1)],
)
def test_turns_and_bytes(kind: str, reads_a_member: int) -> None:
    data = _archive(3_000, 3_000)
    if kind == "pax":
        data = _archive(3_000, 3_000, tar_format=tarfile.PAX_FORMAT, name="ünï/{:06d}.png")
    elif kind == "nested":
        data = b"".join(_member(f"{n}.tar.png", data[: len(data) // 20]) for n in range(3)) + data
    elif kind in ("comment", "shared name"):
        data = _global_header(**({"comment": "x"} if kind == "comment" else {"path": "x.png"})) + data
    elif kind == "growing":
        data = _archive(1_000, 1_000)[:-1024] + _archive(800, 12_000)
    elif kind == "shrinking":
        data = _archive(500, 12_000)[:-1024] + _archive(3_000, 1_000)
    one_by_one = _Store(data)
    expected = list(walk_tar(one_by_one))
    store = _Store(data, answer_s=0.0005)
    assert list(walk_tar_in_parallel(store, len(data), members=32, threads=8)) == expected
    # The headers themselves are fetched either way; what is fetched in vain is a sixteenth of the archive at most.
    assert store.bytes < one_by_one.bytes + len(data) / 16 + 200_000
    turns = max(store.reads.values())
    if kind == "shared name":
        # If a header applies to all members after it, none can be read by itself.
        assert len(store.reads) == 1
    else:
        assert turns < reads_a_member * len(expected) / 3
        assert sum(store.reads.values()) < 1.35 * sum(one_by_one.reads.values())


def test_the_usual_archive_costs_few_bytes_more(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _archive(4_000, 20_000)
    store = _Store(data)
    found = list(walk_tar_in_parallel(store, len(data)))
    assert len(found) == 4_000
    headers = 512 * 4_000
    assert store.bytes < headers + 0.02 * len(data)


def test_a_segment_that_holds_more_than_was_thought_is_followed_for_a_while() -> None:
    data = _archive(3_000, 1_000)
    ahead = parallel._Round(_Store(data), 0, len(data), 10_000_000, 8, 1)
    chain = ahead._follow(0, len(data), threading.Event())
    assert chain.members == [item for item in walk_tar(_Store(data)) if isinstance(item, Member)][: len(chain.members)]
    assert 8 <= len(chain.members) <= 8 * 8


def test_a_look_at_the_first_member_starts_no_thread() -> None:
    store = _Store(_archive(3_000, 3_000))
    walk = walk_tar_in_parallel(store, 10**7)
    assert isinstance(next(walk), Member)
    walk.close()  # type: ignore[attr-defined]
    assert sum(store.reads.values()) == 1


def test_what_a_guess_can_t_read_is_read_by_the_sequential_walk() -> None:
    data = _archive(2_000, 2_000)

    class Failing(_Store):
        def read_at(self, offset: int, length: int) -> bytes:
            if threading.current_thread() is not threading.main_thread() and offset % 3 == 0:
                raise OSError("the store is down")
            return super().read_at(offset, length)

    assert list(walk_tar_in_parallel(Failing(data), len(data), members=16, threads=4)) == list(walk_tar(_Store(data)))


def test_only_large_tars_in_buckets_are_walked_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _archive(1_200, 2_000)
    threads: set[int] = set()

    def read_range(uri: str, offset: int, length: int) -> bytes:
        threads.add(threading.get_ident())
        return data[offset : offset + length]

    monkeypatch.setattr(filesystem, "read_range", read_range)
    expected = list(walk_tar(_Store(data)))
    for uri, size_bytes, is_parallel in (("s3://b/x.tar", len(data), True), ("/x.tar", len(data), False)):
        threads.clear()
        assert list(parallel.walk_stored_tar(uri, size_bytes)) == expected
        assert (len(threads) > 1) is is_parallel
