"""Local storage: whole files under final names or none, listing in order, and addresses in one form."""

import errno
import fcntl
import os
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from permissions import forbid

from pipeline.core.errors import StorageError
from pipeline.storage import filesystem, retries


def names_below(folder: Path) -> list[str]:
    return [str(Path(stored.uri).relative_to(folder)) for stored in filesystem.list_files(str(folder))]


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("/a/b/", "/a/b"),
        ("/a/../b", "/b"),
        ("file:///a/b", "/a/b"),
        ("gs://bucket/a/", "gs://bucket/a"),
        ("s3://bucket/a//b", "s3://bucket/a//b"),
    ],
)
def test_addresses_come_in_one_form(text: str, address: str) -> None:
    assert filesystem.absolute(text) == address


def test_relative_and_home_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert filesystem.absolute("a/b") == str(tmp_path / "a" / "b")
    assert filesystem.absolute("~/a") == str(tmp_path / "home" / "a")


def test_names_are_joined_and_taken_apart() -> None:
    assert filesystem.join("/a/", "b", "c.png") == "/a/b/c.png"
    assert filesystem.join("/", "b") == "/b"
    assert filesystem.join("gs://bucket", "b") == "gs://bucket/b"
    assert filesystem.base_name("/a/b/") == "b"
    assert filesystem.base_name("gs://bucket/c.png") == "c.png"


def test_what_is_written_is_read_back_and_makes_its_folders(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "deep" / "file.bin")
    filesystem.write_bytes(uri, b"first")
    filesystem.write_bytes(uri, b"second")
    assert filesystem.read_bytes(uri) == b"second"
    assert files_in(tmp_path) == ["file.bin"]


def test_a_scratch_folder_holds_what_is_not_whole_yet(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    filesystem.write_bytes(str(tmp_path / "out" / "file.bin"), b"data", str(scratch))
    assert files_in(tmp_path / "out") == ["file.bin"]
    assert scratch.is_dir()
    assert files_in(scratch) == []


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        filesystem.write_bytes(str(path), b"after")
    assert path.read_bytes() == b"before"
    assert files_in(tmp_path) == ["file.bin"]


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    contents = [bytes([number]) * 200_000 for number in range(8)]
    threads = [threading.Thread(target=filesystem.write_bytes, args=(str(path), content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert files_in(tmp_path) == ["file.bin"]


def race(count: int, act: Callable[[int], bool]) -> list[int]:
    """Numbers of the threads, all released at once, for which `act` returned True."""
    # A thread that can't be started must not leave the others waiting.
    barrier, won = threading.Barrier(count, timeout=60), list[int]()

    def run(number: int) -> None:
        barrier.wait()
        if act(number):
            won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


def test_of_many_writers_of_a_new_file_one_succeeds(tmp_path: Path) -> None:
    for attempt in range(20):
        path = tmp_path / str(attempt) / "lease"
        won = race(8, lambda number, path=path: filesystem.write_if_absent(str(path), b"%d" % number))  # type: ignore[misc]
        assert len(won) == 1
        assert path.read_bytes() == b"%d" % won[0]
        assert files_in(path.parent) == ["lease"]


def test_of_many_writers_of_a_version_one_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    assert filesystem.write_if_absent(str(path), b"first")
    seen = set()
    for attempt in range(20):
        version = filesystem.stat_file(str(path)).version
        assert version not in seen
        seen.add(version)
        won = race(
            8,
            lambda number, attempt=attempt, version=version: filesystem.replace_if_unchanged(  # type: ignore[misc]
                str(path), b"%d of %d" % (number, attempt), version
            ),
        )
        assert len(won) == 1
        assert path.read_bytes() == b"%d of %d" % (won[0], attempt)
    assert files_in(tmp_path) == ["lease"]


def test_a_copy_of_the_lock_s_descriptor_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was forked meanwhile has such copies for as long as it runs."""
    path = tmp_path / "lease"
    assert filesystem.write_if_absent(str(path), b"first")
    version = filesystem.stat_file(str(path)).version
    flock, replace = fcntl.flock, os.replace
    copies: list[int] = []
    second_waits, results = threading.Event(), dict[bytes, bool]()

    def lock(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            copies.append(os.dup(descriptor))
            if len(copies) == 2:
                second_waits.set()
        flock(descriptor, operation)

    def replace_later(source: str, target: str) -> None:
        assert second_waits.wait(60)
        replace(source, target)

    def write(data: bytes) -> None:
        results[data] = filesystem.replace_if_unchanged(str(path), data, version)

    monkeypatch.setattr(fcntl, "flock", lock)
    monkeypatch.setattr(os, "replace", replace_later)
    writers = [threading.Thread(target=write, args=(data,), daemon=True) for data in (b"a", b"b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(20)
    is_waiting = any(writer.is_alive() for writer in writers)
    for descriptor in copies:
        os.close(descriptor)
    assert not is_waiting
    assert sorted(results.values()) == [False, True]


def test_a_replaced_file_has_a_new_version_within_one_tick_of_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_bytes(b"first")
    ahead_ns = time.time_ns() + 3_600 * 10**9
    os.utime(path, ns=(ahead_ns, ahead_ns))
    before = filesystem.stat_file(str(path))
    assert filesystem.replace_if_unchanged(str(path), b"second", before.version)
    assert filesystem.stat_file(str(path)).modified_ns > before.modified_ns
    assert not filesystem.replace_if_unchanged(str(path), b"third", before.version)
    assert path.read_bytes() == b"second"


def test_a_conditional_write_leaves_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lease"
    assert not filesystem.replace_if_unchanged(str(path), b"new", "1")
    assert not path.exists()
    assert filesystem.write_if_absent(str(path), b"old")
    for data in (b"new", b"ol", b"old one"):
        assert not filesystem.write_if_absent(str(path), data)
        assert not filesystem.replace_if_unchanged(str(path), data, "1")
    assert path.read_bytes() == b"old"
    assert files_in(path.parent) == ["lease"]


def test_a_conditional_write_whose_answer_was_lost_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lease"
    link, replace = os.link, os.replace
    lost = iter([True, False, True, False])

    def losing(act: Callable[..., None]) -> Callable[..., None]:
        def acts(*arguments: str) -> None:
            act(*arguments)
            if next(lost):
                raise OSError(errno.EIO, "Input/output error")

        return acts

    monkeypatch.setattr(retries, "FIRST_DELAY_S", 0.0)
    monkeypatch.setattr(os, "link", losing(link))
    assert filesystem.write_if_absent(str(path), b"first")
    monkeypatch.setattr(os, "replace", losing(replace))
    assert filesystem.replace_if_unchanged(str(path), b"second", filesystem.stat_file(str(path)).version)
    assert path.read_bytes() == b"second"
    assert files_in(tmp_path) == ["lease"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_disk_without_links_or_locks_takes_conditional_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    def refuse_lock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse_lock)
    path = tmp_path / "lease"
    assert filesystem.write_if_absent(str(path), b"first")
    assert not filesystem.write_if_absent(str(path), b"other")
    assert path.read_bytes() == b"first"
    version = filesystem.stat_file(str(path)).version
    assert filesystem.replace_if_unchanged(str(path), b"second", version)
    assert not filesystem.replace_if_unchanged(str(path), b"third", version)
    assert path.read_bytes() == b"second"
    assert files_in(tmp_path) == ["lease"]


def test_listing_goes_through_folders_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a.png", "c/d/e.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert names_below(tmp_path) == [".hidden.png", "a.png", "b/1.png", "b/2.png", "c/d/e.png"]
    assert {stored.size_bytes for stored in filesystem.list_files(str(tmp_path))} == {5}


def test_links_to_files_are_listed_and_links_to_folders_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.png").write_bytes(b"far away")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "elsewhere" / "far.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert names_below(tmp_path / "in") == ["link.png"]
    assert next(filesystem.list_files(str(tmp_path / "in"))).size_bytes == len(b"far away")


def test_a_broken_link_is_listed_and_fails_on_reading(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (stored,) = filesystem.list_files(str(tmp_path))
    assert (stored.uri, stored.size_bytes) == (str(tmp_path / "gone.png"), -1)


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert names_below(tmp_path) == []
    assert list(filesystem.list_glob(str(tmp_path / "*.png"))) == []


def test_globs_match_names_and_any_number_of_folders(tmp_path: Path) -> None:
    for name in ("1.png", "2.jpg", "deep/3.png", "deep/deeper/4.png", ".5.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def found(pattern: str) -> list[str]:
        return [str(Path(stored.uri).relative_to(tmp_path)) for stored in filesystem.list_glob(str(tmp_path / pattern))]

    assert found("*.png") == [".5.png", "1.png"]
    assert found("[12].*") == ["1.png", "2.jpg"]
    assert found("deep/?.png") == ["deep/3.png"]
    assert found("**/*.png") == [".5.png", "1.png", "deep/3.png", "deep/deeper/4.png"]
    assert found("**") == [".5.png", "1.png", "2.jpg", "deep/3.png", "deep/deeper/4.png"]
    assert found("d*/**/*.png") == ["deep/3.png", "deep/deeper/4.png"]
    assert found("**/deeper/*") == ["deep/deeper/4.png"]
    assert found("**/deep/**/?.png") == ["deep/3.png", "deep/deeper/4.png"]
    assert found("*.tif") == []
    assert found("nowhere/**/*.png") == []


def test_globs_of_any_number_of_folders_follow_no_link_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "a.png").write_bytes(b"")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "deep" / "up").symlink_to(tmp_path / "in")

    def found(pattern: str) -> list[str]:
        return [str(Path(stored.uri).relative_to(tmp_path)) for stored in filesystem.list_glob(str(tmp_path / pattern))]

    assert found("in/**/*.png") == ["in/a.png"]
    assert found("**/a.png") == ["in/a.png"]
    # A link that the pattern names is followed.
    assert found("in/loop/*.png") == ["in/loop/a.png"]
    assert found("in/loop/**/*.png") == ["in/loop/a.png"]


def test_a_broken_link_matches_a_glob_and_fails_on_reading(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    for pattern in ("*.png", "**/*.png", "gone.png"):
        (stored,) = filesystem.list_glob(str(tmp_path / pattern))
        assert (stored.uri, stored.size_bytes) == (str(tmp_path / "gone.png"), -1)


@pytest.mark.parametrize("name", ["d", "eight_by"], ids=["deeper than Python recurses", "a path longer than PATH_MAX"])
def test_folders_of_any_depth_are_listed(tmp_path: Path, name: str) -> None:
    depth, root = 1_100, os.open(tmp_path, os.O_RDONLY)
    descriptor = os.dup(root)
    try:
        for level in range(depth):
            os.mkdir(name, dir_fd=descriptor)
            below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
            if level in (0, depth - 1):
                os.close(os.open("a.png", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        expected = [f"{tmp_path}/{name}/a.png", f"{tmp_path}/{'/'.join([name] * depth)}/a.png"]
        for found in (filesystem.list_files(str(tmp_path)), filesystem.list_glob(f"{tmp_path}/**/*.png")):
            listed = list(found)
            assert [stored.uri for stored in listed] == expected
            # A file whose path no call takes is listed as a broken link is: the read of it fails.
            assert [stored.size_bytes for stored in listed] == [0, -1 if len(expected[1]) > 4_096 else 0]
    finally:
        os.close(descriptor)
        os.close(root)
        # `shutil.rmtree` recurses.
        subprocess.run(["rm", "-rf", str(tmp_path / name)], check=True)


def test_a_version_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    before = filesystem.stat_file(str(path))
    os.utime(path, ns=(1, 1))
    after = filesystem.stat_file(str(path))
    assert before.version != after.version
    assert before.size_bytes == after.size_bytes
    with pytest.raises(FileNotFoundError):
        filesystem.stat_file(str(tmp_path / "none.png"))


def test_deleting_and_looking(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    assert filesystem.exists(str(path))
    assert filesystem.is_folder(str(tmp_path))
    assert not filesystem.is_folder(str(path))
    filesystem.delete(str(path))
    filesystem.delete(str(path))
    assert not filesystem.exists(str(path))


def test_an_output_is_checked_for_writing_and_left_unchanged(tmp_path: Path) -> None:
    filesystem.check_writable(str(tmp_path / "new" / "out"))
    assert (tmp_path / "new" / "out").is_dir()
    assert files_in(tmp_path) == []


def test_an_output_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in ("file", "file/out"):
        with pytest.raises(StorageError, match="can't be written"):
            filesystem.check_writable(str(tmp_path / folder))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_forbidden_output_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(StorageError, match="Permission denied"):
        filesystem.check_writable(str(tmp_path / "out"))


def listed(folder: Path, pattern: str, on_unreadable: Callable[[str], None] | None) -> list[str]:
    """The files below a folder that match a pattern; all for an empty pattern."""
    if pattern:
        return [stored.uri for stored in filesystem.list_glob(str(folder / pattern), on_unreadable)]
    return [stored.uri for stored in filesystem.list_files(str(folder), on_unreadable)]


@pytest.mark.parametrize("pattern", ["", "*/*.png", "**/*.png", "*/**/*.png"])
def test_folders_without_permission_are_reported_or_raise(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.png", "lost+found/2.png", "z/3.png"):
        filesystem.write_bytes(str(tmp_path / name), b"x")
    forbid(tmp_path / "lost+found", monkeypatch)

    unreadable: list[str] = []
    found = listed(tmp_path, pattern, unreadable.append)
    assert {str(tmp_path / "a/1.png"), str(tmp_path / "z/3.png")} <= set(found)
    assert set(unreadable) == {str(tmp_path / "lost+found")}
    with pytest.raises(PermissionError):
        listed(tmp_path, pattern, None)


@pytest.mark.parametrize("pattern", ["", "*.png", "*/*.png", "**/*.png"])
def test_the_folder_of_a_source_has_to_be_readable(
    pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(tmp_path, monkeypatch)
    unreadable: list[str] = []
    with pytest.raises(PermissionError):
        listed(tmp_path, pattern, unreadable.append)
    assert unreadable == []
