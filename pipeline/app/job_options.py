"""The options of `python -m pipeline`: parsed strictly and checked before any work."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pipeline.app.parser import StrictParser, command_parser, similar_option
from pipeline.core.errors import OptionError
from pipeline.core.labels import IgnoreLabel

LATER_OPTIONS = (
    "--instances",
    "--pixel_size_m",
)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The options of a job; `None` or 0 means that maskbeam chooses.

    Args:
        input: sources of pictures.
        ground_truth: sources of masks, in the order of `input`, or empty.
        model: a model folder, or a carried model's name.
        output: a folder or bucket prefix.
        label_map: `RAW=CLASS_ID,…`; None for the model's own.
        ignore_label: the raw value of pixels to ignore; None for the model's own.
        mode: `auto`, `resize` or `tile`.
        tile_overlap: the share of a tile that it has in common with the next; None for the model's.
        tta: test-time augmentation: `none`, `flip` or `d4`.
        group_by: the manifest column that groups pictures; None for none.
        group_by_regex: the regular expression whose first group, found in the id, groups pictures; None for none.
        mask_format: `png`, `tar` or `none`.
        overlays: the number of pictures with an overlay.
        probabilities: whether the probabilities of each class are written.
        max_pixels: larger pictures are refused before they are decoded.
        existing: what to do if the output has results: `resume`, `overwrite` or `error`.
        prune: whether any number of masks of earlier runs may be removed.
        retry_failed: whether a resumed job segments pictures again that failed before.
        max_failure_ratio: the share of failures, 0 to 1, above which a job ends with status 3.
        backend: the engine.
        precision: `float32` or `int8`, which selects the model's file.
        batch_size: pictures per batch of the engine; 0 for the backend's default.
        threads: threads per process that compute; 0 for the machine's cores.
        plan: whether to count, sample and estimate instead of running the job.
        plan_workers: machines to estimate for; None to leave them out.
        plan_price_per_hour: the price of one of them; None to leave the cost out.
        beam_args: Beam's options, unchanged.
    """

    input: tuple[str, ...]
    ground_truth: tuple[str, ...]
    model: str
    output: str
    label_map: str | None
    ignore_label: IgnoreLabel | None
    mode: str
    tile_overlap: float | None
    tta: str
    group_by: str | None
    group_by_regex: str | None
    mask_format: str
    overlays: int
    probabilities: bool
    max_pixels: int
    existing: str
    prune: bool
    retry_failed: bool
    max_failure_ratio: float
    backend: str
    precision: str
    batch_size: int
    threads: int
    plan: bool
    plan_workers: int | None
    plan_price_per_hour: float | None
    beam_args: tuple[str, ...]


def parse_options(arguments: Sequence[str]) -> JobOptions:
    """Parses the command line.

    Args:
        arguments: without the program's name.

    Returns:
        The options; Beam's own are separate, and checked to be known to Beam.

    Raises:
        OptionError: an option is unknown, misspelt, not supported yet or out of its range.
        SystemExit: `--help` was given and is printed.
    """
    parser = command_parser()
    try:
        values, rest = parser.parse_known_args(list(arguments))
    except OptionError as error:
        # A missing option may be a misspelt one.
        own = parser.option_strings()
        missing = [option for option in own if option in re.findall(r"--\w+", str(error))]
        for name in map(_name_of, arguments):
            if name not in own and similar_option(name, missing):
                raise OptionError(_unknown_text(name, missing)) from error
        raise
    _refuse_later(rest)
    given = vars(values) | {
        "input": tuple(values.input),
        "ground_truth": tuple(values.ground_truth or ()),
        "beam_args": tuple(rest),
    }
    options = JobOptions(**given)
    if options.ground_truth and len(options.ground_truth) != len(options.input):
        raise OptionError(
            f"--ground_truth is given {len(options.ground_truth)} times and --input {len(options.input)} times;"
            " each --input needs its own, in the same order"
        )
    if not options.plan and (options.plan_workers is not None or options.plan_price_per_hour is not None):
        raise OptionError("--plan_workers and --plan_price_per_hour need --plan")
    if options.plan_price_per_hour is not None and options.plan_workers is None:
        raise OptionError("--plan_price_per_hour needs --plan_workers")
    if rest:
        _refuse_unknown(rest, parser.option_strings())
    return options


def _name_of(argument: str) -> str:
    return argument.partition("=")[0]


def _refuse_later(rest: Sequence[str]) -> None:
    for name in map(_name_of, rest):
        if name in LATER_OPTIONS:
            raise OptionError(f"{name} is not supported yet")


def _unknown_text(name: str, known: Sequence[str]) -> str:
    meant = similar_option(name, known)
    guess = f"; did you mean {meant}?" if meant else ";"
    return f"unknown option {name}{guess} python -m pipeline --help lists all, no abbreviations"


def _refuse_unknown(rest: Sequence[str], own: Sequence[str]) -> None:
    """Checks the remaining options against all of Beam's, because Beam ignores misspelt ones."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser = StrictParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for group in PipelineOptions.__subclasses__():
        group._add_argparse_args(cast(Any, parser))
    _, unknown = parser.parse_known_args(list(rest))
    if unknown:
        raise OptionError(_unknown_text(_name_of(unknown[0]), [*own, *parser.option_strings()]))
