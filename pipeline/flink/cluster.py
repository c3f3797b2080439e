"""A standalone Flink cluster on this machine, on loopback only: a job manager, task managers, a pool of workers."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.core.errors import MaskbeamError
from pipeline.flink.packages import FLINK_VERSION, Packages
from pipeline.flink.pool import LOOPBACK, stop_processes

_START_LIMIT_S = 120
_STOP_LIMIT_S = 15
_ANSWER_LIMIT_S = 10
_JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
_TASK_HEAP_MB = 256
# An idle worker is kept for this time, which covers the gaps between a job's stages. It is short because a job that
# restarts after a failure must wait until dead workers are forgotten.
_WORKERS_KEPT_S = 10
_RESTART_AFTER_S = 2 * _WORKERS_KEPT_S
# Flink needs access to these packages of Java 17; its own start scripts open the same ones.
_OPENED = """java.lang java.net java.io java.nio sun.nio.ch java.lang.reflect java.text java.time java.util
    java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks""".split()
_LOG4J = """rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %-40.40c %m%n
"""


class ClusterError(MaskbeamError):
    """The cluster can't be started, or doesn't respond."""


class Cluster:
    """Runs for the duration of its `with` block.

    Args:
        packages: Flink and the job server.
        folder: for settings, logs and Flink's temporary files; it is created.
        task_managers: how many, at least 1.
        slots: tasks that a task manager runs at a time. With twice the slots that a job needs, it continues at once
            when a task manager is lost.
        environment: the processes' environment variables; None for this process's.
    """

    def __init__(
        self,
        packages: Packages,
        folder: Path,
        *,
        task_managers: int = 2,
        slots: int = 2,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._packages = packages
        self._folder = folder
        self._count = task_managers
        self._slots = slots
        self._environment = dict(os.environ if environment is None else environment)
        self._rpc_port, self._rest_port, self._pool_port = _free_ports(3)
        self._processes: list[subprocess.Popen[bytes]] = []
        self.task_managers: list[subprocess.Popen[bytes]] = []

    @property
    def parallelism(self) -> int:
        """Tasks of a job that run in parallel; they still fit with one task manager fewer."""
        return max(1, self._slots * max(1, self._count - 1))

    @property
    def pool(self) -> subprocess.Popen[bytes]:
        """The worker pool's process."""
        return self._processes[1]

    def beam_options(self) -> list[str]:
        """The options with which a job runs on this cluster."""
        return [
            "--runner=FlinkRunner",
            f"--flink_version={FLINK_VERSION}",
            f"--flink_master={LOOPBACK}:{self._rest_port}",
            f"--flink_job_server_jar={self._packages.job_server_jar}",
            "--environment_type=EXTERNAL",
            f"--environment_config={LOOPBACK}:{self._pool_port}",
            f"--parallelism={self.parallelism}",
            # Otherwise each of the job's stages starts new processes and loads the model again.
            f"--environment_cache_millis={1000 * _WORKERS_KEPT_S}",
        ]

    def __enter__(self) -> Self:
        """Starts everything and waits until all task managers have reported."""
        try:
            self._write_settings()
            self._processes.append(self._java("job-manager", _JOB_MANAGER, 512))
            pool = [sys.executable, "-m", "pipeline.flink.pool", f"--port={self._pool_port}"]
            self._processes.append(self._start("worker-pool", pool))
            for _ in range(self._count):
                self.start_task_manager()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops everything."""
        self.stop()

    def start_task_manager(self) -> subprocess.Popen[bytes]:
        """Starts one task manager more."""
        name = f"task-manager-{len(self.task_managers) + 1}"
        process = self._java(name, _TASK_MANAGER, 128 + _TASK_HEAP_MB)
        self.task_managers.append(process)
        return process

    def get(self, path: str) -> Any:
        """Queries the job manager.

        Args:
            path: of Flink's REST interface, such as `/jobs/overview`.

        Returns:
            The answer's JSON.

        Raises:
            OSError: it doesn't respond.
        """
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._rest_port}{path}", timeout=_ANSWER_LIMIT_S) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """Ends all processes."""
        # The task managers first: a worker ends when its task manager closes the connection.
        stop_processes([*self.task_managers, *reversed(self._processes)], _STOP_LIMIT_S)

    def _wait_until_ready(self) -> None:
        def ready() -> bool:
            for process in (*self._processes, *self.task_managers):
                if process.poll() is not None:
                    raise ClusterError(f"a process of the cluster ended at its start; the logs are in {self._folder}")
            try:
                managers = self.get("/overview")["taskmanagers"]
                with socket.create_connection((LOOPBACK, self._pool_port), timeout=_ANSWER_LIMIT_S):
                    return bool(managers == self._count)
            except (OSError, urllib.error.URLError):
                return False

        if not wait_until(ready, _START_LIMIT_S):
            raise ClusterError(f"the cluster was not ready after {_START_LIMIT_S} s; the logs are in {self._folder}")

    def _java(self, name: str, main_class: str, heap_mb: int) -> subprocess.Popen[bytes]:
        conf = self._folder / "conf"
        command = [
            "java",
            f"-Xmx{heap_mb}m",
            "-XX:+UseSerialGC",
            f"-Dlog4j.configurationFile={conf / 'log4j.properties'}",
        ]
        command += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        classes = f"{self._packages.flink_lib}/*{os.pathsep}{self._packages.job_server_jar}"
        command += ["-cp", classes, main_class, "--configDir", str(conf)]
        return self._start(name, command)

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        log = self._folder / "log" / f"{name}.log"
        with log.open("ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environment
            )

    def _write_settings(self) -> None:
        conf = self._folder / "conf"
        for folder in (conf, self._folder / "log", self._folder / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        (conf / "log4j.properties").write_text(_LOG4J, "utf-8")
        settings = {
            "jobmanager.rpc.address": LOOPBACK,
            "jobmanager.rpc.port": self._rpc_port,
            "jobmanager.bind-host": LOOPBACK,
            "taskmanager.host": LOOPBACK,
            "taskmanager.bind-host": LOOPBACK,
            "rest.address": LOOPBACK,
            "rest.bind-address": LOOPBACK,
            "rest.port": self._rest_port,
            "io.tmp.dirs": self._folder / "tmp",
            "parallelism.default": self.parallelism,
            # Beam's classes are on the task managers' own path. Only then does it keep its workers, and the model that
            # they have loaded, from one stage of a job to the next.
            "classloader.resolve-order": "parent-first",
            # The job survives the loss of a machine: it restarts from the last finished stage, a bounded number of
            # times, and a lost task manager is noticed after seconds.
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 3,
            "restart-strategy.fixed-delay.delay": f"{_RESTART_AFTER_S} s",
            # Flink gives its actor system 10 s to start, too few on a busy machine.
            "pekko.startup-timeout": f"{_START_LIMIT_S} s",
            "heartbeat.interval": 2000,
            "heartbeat.timeout": 30000,
            "cluster.evenly-spread-out-slots": "true",
            "taskmanager.numberOfTaskSlots": self._slots,
            # Flink's start scripts compute these; a task manager that is started without them needs each one.
            "taskmanager.cpu.cores": float(self._slots),
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.task.heap.size": f"{_TASK_HEAP_MB}m",
            "taskmanager.memory.task.off-heap.size": "0m",
            # Beam connects its stages by many small channels.
            "taskmanager.memory.network.min": "256m",
            "taskmanager.memory.network.max": "256m",
            # Flink's default of 512 buffers a shuffle is 16 MB of each, more than all shuffles of a job have together
            # on the only task manager that is left after the loss of one.
            "taskmanager.network.sort-shuffle.min-buffers": 64,
            "taskmanager.memory.managed.size": "128m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
        }
        text = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (conf / "flink-conf.yaml").write_text(text, "utf-8")


def wait_until(condition: Callable[[], bool], limit_s: float, pause_s: float = 0.25) -> bool:
    """Waits for a condition, for a limited time.

    Args:
        condition: what to wait for.
        limit_s: the maximum wait.
        pause_s: the time between two checks.

    Returns:
        Whether it became true.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(pause_s)
    return condition()


def _free_ports(count: int) -> list[int]:
    """Free ports; all are bound until the last one is found, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]
