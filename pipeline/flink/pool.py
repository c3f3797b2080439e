"""The worker pool of the task managers: starts a worker process when a task manager requests one.

Beam's own pool listens on every address of the machine, this one on loopback only.
"""

import argparse
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

LOOPBACK = "127.0.0.1"
_STOP_LIMIT_S = 5


def stop_processes(processes: Sequence[subprocess.Popen[Any]], limit_s: float) -> None:
    """Ends processes, in this order: terminates them, waits at most `limit_s` seconds, then kills them."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + limit_s
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
            continue
        process.kill()
        process.wait(limit_s)


class WorkerPool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """Beam's external worker pool: workers are processes of this machine and of this Python."""

    def __init__(self) -> None:
        self._workers: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()

    def StartWorker(self, request: Any, context: Any) -> Any:
        """Starts the process that a task manager requests."""
        command = [sys.executable, "-m", "pipeline.flink.worker", f"--id={request.worker_id}"]
        for name in ("logging", "provision", "control"):
            command.append(f"--{name}_endpoint={getattr(request, f'{name}_endpoint').url}")
        try:
            worker = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=str(error))
        with self._lock:
            self._workers.append(worker)
        return beam_fn_api_pb2.StartWorkerResponse()

    def StopWorker(self, request: Any, context: Any) -> Any:
        """Stops no worker: the request has only a worker's id, and two task managers use the same ids.

        A worker ends by itself when its task manager closes the connection or ends.
        """
        with self._lock:
            self._workers = [worker for worker in self._workers if worker.poll() is None]
        return beam_fn_api_pb2.StopWorkerResponse()

    def stop_all(self) -> None:
        """Ends all remaining processes."""
        with self._lock:
            workers, self._workers = self._workers, []
        stop_processes(workers, _STOP_LIMIT_S)


def main(arguments: Sequence[str]) -> None:
    """Serves until SIGTERM or SIGINT, then stops the workers.

    Args:
        arguments: `--port PORT`.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args(arguments).port
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    pool = WorkerPool()
    server = grpc.server(ThreadPoolExecutor(8))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    server.add_insecure_port(f"{LOOPBACK}:{port}")
    server.start()
    ending.wait()
    server.stop(None)
    pool.stop_all()


if __name__ == "__main__":
    main(sys.argv[1:])
