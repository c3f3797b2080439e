"""An output belongs to one run: a second one gets an error, the output of an ended one can be taken at once."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from scripted_store import Request, scripted_store
from small_archive import TINY_MODEL, Archive, run_job

from pipeline.core.errors import OutputInUseError
from pipeline.core.records import Failure
from pipeline.output import lease, lease_renewal
from pipeline.output.holder import Holder, process_state
from pipeline.output.journal import Journal
from pipeline.output.lease import VALID_S, check_free, release, renew, take
from pipeline.output.lease_renewal import LeaseRenewer, release_lease, renewer_of

ROOT = Path(__file__).resolve().parent.parent
ELSEWHERE = Holder("first", "machine-a", started_s=1_700_000_000.0)
SECOND = Holder("second", "machine-b", started_s=1_700_000_100.0)
OUTCOME = Failure("a.png", "/a.png", "decode", "Broken", "it is broken", "f")


def lease_file(output: Path) -> Path:
    return output / "_progress/lease.json"


def age(output: Path, seconds: float) -> None:
    """Makes the lease look as if it had been renewed earlier."""
    document = json.loads(lease_file(output).read_text())
    document["expires_s"] -= seconds
    lease_file(output).write_text(json.dumps(document))


def until_raised(act: Callable[[], None]) -> None:
    """Repeats something until it raises."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        act()
        time.sleep(0.02)


def test_an_output_is_taken_once(tmp_path: Path) -> None:
    output = str(tmp_path)
    check_free(output)
    take(output, ELSEWHERE)
    take(output, ELSEWHERE)  # as a repeated bundle does
    with pytest.raises(OutputInUseError, match="started on machine-a at 2023-11-14 22:13:20 UTC"):
        take(output, SECOND)
    with pytest.raises(OutputInUseError, match="machine-a"):
        check_free(output)
    release(output, SECOND)  # which doesn't have it
    assert lease_file(tmp_path).exists()
    release(output, ELSEWHERE)
    assert not lease_file(tmp_path).exists()
    take(output, SECOND)


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    start = threading.Barrier(16)

    def attempt(number: int) -> bool:
        start.wait()
        try:
            take(str(tmp_path), Holder(f"{number}", "here"))
        except OutputInUseError:
            return False
        return True

    for _ in range(5):
        with ThreadPoolExecutor(16) as threads:
            assert sum(threads.map(attempt, range(16))) == 1
        age(tmp_path, VALID_S + 1)  # the next round finds an expired one
    assert sorted(path.name for path in (tmp_path / "_progress").iterdir()) == ["lease.json"]


def test_a_lease_that_another_run_takes_in_between_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(str(tmp_path), ELSEWHERE)
    age(tmp_path, VALID_S + 1)
    replace_if_unchanged = lease.filesystem.replace_if_unchanged
    third = Holder("third", "machine-c", started_s=1_700_000_200.0)

    def after_another(uri: str, content: bytes, version: str) -> bool:
        monkeypatch.setattr(lease.filesystem, "replace_if_unchanged", replace_if_unchanged)
        take(str(tmp_path), third)
        return replace_if_unchanged(uri, content, version)

    monkeypatch.setattr(lease.filesystem, "replace_if_unchanged", after_another)
    with pytest.raises(OutputInUseError, match="machine-c"):
        take(str(tmp_path), SECOND)
    assert renew(str(tmp_path), third)


def test_a_lease_that_was_not_renewed_can_be_taken(tmp_path: Path) -> None:
    take(str(tmp_path), ELSEWHERE)
    age(tmp_path, VALID_S - 1)
    with pytest.raises(OutputInUseError):
        take(str(tmp_path), SECOND)
    age(tmp_path, 1.5)
    check_free(str(tmp_path))
    take(str(tmp_path), SECOND)
    assert not renew(str(tmp_path), ELSEWHERE)


def test_renewing_extends_a_lease_only_when_half_of_it_is_over(tmp_path: Path) -> None:
    take(str(tmp_path), ELSEWHERE)
    before = lease_file(tmp_path).read_bytes()
    assert renew(str(tmp_path), ELSEWHERE)
    assert lease_file(tmp_path).read_bytes() == before
    age(tmp_path, VALID_S * 0.6)
    assert renew(str(tmp_path), ELSEWHERE)
    assert json.loads(lease_file(tmp_path).read_bytes())["expires_s"] > time.time() + VALID_S * 0.9
    release(str(tmp_path), ELSEWHERE)
    assert not renew(str(tmp_path), ELSEWHERE)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"holder": 7}', b'{"holder": {}, "expires_s": 9e99, "token": ""}']
)
def test_a_file_that_is_not_a_lease_blocks_no_run(tmp_path: Path, content: bytes) -> None:
    lease_file(tmp_path).parent.mkdir()
    lease_file(tmp_path).write_bytes(content)
    check_free(str(tmp_path))
    take(str(tmp_path), SECOND)
    assert renew(str(tmp_path), SECOND)


def test_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    take(str(tmp_path), ELSEWHERE)
    document = json.loads(lease_file(tmp_path).read_text())
    document["holder"]["invented_later"] = 1
    lease_file(tmp_path).write_text(json.dumps(document))
    with pytest.raises(OutputInUseError):
        check_free(str(tmp_path))


def launched_by(process: subprocess.Popen[bytes]) -> Holder:
    """What another process of this machine would be as the launcher of a run."""
    mine = Holder.launched(ends_with_launcher=True)
    return replace(mine, run_id="theirs", pid=process.pid, process_started=process_state(process.pid)[1])


def test_the_lease_of_a_dead_process_of_this_machine_can_be_taken_at_once(tmp_path: Path) -> None:
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    holder = launched_by(sleeping)
    take(str(tmp_path), holder)
    with pytest.raises(OutputInUseError, match=f"process {sleeping.pid}"):
        take(str(tmp_path), SECOND)
    # Elsewhere the number means nothing.
    os.kill(sleeping.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while True:  # dead, though its parent has not asked for its status
        try:
            check_free(str(tmp_path))
            break
        except OutputInUseError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    sleeping.wait()
    check_free(str(tmp_path))
    take(str(tmp_path), SECOND)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say when a process was started")
def test_another_process_with_the_same_id_is_recognised(tmp_path: Path) -> None:
    mine = Holder.launched(ends_with_launcher=True)
    take(str(tmp_path), replace(mine, process_started="1"))
    check_free(str(tmp_path))


@pytest.mark.parametrize("changes", [{"machine": "another boot"}, {"machine": ""}, {"pid": 0}])
def test_a_process_that_cannot_be_seen_counts_as_alive(tmp_path: Path, changes: dict[str, Any]) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    holder = launched_by(ended)
    ended.wait()
    take(str(tmp_path), replace(holder, **changes))
    with pytest.raises(OutputInUseError):
        check_free(str(tmp_path))


def test_a_renewer_renews_and_notices_that_the_lease_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "VALID_S", 0.4)
    take(str(tmp_path), ELSEWHERE)
    kept = LeaseRenewer(str(tmp_path), ELSEWHERE, check_s=0.02)
    time.sleep(1.0)  # without the renewal it would have expired
    with pytest.raises(OutputInUseError):
        take(str(tmp_path), SECOND)
    kept.check()
    document = json.loads(lease_file(tmp_path).read_text())
    lease_file(tmp_path).write_text(json.dumps(document | {"holder": asdict(SECOND)}))
    with pytest.raises(OutputInUseError, match="taken over"):
        until_raised(kept.check)


def test_a_renewer_tolerates_a_store_that_fails_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(str(tmp_path), ELSEWHERE)
    failed = threading.Event()

    def fail(*_: object) -> bool:
        failed.set()
        raise OSError(5, "no store")

    with monkeypatch.context() as patched:
        patched.setattr(lease_renewal, "renew", fail)
        kept = LeaseRenewer(str(tmp_path), ELSEWHERE, check_s=0.01)
        assert failed.wait(30)
    kept.check()
    kept.stop()


def test_a_stopped_renewer_ends_before_its_next_check(tmp_path: Path) -> None:
    take(str(tmp_path), ELSEWHERE)
    before = set(threading.enumerate())
    kept = LeaseRenewer(str(tmp_path), ELSEWHERE, check_s=600)
    (thread,) = set(threading.enumerate()) - before
    kept.stop()
    thread.join(10)
    assert not thread.is_alive()
    kept.check()


def test_a_process_has_one_renewer_a_run(tmp_path: Path) -> None:
    take(str(tmp_path), ELSEWHERE)
    first = renewer_of(str(tmp_path), ELSEWHERE)
    assert renewer_of(str(tmp_path), ELSEWHERE) is first
    release_lease(str(tmp_path), ELSEWHERE)
    assert not lease_file(tmp_path).exists()
    take(str(tmp_path), ELSEWHERE)
    assert renewer_of(str(tmp_path), ELSEWHERE) is not first
    release_lease(str(tmp_path), ELSEWHERE)


def test_a_run_that_lost_its_output_records_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_renewal, "CHECK_S", 0.02)
    take(str(tmp_path), ELSEWHERE)
    book = Journal(str(tmp_path), ELSEWHERE)
    book.add([OUTCOME])
    age(tmp_path, VALID_S + 1)
    take(str(tmp_path), SECOND)
    with pytest.raises(OutputInUseError):
        until_raised(lambda: book.add([OUTCOME]))
    release_lease(str(tmp_path), ELSEWHERE)
    assert lease_file(tmp_path).exists()  # the second run's


# Whole jobs.


def test_a_second_job_in_an_output_ends_with_a_line(archive: Archive, tmp_path: Path) -> None:
    done = run_job(tmp_path / "out", "--input", archive.images)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    take(str(tmp_path / "out"), ELSEWHERE)
    for existing in ("resume", "overwrite"):
        refused = run_job(tmp_path / "out", "--input", archive.images, "--existing", existing)
        assert refused.status == 2
        assert refused.err.count("\n") == 1
        assert "is in use by a run that was started on machine-a at 2023-11-14 22:13:20 UTC" in refused.err
    release(str(tmp_path / "out"), ELSEWHERE)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    again = run_job(tmp_path / "out", "--input", archive.images)
    assert (done.status, again.status, again.summary["run"]["resumed"]) == (0, 0, 20)
    assert not lease_file(tmp_path / "out").exists()


def test_a_job_that_is_overtaken_at_its_start_ends_with_the_line(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.output import earlier_run

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(earlier_run, "check_free", lambda output: take(output, ELSEWHERE))
    refused = run_job(tmp_path / "out", "--input", archive.images)
    assert refused.status == 1
    assert "in use by a run that was started on machine-a" in refused.err.splitlines()[-1]
    assert not (tmp_path / "out/masks").exists()
    assert lease_file(tmp_path / "out").exists()


def test_two_jobs_at_once_leave_one_run_s_masks(archive: Archive, tmp_path: Path) -> None:
    picture = (archive.images / "sideways.jpg").read_bytes()
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / f"in/{number}.jpg").write_bytes(picture)
    is_refused = threading.Event()

    def answer(request: Request) -> None:
        # The run that has the output can't end before the other has.
        if request.method == "GET":
            is_refused.wait()

    with scripted_store() as server:
        server.objects["/last.jpg"] = picture
        server.answer = answer
        rows = [f"in/{number}.jpg,{number}.jpg" for number in range(40)] + [f"{server.url}/last.jpg,last.jpg"]
        (tmp_path / "pictures.csv").write_text("\n".join(["image,image_id", *rows]))
        command = [sys.executable, "-m", "pipeline", "--input", str(tmp_path / "pictures.csv")]
        command += ["--model", str(TINY_MODEL), "--output", str(tmp_path / "out")]
        logs = [tmp_path / "0.log", tmp_path / "1.log"]
        jobs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log.open("w")) for log in logs]
        try:
            deadline = time.monotonic() + 300
            while all(job.poll() is None for job in jobs):
                assert time.monotonic() < deadline, "both run"
                time.sleep(0.05)
            refused = next(number for number, job in enumerate(jobs) if job.poll() is not None)
            said = logs[refused].read_text()
            assert jobs[refused].returncode in (1, 2), said
            assert "is in use by a run" in said
            assert "Traceback" not in said
            assert jobs[1 - refused].poll() is None
            is_refused.set()
            assert jobs[1 - refused].wait(timeout=300) == 0, logs[1 - refused].read_text()
        finally:
            is_refused.set()
            for job in jobs:
                job.kill()
                job.wait()
    assert len([path for path in (tmp_path / "out/masks").rglob("*") if path.is_file()]) == 41
    assert not lease_file(tmp_path / "out").exists()


def test_a_killed_job_can_be_resumed_at_once(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(1500):
        (tmp_path / f"in/{number}.jpg").hardlink_to(archive.images / "sideways.jpg")
    command = [sys.executable, "-m", "pipeline", "--input", str(tmp_path / "in"), "--model", str(TINY_MODEL)]
    command += ["--output", str(tmp_path / "out")]
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "out").glob("masks/*")):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.kill()
    job.wait()
    assert lease_file(tmp_path / "out").exists()
    resumed = run_job(tmp_path / "out", "--input", tmp_path / "in")
    assert (resumed.status, resumed.summary["images"]["segmented"]) == (0, 1500)
