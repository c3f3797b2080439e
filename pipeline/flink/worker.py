"""One Beam worker process, started by the pool: gets the job's options from the task manager, then works for it."""

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
_CHECK_INTERVAL_S = 1.0


def main(arguments: Sequence[str]) -> None:
    """Works until the task manager closes the connection.

    Args:
        arguments: those of Beam's container contract.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("id", "logging_endpoint", "provision_endpoint", "control_endpoint"):
        parser.add_argument(f"--{name}", required=True)
    values = parser.parse_args(arguments)
    _end_with_parent()
    try:
        info = _provision_info(values.provision_endpoint, values.id)
    except grpc.RpcError as error:
        print(f"worker {values.id}: the task manager doesn't respond ({error.code().name})", file=sys.stderr)
        _exit(1)
    os.environ["WORKER_ID"] = values.id
    os.environ["PIPELINE_OPTIONS"] = json.dumps(json_format.MessageToDict(info.pipeline_options))
    os.environ["RUNNER_CAPABILITIES"] = " ".join(info.runner_capabilities)
    for name in ("LOGGING", "CONTROL"):
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=getattr(values, f"{name.lower()}_endpoint"))
        os.environ[f"{name}_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(endpoint)

    # It reads the environment. The import takes seconds, so it comes after the requests that may fail.
    from apache_beam.runners.worker import sdk_worker_main

    # This process ends when the task manager closes the connection; waiting threads must not delay that.
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
    """Ends this process when its pool has ended, because nothing else would stop it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_CHECK_INTERVAL_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="maskbeam-parent", daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1:])
