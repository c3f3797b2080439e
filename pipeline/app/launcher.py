"""From a command line to a finished job and an exit status."""

import io
import json
import logging
import platform
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from importlib import metadata
from typing import Any

from pipeline.app.job_options import JobOptions, parse_options
from pipeline.app.prepared import Prepared, prepare
from pipeline.core.addresses import public_address
from pipeline.core.errors import MaskbeamError, OptionError, StorageError
from pipeline.core.layout import FAILURES_FILE, SUMMARY_FILE
from pipeline.core.process import LOG_FORMAT, LOGGER, library_builds, prepare_process
from pipeline.core.recipe import Recipe
from pipeline.core.wording import pictures_text, printable
from pipeline.engines.backends import backend_named, check_backend
from pipeline.engines.quiet import without_python_stderr
from pipeline.output.holder import Holder
from pipeline.output.lease_renewal import release_lease
from pipeline.output.results import STATUS_NO_TRUTH, STATUS_TOO_MANY_FAILURES, ResultsWriter, RunInfo
from pipeline.progress.counts import SILENT
from pipeline.sources.pairing import Grouping
from pipeline.storage import filesystem

DONE, BROKEN, UNUSABLE, TOO_MANY_FAILURES, INTERRUPTED = 0, 1, 2, 3, 130
_VERSIONED = ("maskbeam", "apache-beam", "ai-edge-litert", "numpy", "pillow", "opencv-python-headless", "pyarrow")
# Beam re-raises an exception itself or as text, in which a line of this form ends each exception of a chain; it also
# appends the step in which the exception was raised.
_EXPECTED = re.compile(
    r"^pipeline\.core\.errors\.(?:EngineError|StorageError|OutputInUseError|ModelError|OptionError): (.+)$", re.M
)
_LOST_WORKER = "Channel closed prematurely"
_STEP = re.compile(r" \[while running '.*'\]$")


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
        arguments: without the program's name.

    Returns:
        The exit status: 0 done; 1 the job broke; 2 unusable options; 3 done with too many failures; 130 interrupted.
    """
    prepare_process()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that can't encode a dash gets a question mark: the job is done and must not end in an error.
        sys.stdout.reconfigure(errors="replace")
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    for noisy in ("apache_beam", "root"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.getLogger(LOGGER).setLevel(logging.WARNING)
    # The runners log each exception's trace before they raise it.
    logging.getLogger("apache_beam.runners").setLevel(logging.CRITICAL)
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        return _ended("interrupted; the same command continues the job", INTERRUPTED)


def _main(arguments: Sequence[str]) -> int:
    try:
        options = parse_options(arguments)
        # A user waits: a store that doesn't respond is reported after seconds.
        with filesystem.patience(filesystem.CHECK_PATIENCE_S):
            prepared = prepare(options)
        beam_options, runner = _choose_runner(options, prepared)
        check_backend(options.backend, options.precision, is_here=options.plan or runner.is_local)
    except OptionError as error:
        return _ended(str(error), UNUSABLE)
    try:
        if options.plan:
            return _plan(options, prepared)
        return _run(options, prepared, beam_options, runner)
    except (MaskbeamError, RuntimeError) as error:
        if _STEP.sub("", str(error)) == KeyboardInterrupt.__name__:
            raise KeyboardInterrupt from error
        message = _expected(error)
        if message is None:
            raise
        return _ended(message, BROKEN)


def _ended(message: str, status: int) -> int:
    print(f"maskbeam: {printable(message)}", file=sys.stderr)
    return status


def _expected(error: Exception) -> str | None:
    """The message of an exception that is raised on purpose, extracted from Beam's text; None for other exceptions."""
    if isinstance(error, MaskbeamError):
        return _STEP.sub("", str(error))
    if _LOST_WORKER in str(error):
        return "a worker process was killed (out of memory?); the same command continues the job"
    messages = _EXPECTED.findall(str(error))
    return _STEP.sub("", messages[-1]) if messages else None


def _plan(options: JobOptions, prepared: Prepared) -> int:
    from pipeline.app.plan import make_plan, plan_text

    plan = make_plan(prepared, options.batch_size or backend_named(prepared.model.backend).batch_size)
    print(plan_text(plan, options.plan_workers, options.plan_price_per_hour))
    return DONE


def _choose_runner(options: JobOptions, prepared: Prepared) -> tuple[Any, Any]:
    # Beam takes seconds to import; mistakes in the options are reported before that.
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipeline.app.runner import check_reachable, choose_runner

    beam_options = PipelineOptions(list(options.beam_args))
    runner = choose_runner(beam_options)
    check_reachable(runner, options, (*prepared.pictures, *prepared.truths))
    return beam_options, runner


def _run(options: JobOptions, prepared: Prepared, beam_options: Any, runner: Any) -> int:
    import apache_beam as beam

    from pipeline.app.graph import Job, build
    from pipeline.app.terminal import print_summary
    from pipeline.progress.display import ProgressDisplay
    from pipeline.transforms.segment_images import EngineSettings

    model, output = prepared.model, prepared.destination.root
    holder = Holder.launched(ends_with_launcher=runner.is_local)
    destination = replace(prepared.destination, holder=holder)
    threads = options.threads or runner.threads
    run = _run_info(options, prepared.recipe, runner.name)
    writer = ResultsWriter(destination, model.spec, options.model, model.digest, run)
    grouping = (
        Grouping(options.group_by, options.group_by_regex) if options.group_by or options.group_by_regex else None
    )
    display = ProgressDisplay(from_processes=runner.has_workers) if runner.is_local else None
    # Beam's local worker prints each exception's traceback, and the launcher gets the exception itself.
    silence = without_python_stderr() if runner.is_local else nullcontext()
    with display or nullcontext(), silence:
        job = Job(
            pictures=prepared.pictures,
            truths=prepared.truths,
            recipe=prepared.recipe,
            destination=destination,
            engine=EngineSettings(
                model,
                threads,
                options.batch_size or backend_named(model.backend).batch_size,
                runner.processes,
                runner.accelerator,
            ),
            writer=writer,
            existing=options.existing,
            retry_failed=options.retry_failed,
            prune=options.prune,
            progress=display.reporter() if display else SILENT,
            grouping=grouping,
            overlays=options.overlays,
        )
        root = beam.Pipeline(runner=runner.runner, options=beam_options)
        build(root, job)
        with _released(output, holder, ends_with_launcher=runner.is_local):
            result: Any = root.run()
            if not runner.is_waited_for:
                job_id = result.job_id() if result.has_job else beam_options.get_all_options()["template_location"]
                print(f"maskbeam: submitted {job_id}; its results will be in {printable(output)}")
                return DONE
            result.wait_until_finish()
    try:
        content = filesystem.read_bytes(filesystem.join(output, SUMMARY_FILE))
    except FileNotFoundError as error:
        raise StorageError(
            f"the job is done, but {output} has no summary here: do the workers share this folder?"
        ) from error
    summary: dict[str, Any] = json.loads(content)
    print_summary(summary, options.output, error_types=summary["run"]["failures_by_type"])
    return _finished(summary, options)


@contextmanager
def _released(output: str, holder: Holder, *, ends_with_launcher: bool) -> Iterator[None]:
    """Releases an output if the job fails before it does so itself.

    Args:
        output: absolute folder or bucket prefix.
        holder: the run.
        ends_with_launcher: whether an interrupt of the launcher ends the job, too.
    """
    try:
        yield
    except BaseException as error:
        if ends_with_launcher or isinstance(error, Exception):
            with suppress(StorageError):  # the error that ended the job is reported; the lease expires
                release_lease(output, holder)
        raise


def _finished(summary: dict[str, Any], options: JobOptions) -> int:
    """The exit status of a job that wrote its summary; prints what to do, except for `DONE`."""
    from pipeline.app.terminal import failed_text

    status, images = summary["run"]["status"], summary["images"]
    place = filesystem.join(options.output, FAILURES_FILE)
    if status == STATUS_TOO_MANY_FAILURES:
        return _ended(
            f"{failed_text(images)} of {images['found']:,}, more than the share of"
            f" --max_failure_ratio {options.max_failure_ratio:g}; all others are done."
            f" {place} lists them; the same command with --retry_failed retries them, a higher --max_failure_ratio"
            " accepts them",
            TOO_MANY_FAILURES,
        )
    if status == STATUS_NO_TRUTH:
        return _ended(
            "--ground_truth was given, but no picture could be scored: of"
            f" {pictures_text(images['segmented'])} none had a mask that could be used, and"
            f" {images['unpaired_truth']:,} masks have no picture; a mask has the path of its picture below the source,"
            " without the ending",
            BROKEN,
        )
    return DONE


def _run_info(options: JobOptions, recipe: Recipe, runner_name: str) -> RunInfo:
    own = {name: value for name, value in asdict(options).items() if name != "beam_args"}
    own |= {name: list(map(public_address, getattr(options, name))) for name in ("input", "ground_truth")}
    own |= {name: public_address(getattr(options, name)) for name in ("model", "output")} | {"runner": runner_name}
    versions = {"python": platform.python_version(), **library_builds()}
    for name in _VERSIONED:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    inference = {"mode": recipe.mode, "tile_overlap": recipe.tile_overlap, "tta": recipe.tta}
    return RunInfo(
        time.time(), own, versions, options.max_failure_ratio, bool(options.ground_truth), inference=inference
    )
