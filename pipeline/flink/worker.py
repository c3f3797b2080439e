"""One worker process of Beam, started by the pool: asks the task manager for the job's options, then works for it."""

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc, endpoints_pb2
from google.protobuf import json_format, text_format

_ANSWER_LIMIT_S = 60
_LOOK_EVERY_S = 1.0


def main(arguments: Sequence[str]) -> None:
    """Works until the task manager lets go.

    Args:
        arguments: the ones that Beam's container contract gives.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("id", "logging_endpoint", "provision_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", required=True)
    values = parser.parse_args(arguments)
    _end_with_parent()
    try:
        info = _provision_info(values.provision_endpoint, values.id)
    except grpc.RpcError as error:
        print(f"worker {values.id}: the task manager doesn't answer ({error.code().name})", file=sys.stderr)
        _exit(1)
    os.environ["WORKER_ID"] = values.id
    os.environ["PIPELINE_OPTIONS"] = json.dumps(json_format.MessageToDict(info.pipeline_options))
    os.environ["RUNNER_CAPABILITIES"] = " ".join(info.runner_capabilities)
    for name in ("LOGGING", "CONTROL"):
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=getattr(values, f"{name.lower()}_endpoint"))
        os.environ[f"{name}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(endpoint)

    # Reads the environment; its import alone takes seconds, so it comes after the questions that may fail.
    from apache_beam.runners.worker import sdk_worker_main

    # When the task manager closes the connection, that is this process's end; threads that wait must not delay it.
    try:
        sdk_worker_main.main([])
    except grpc.RpcError as error:
        print(f"worker {values.id}: the task manager is gone ({error.code().name})", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        _exit(1)
    _exit(0)


def _provision_info(endpoint: str, worker_id: str) -> Any:
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        return stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(),
            timeout=_ANSWER_LIMIT_S,
            metadata=[("worker_id", worker_id)],
        ).info


def _exit(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _end_with_parent() -> None:
    """A worker whose pool is gone has nobody who would stop it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_EVERY_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="maskbeam-parent", daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
