"""The same job on a real Flink cluster: two task managers with worker pools, undisturbed and with plugs pulled."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_archive import Finished, run_job

from pipeline.core.errors import OptionError
from pipeline.flink.cluster import Cluster, wait_until
from pipeline.flink.packages import Packages, default_cache, fetch_packages, missing_tools

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 150
WORKER = "pipeline.flink.worker"
JOB_LIMIT_S = 900

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(bool(missing_tools()), reason=f"Flink needs {' and '.join(missing_tools())} on the PATH"),
]


@pytest.fixture(scope="module")
def packages() -> Packages:
    """Flink and the job server, fetched once a machine."""
    try:
        return fetch_packages(default_cache())
    except OptionError as error:
        pytest.skip(f"Flink's packages can't be had: {error}")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample archive, large enough that there is a middle."""
    folder = tmp_path_factory.mktemp("flink") / "sample"
    command = [sys.executable, "-m", "model", "sample", "--output", folder, "--count", str(PICTURES), "--seed", "5"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    return folder


def options(pictures: Path) -> list[str]:
    """What every run here is given, besides the output and the runner."""
    return [f"--input={pictures}/images", f"--ground_truth={pictures}/masks", "--threads=1"]


@pytest.fixture(scope="module")
def expected(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The same job on FnApiRunner."""
    finished = run_job(tmp_path_factory.mktemp("expected") / "out", *options(pictures), model="shapes")
    assert finished.status == 0, finished.err
    return finished


@pytest.fixture
def cluster(packages: Packages, tmp_path: Path) -> Iterator[Cluster]:
    """A separate cluster for each test, which leaves no process running at its end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Cluster(packages, tmp_path / "cluster", environment=environment) as running:
        yield running
    assert wait_until(lambda: not processes_of(str(tmp_path)), 30), "processes are left"


def processes_of(text: str) -> list[int]:
    """The processes of this machine whose command line or environment names a text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            content = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in content:
            found.append(int(process.name))
    return found


def workers_of(cluster: Cluster) -> list[int]:
    """The worker processes that this cluster's pool has started."""
    children = []
    for pid in processes_of(WORKER):
        status = Path(f"/proc/{pid}/status")
        try:
            parent = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("PPid:"))
        except (OSError, StopIteration):
            continue
        if int(parent) == cluster.pool.pid:
            children.append(pid)
    return sorted(children)


def run_on(cluster: Cluster, output: Path, pictures: Path, disturb: Callable[[], None] | None = None) -> Finished:
    """Runs the job in this process; `disturb` is called once a third of the masks is written."""
    fault: list[BaseException] = []

    def watch() -> None:
        def a_third() -> bool:
            return sum(1 for _ in output.glob("masks/**/*.png")) >= PICTURES // 3

        try:
            assert wait_until(a_third, JOB_LIMIT_S, 0.1), "the job never got to its middle"
            assert not (output / "summary.json").exists()
            assert disturb is not None
            disturb()
        except BaseException as error:
            fault.append(error)

    watcher = threading.Thread(target=watch, daemon=True)
    if disturb is not None:
        watcher.start()
    begin = time.monotonic()
    finished = run_job(output, *options(pictures), *cluster.beam_options(), model="shapes")
    print(f"{output.parent.name}: {PICTURES} pictures, {time.monotonic() - begin:.0f} s, status {finished.status}")
    if disturb is not None:
        watcher.join(60)
        assert not watcher.is_alive()
    assert fault == []
    return finished


def faults(cluster: Cluster) -> int:
    """How many faults the finished job has come through."""
    (job,) = cluster.get("/jobs/overview")["jobs"]
    assert job["state"] == "FINISHED"
    return len(cluster.get(f"/jobs/{job['jid']}/exceptions")["exceptionHistory"]["entries"])


def assert_same(finished: Finished, expected: Finished) -> None:
    """The same masks, tables and failures to the byte, the same summary but for `run`."""
    assert finished.status == 0, finished.err
    assert finished.contents() == expected.contents()
    assert len(finished.contents()) > PICTURES
    assert without_run(finished.summary) == without_run(expected.summary)


def without_run(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if name != "run"}


def test_flink_gives_the_same_bytes(cluster: Cluster, pictures: Path, expected: Finished, tmp_path: Path) -> None:
    finished = run_on(cluster, tmp_path / "out", pictures)
    assert_same(finished, expected)
    assert faults(cluster) == 0
    assert finished.summary["run"]["options"]["runner"] == "FlinkRunner"


def test_a_killed_task_manager_changes_nothing(
    cluster: Cluster, pictures: Path, expected: Finished, tmp_path: Path
) -> None:
    finished = run_on(cluster, tmp_path / "out", pictures, lambda: kill(cluster.task_managers[0].pid))
    assert_same(finished, expected)
    assert faults(cluster) >= 1
    assert cluster.get("/overview")["taskmanagers"] == 1


def test_a_killed_worker_changes_nothing(cluster: Cluster, pictures: Path, expected: Finished, tmp_path: Path) -> None:
    killed: list[int] = []

    def disturb() -> None:
        killed.append(workers_of(cluster)[0])
        kill(killed[0])

    finished = run_on(cluster, tmp_path / "out", pictures, disturb)
    assert_same(finished, expected)
    assert faults(cluster) >= 1
    assert cluster.get("/overview")["taskmanagers"] == 2
    assert killed[0] not in workers_of(cluster)


def kill(pid: int) -> None:
    """Pulls the plug of one process."""
    os.kill(pid, signal.SIGKILL)


def test_a_terminated_command_leaves_nothing_running(packages: Packages, pictures: Path, tmp_path: Path) -> None:
    """`python -m pipeline.flink` as a user starts it, ended by `kill` in the middle."""
    output = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.flink", "--flink_logs", str(tmp_path / "cluster"), "--model=shapes"]
    command += [*options(pictures), f"--output={output}"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or any(output.glob("masks/**/*.png")), JOB_LIMIT_S)
        assert process.poll() is None, "the command ended before its first mask"
        assert any(output.glob("masks/**/*.png"))
        assert processes_of(str(tmp_path))
        process.terminate()
        assert process.wait(120) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait(30)
    assert wait_until(lambda: not processes_of(str(tmp_path)), 60), "processes are left"
    assert not (output / "summary.json").exists()
