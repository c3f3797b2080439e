"""The parts of the Flink kit that can be tested without a cluster: its settings, packages and worker pool."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2

from pipeline.app.job_options import parse_options
from pipeline.app.runner import choose_runner
from pipeline.core.errors import OptionError
from pipeline.flink.__main__ import run
from pipeline.flink.cluster import Cluster, wait_until
from pipeline.flink.packages import FLINK_VERSION, Packages, fetch_packages, find_packages

ROOT = Path(__file__).resolve().parent.parent
LOOPBACK = "127.0.0.1"
GPU = "type:nvidia-l4;count:1;install-nvidia-driver"


def test_a_missing_program_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MASKBEAM_FLINK_HOME", str(tmp_path / "cache"))
    with pytest.raises(OptionError, match="java and mvn"):
        fetch_packages(tmp_path / "cache")
    assert run(["--input=a", "--model=shapes", "--output=b"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "cache").exists()


def test_half_a_cache_is_no_cache(tmp_path: Path) -> None:
    assert find_packages(tmp_path) is None
    (tmp_path / "flink" / "pyflink" / "lib").mkdir(parents=True)
    assert find_packages(tmp_path) is None
    (tmp_path / f"job-server-{FLINK_VERSION}.jar").touch()
    assert find_packages(tmp_path) is not None


def test_job_server_is_of_the_clusters_flink() -> None:
    pom = (ROOT / "pipeline/flink/pom.xml").read_text("utf-8")
    assert f"<flink.version>{FLINK_VERSION}</flink.version>" in pom
    options = Cluster(Packages(Path("lib"), Path("jar")), Path("nowhere")).beam_options()
    parse_options(["--input=a", "--model=shapes", "--output=b", *options])  # Beam knows each of them
    assert f"--flink_version={FLINK_VERSION}" in options


def test_cluster_listens_on_loopback_alone(tmp_path: Path) -> None:
    cluster = Cluster(Packages(tmp_path, tmp_path / "jar"), tmp_path)
    cluster._write_settings()
    settings = dict(
        line.split(": ", 1) for line in (tmp_path / "conf" / "flink-conf.yaml").read_text("utf-8").splitlines()
    )
    addresses = {name: value for name, value in settings.items() if name.endswith(("host", "address"))}
    assert set(addresses.values()) == {LOOPBACK}
    assert {name for name in addresses if "bind" in name} == {
        *("jobmanager.bind-host", "taskmanager.bind-host", "rest.bind-address"),
    }


def test_a_lost_task_manager_leaves_room() -> None:
    packages = Packages(Path("lib"), Path("jar"))
    for managers, slots in ((2, 2), (3, 1), (1, 4)):
        cluster = Cluster(packages, Path("nowhere"), task_managers=managers, slots=slots)
        assert cluster.parallelism == max(1, managers - 1) * slots


@pytest.fixture
def pool() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The pool's process and port."""
    with socket.socket() as found:
        found.bind((LOOPBACK, 0))
        port = found.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.flink.pool", f"--port={port}"]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
    try:

        def listens() -> bool:
            with socket.socket() as client:
                client.settimeout(5)
                return client.connect_ex((LOOPBACK, port)) == 0

        assert wait_until(listens, 120)
        yield process, port
    finally:
        process.kill()
        process.wait(30)


def children_of(pid: int) -> list[int]:
    """The processes that any thread of a process has started."""
    return sorted(
        int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are counted in /proc, which only Linux has")
def test_pool_starts_workers_and_ends_them(pool: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = pool
    # A task manager that accepts connections and never answers: the worker waits for it.
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        silent.listen()
        nowhere = endpoints_pb2.ApiServiceDescriptor(url=f"{LOOPBACK}:{silent.getsockname()[1]}")
        with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            request = beam_fn_api_pb2.StartWorkerRequest(
                worker_id="1-1", control_endpoint=nowhere, logging_endpoint=nowhere, provision_endpoint=nowhere
            )
            for _ in range(2):  # two task managers give the same ids
                assert stub.StartWorker(request, timeout=30).error == ""
            workers = children_of(process.pid)
            assert len(workers) == 2
            stub.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-1"), timeout=30)
            assert children_of(process.pid) == workers
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30)


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called java, which these tests never start."""
    (tmp_path / "java").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_what_the_job_server_lacks_is_said_before_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, java: None
) -> None:
    with pytest.raises(OptionError, match=r"nowhere\.jar: no such file"):
        choose_runner(PipelineOptions(["--runner=FlinkRunner", f"--flink_job_server_jar={tmp_path}/nowhere.jar"]))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OptionError, match="needs Java"):
        choose_runner(PipelineOptions(["--runner=FlinkRunner"]))


@pytest.mark.usefixtures("java")
@pytest.mark.parametrize(
    ("options", "threads", "processes"),
    [([], 0, 1), (["--sdk_worker_parallelism=4"], 0, 4), (["--sdk_worker_parallelism=0"], 1, 1)],
)
def test_workers_share_the_cores_of_their_machine(options: list[str], threads: int, processes: int) -> None:
    runner = choose_runner(
        PipelineOptions(["--runner=FlinkRunner", "--flink_master=localhost:1", "--environment_type=LOOPBACK", *options])
    )
    assert (runner.threads, runner.processes) == (threads, processes)
    assert runner.is_waited_for
    assert not runner.is_local


@pytest.mark.usefixtures("java")
def test_accelerators_leave_the_jobs_hints_for_the_steps() -> None:
    options = PipelineOptions(
        ["--runner=FlinkRunner", f"--resource_hints=accelerator={GPU}", "--resource_hints=min_ram=2GB"]
    )
    assert choose_runner(options).accelerator == GPU
    assert options.view_as(StandardOptions).resource_hints == ["min_ram=2GB"]
