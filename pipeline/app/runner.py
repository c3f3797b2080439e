"""Chooses the runner: FnApiRunner on this machine, or any other of Beam's by name, each with suitable settings."""

import shlex
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from pipeline.app.job_options import JobOptions
from pipeline.core.errors import OptionError
from pipeline.engines.load import usable_cores
from pipeline.engines.model_folder import carried_names
from pipeline.sources.source import Source
from pipeline.storage import filesystem

LOCAL = "DirectRunner"
_LOCAL_NAMES = ("directrunner", "direct", "fnapirunner", "fnapi")
# A Dataflow job runs without the launcher; run.status has its result.
_DATAFLOW_NAMES = ("dataflowrunner", "dataflow")
_DATAFLOW_BUNDLES = 2
_FLINK_NAMES = ("flinkrunner", "flink")
_PROCESSES = "multi_processing"


@dataclass(frozen=True)
class Runner:
    """A runner and its settings.

    Args:
        name: as in `summary.json`.
        runner: Beam's object.
        is_local: whether it runs on this machine, in this process or in its children.
        is_waited_for: whether the launcher waits until the job has ended.
        threads: engine threads per process, so that all processes together use every core once; 0 if only the worker
            knows its cores.
        processes: worker processes on a machine, if `threads` is 0.
        has_workers: whether the job's steps run in other processes of this machine than the launcher's.
        accelerator: the resource hint of the inference step, in Beam's form; "" for none.
    """

    name: str
    runner: Any
    is_local: bool
    is_waited_for: bool
    threads: int
    processes: int = 1
    has_workers: bool = False
    accelerator: str = ""


def choose_runner(beam_options: PipelineOptions) -> Runner:
    """Makes the runner that the options name.

    Args:
        beam_options: Beam's; the running mode is removed if the runner would replace our worker by its own.

    Returns:
        The runner.

    Raises:
        OptionError: Beam has no runner of that name, or the runner's requirements are missing.
    """
    name = beam_options.view_as(StandardOptions).runner or LOCAL
    if name.lower() in _LOCAL_NAMES:
        has_workers = beam_options.view_as(DirectOptions).direct_running_mode == _PROCESSES
        threads = _threads(beam_options)
        return Runner(LOCAL, _local_runner(beam_options), True, True, threads, has_workers=has_workers)
    try:
        runner = create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise OptionError(f"--runner {name}: {error}") from error
    is_dataflow = name.lower() in _DATAFLOW_NAMES
    if name.lower() in _FLINK_NAMES:
        _check_flink(beam_options)
    threads, processes = _configure_dataflow(beam_options) if is_dataflow else _portable_processes(beam_options)
    if errors := PipelineOptionsValidator(beam_options, runner).validate():
        raise OptionError(f"--runner {name}: {' '.join(errors[0].split())}")
    return Runner(name, runner, False, not is_dataflow, threads, processes, accelerator=_take_accelerator(beam_options))


def check_reachable(runner: Runner, options: JobOptions, sources: Iterable[Source]) -> None:
    """Refuses paths that remote workers can't read.

    Args:
        runner: the job's.
        options: the job's.
        sources: of its pictures and masks.

    Raises:
        OptionError: a path of this machine, for a job that runs on others.
    """
    if runner.name.lower() not in _DATAFLOW_NAMES:
        return
    read = [("--ground_truth" if source.is_truth else "--input", source.uri, source.location) for source in sources]
    for option, uri, location in [*read, ("--output", options.output, options.output)]:
        if not filesystem.is_remote(location):
            files = "a path" if location == uri else f"its files are in {location}, a path"
            raise OptionError(f"{option} {uri}: {files} of this machine; {runner.name}'s workers see buckets only")
    if not filesystem.is_remote(options.model) and options.model not in carried_names():
        raise OptionError(
            f"--model {options.model}: a folder of this machine; {runner.name}'s workers see buckets and"
            f" carried models only ({', '.join(carried_names())})"
        )


def _configure_dataflow(beam_options: PipelineOptions) -> tuple[int, int]:
    """Adapts Dataflow's defaults to this job, except those that the user set. Returns engine threads and processes."""
    try:
        from apache_beam.runners.dataflow.internal import apiclient  # noqa: F401  (looked for, used by Beam)
    except ImportError as error:
        raise OptionError("--runner DataflowRunner needs Google's packages: pip install 'maskbeam[gcp]'") from error
    cloud = beam_options.view_as(GoogleCloudOptions)
    for option, value in (
        ("project", cloud.project),
        ("region", cloud.region),
        ("temp_location", cloud.temp_location or cloud.staging_location),
    ):
        if not value:
            raise OptionError(f"--runner DataflowRunner needs --{option}")
    setup = beam_options.view_as(SetupOptions)
    if setup.save_main_session is None:
        # Beam's default here is True. Everything that a worker needs is in a module, so there is nothing to save.
        setup.save_main_session = False
    debug = beam_options.view_as(DebugOptions)
    if debug.number_of_worker_harness_threads is None:
        # By default twelve, each of which may hold the rows of a whole shard. Two keep the engine busy without gaps.
        debug.number_of_worker_harness_threads = _DATAFLOW_BUNDLES
    # One process per core, unless that is turned off; then one process uses all cores of a machine.
    return (0, 1) if debug.lookup_experiment("no_use_multiple_sdk_containers") else (1, 1)


def _check_flink(beam_options: PipelineOptions) -> None:
    """Checks what Beam's job server needs on this machine; Beam itself would report it in a traceback."""
    flink = beam_options.view_as(FlinkRunnerOptions)
    java = beam_options.view_as(JobServerOptions).job_server_java_launcher
    if flink.flink_submit_uber_jar:
        return
    if shutil.which(java) is None:
        raise OptionError(f"--runner FlinkRunner needs Java: no program {java} was found")
    jar = flink.flink_job_server_jar
    if jar and "://" not in jar and not filesystem.exists(filesystem.absolute(jar)):
        raise OptionError(f"--flink_job_server_jar {jar}: no such file")


def _portable_processes(beam_options: PipelineOptions) -> tuple[int, int]:
    """Engine threads and processes of Flink's and others' workers, by `--sdk_worker_parallelism`."""
    processes = int(beam_options.view_as(PortableOptions).sdk_worker_parallelism)
    return (0, processes) if processes else (1, 1)


def _take_accelerator(beam_options: PipelineOptions) -> str:
    """Removes accelerators from `--resource_hints`, which would request them for every step."""
    standard = beam_options.view_as(StandardOptions)
    hints = list(standard.resource_hints or ())
    accelerators = [hint for hint in hints if hint.partition("=")[0] == "accelerator"]
    if accelerators:
        standard.resource_hints = [hint for hint in hints if hint not in accelerators]
    return accelerators[-1].partition("=")[2] if accelerators else ""


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
    # In multi_processing mode the runner starts Beam's own worker command without the options, so a worker would not
    # know an S3 endpoint. In its default mode it uses the given environment.
    sent = JobServiceHandle.encode_pipeline_options(beam_options.get_all_options(drop_default=True))
    direct.direct_running_mode = "in_memory"
    # A shell runs it; exec replaces the shell, so that signals reach the worker.
    command = f"exec {shlex.quote(sys.executable)} -m pipeline.app.local_worker"
    return FnApiRunner(
        SubprocessSDKEnvironment.from_command_string(command),
        provision_info=ExtendedProvisionInfo(
            beam_provision_api_pb2.ProvisionInfo(retrieval_token="unused", pipeline_options=sent)
        ),
    )
