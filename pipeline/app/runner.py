"""Choosing the runner: FnApiRunner on this machine, or any other of Beam's by its name."""

import shlex
import sys
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.core.errors import OptionError
from pipeline.stages.engines.load import usable_cores

LOCAL = "DirectRunner"
_LOCAL_NAMES = ("directrunner", "direct", "fnapirunner", "fnapi")
# A Dataflow job goes on by itself; whoever launched it reads run.status when it has ended.
_NOT_WAITED_FOR = ("dataflowrunner", "dataflow")
_PROCESSES = "multi_processing"


@dataclass(frozen=True)
class Runner:
    """What runs the job.

    Args:
        name: as it stands in `summary.json`.
        runner: Beam's object.
        is_local: whether it runs on this machine, in this process or in its children.
        is_waited_for: whether the launcher stays until the job has ended.
        threads: engine threads a process, so that all processes together use every core once.
    """

    name: str
    runner: Any
    is_local: bool
    is_waited_for: bool
    threads: int


def choose_runner(beam_options: PipelineOptions) -> Runner:
    """Makes the runner that the options name.

    Args:
        beam_options: Beam's; the running mode is taken out where the runner would replace our worker by its own.

    Returns:
        The runner.

    Raises:
        OptionError: Beam knows no runner of that name, or lacks what it needs.
    """
    name = beam_options.view_as(StandardOptions).runner or LOCAL
    if name.lower() in _LOCAL_NAMES:
        return Runner(LOCAL, _local_runner(beam_options), True, True, _threads(beam_options))
    try:
        runner = create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise OptionError(f"--runner {name}: {error}") from error
    return Runner(name, runner, False, name.lower() not in _NOT_WAITED_FOR, 1)


def _threads(beam_options: PipelineOptions) -> int:
    direct = beam_options.view_as(DirectOptions)
    cores = usable_cores()
    if direct.direct_running_mode != _PROCESSES:
        return cores
    return max(1, cores // (direct.direct_num_workers or cores))


def _local_runner(beam_options: PipelineOptions) -> FnApiRunner:
    """FnApiRunner itself: Beam's DirectRunner would first try to download another one."""
    direct = beam_options.view_as(DirectOptions)
    if direct.direct_running_mode != _PROCESSES:
        return FnApiRunner()
    # By itself the runner would start Beam's own worker command and tell it none of the options, so that a worker would
    # not know of an S3 endpoint. In its default mode it takes the environment that it is given.
    sent = JobServiceHandle.encode_pipeline_options(beam_options.get_all_options(drop_default=True))
    direct.direct_running_mode = "in_memory"
    # A shell runs it, and must not stand between a signal and the worker.
    command = f"exec {shlex.quote(sys.executable)} -m pipeline.app.worker"
    return FnApiRunner(
        SubprocessSDKEnvironment.from_command_string(command),
        provision_info=ExtendedProvisionInfo(
            beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused", pipeline_options=sent)
        ),
    )
