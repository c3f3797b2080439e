"""From a command line to a finished job and an exit status."""

import json
import logging
import platform
import re
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from importlib import metadata
from typing import Any

from pipeline.app.options import JobOptions, parse_options
from pipeline.core.errors import EngineError, OptionError, StorageError
from pipeline.core.labels import LabelMap
from pipeline.stages import storage
from pipeline.stages.engines.load import usable_cores
from pipeline.stages.modelfolder import ModelFolder, open_model
from pipeline.stages.results import STATUS_DONE, SUMMARY_FILE, ResultsWriter, RunInfo
from pipeline.stages.segment import SegmentSettings
from pipeline.stages.sources import Source, holds_something, parse_sources
from pipeline.stages.tally import ProgressSender

DONE, BROKEN, UNUSABLE, TOO_MANY_FAILURES = 0, 1, 2, 3
_VERSIONED = ("maskbeam", "apache-beam", "ai-edge-litert", "numpy", "pillow", "opencv-python-headless", "pyarrow")
_LOCAL_RUNNERS = ("DirectRunner", "FnApiRunner")
# A Dataflow job goes on by itself; whoever launched it reads run.status when it has ended.
_RUNNERS_NOT_WAITED_FOR = ("DataflowRunner",)
# Beam's local runner hands a DoFn's exception on as text.
_EXPECTED = re.compile(r"pipeline\.core\.errors\.(?:EngineError|StorageError|ModelError|OptionError): ([^\n]+)")


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit status: 0 done; 1 the job broke; 2 unusable options; 3 done with too many failures.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("apache_beam", "root"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        options = parse_options(arguments)
        model, settings, pictures, truths = prepare(options)
        if options.plan:
            return _plan(options, model, settings, pictures, truths)
    except OptionError as error:
        print(f"maskbeam: {error}", file=sys.stderr)
        return UNUSABLE
    return _run(options, model, settings, pictures, truths)


def _plan(
    options: JobOptions,
    model: ModelFolder,
    settings: SegmentSettings,
    pictures: list[Source],
    truths: list[Source],
) -> int:
    from pipeline.app.plan import make_plan, plan_text

    try:
        plan = make_plan(model, options.backend, options.batch_size or 1, settings, pictures, truths)
    except EngineError as error:
        print(f"maskbeam: {error}", file=sys.stderr)
        return BROKEN
    print(plan_text(plan, options.plan_workers, options.plan_price_per_hour))
    return DONE


def prepare(options: JobOptions) -> tuple[ModelFolder, SegmentSettings, list[Source], list[Source]]:
    """Proves that everything an option names is there and fits, before any work.

    Args:
        options: as parsed.

    Returns:
        The model, the settings, and the sources of pictures and of masks.

    Raises:
        OptionError: something isn't.
    """
    model = open_model(options.model, precision=options.precision)
    pictures = parse_sources(options.input, "--input")
    truths = [
        Source(truth.kind, truth.uri, picture.prefix)
        for truth, picture in zip(
            (parse_sources([text], "--ground_truth")[0] for text in options.ground_truth), pictures, strict=False
        )
    ]
    ignore_label = model.spec.ignore_label if options.ignore_label is None else options.ignore_label
    label_map = LabelMap.parse(options.label_map) if options.label_map else model.spec.labels()
    label_map.check(model.spec.num_classes, ignore_label)
    for source, text in zip(pictures, options.input, strict=True):
        try:
            if not holds_something(source):
                raise OptionError(f"--input {text}: holds no picture")
        except OSError as error:
            raise OptionError(f"--input {text}: can't be listed: {error.strerror or error}") from error
    output = storage.absolute(options.output)
    if not options.plan:
        try:
            storage.check_writable(output)
        except StorageError as error:
            raise OptionError(f"--output: {error}") from error
    settings = SegmentSettings(model.spec, model.digest, label_map, ignore_label, output, options.max_pixels)
    return model, settings, pictures, truths


def _run(
    options: JobOptions,
    model: ModelFolder,
    settings: SegmentSettings,
    pictures: list[Source],
    truths: list[Source],
) -> int:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    from pipeline.app.graph import Job, build
    from pipeline.app.progress import ProgressDisplay
    from pipeline.app.terminal import print_summary
    from pipeline.transforms.segment import EngineSettings

    beam_options = PipelineOptions(list(options.beam_args))
    runner_name = beam_options.view_as(StandardOptions).runner or _LOCAL_RUNNERS[0]
    is_local = runner_name in _LOCAL_RUNNERS
    threads = options.threads or (_local_threads(beam_options) if is_local else 1)
    writer = ResultsWriter(settings.output, model.spec, options.model, model.digest, _run_info(options, runner_name))
    with ProgressDisplay() if is_local else nullcontext() as display:
        job = Job(
            pictures=pictures,
            truths=truths,
            settings=settings,
            engine=EngineSettings(model, options.backend, threads, options.batch_size or 1),
            writer=writer,
            progress=display.sender() if display else ProgressSender(None, ""),
        )
        root = beam.Pipeline(runner=_local_runner() if is_local else runner_name, options=beam_options)
        build(root, job)
        try:
            result = root.run()
            if runner_name in _RUNNERS_NOT_WAITED_FOR:
                return DONE
            result.wait_until_finish()
        except RuntimeError as error:
            expected = _EXPECTED.search(str(error))
            if expected is None:
                raise
            print(f"maskbeam: {expected.group(1)}", file=sys.stderr)
            return BROKEN
    summary: dict[str, Any] = json.loads(storage.read_bytes(storage.join(settings.output, SUMMARY_FILE)))
    print_summary(summary, options.output, error_types=summary["run"]["failures_by_type"])
    return DONE if summary["run"]["status"] == STATUS_DONE else TOO_MANY_FAILURES


def _local_runner() -> Any:
    """FnApiRunner itself: Beam's DirectRunner would first try to download another one."""
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    return FnApiRunner()


def _local_threads(beam_options: Any) -> int:
    """Engine threads a process, so that all processes together use every core once."""
    from apache_beam.options.pipeline_options import DirectOptions

    direct = beam_options.view_as(DirectOptions)
    cores = usable_cores()
    if direct.direct_running_mode != "multi_processing":
        return cores
    return max(1, cores // (direct.direct_num_workers or cores))


def _run_info(options: JobOptions, runner_name: str) -> RunInfo:
    own = {name: value for name, value in asdict(options).items() if name != "beam_args"}
    own |= {"input": list(options.input), "ground_truth": list(options.ground_truth), "runner": runner_name}
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return RunInfo(time.time(), own, versions, options.max_failure_ratio)
