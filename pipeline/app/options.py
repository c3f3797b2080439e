"""The options of `python -m pipeline`: parsed strictly, explained in groups, checked before any work."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.core.decode import DEFAULT_MAX_PIXELS
from pipeline.core.errors import OptionError
from pipeline.stages.engines.load import BACKENDS
from pipeline.stages.modelfolder import PRECISIONS
from pipeline.stages.resume import EXISTING, RESUME

MASK_FORMATS = ("png", "tar", "none")
_LATER_OPTIONS = (
    "--tile_overlap",
    "--tta",
    "--instances",
    "--pixel_size_m",
)
_LATER_MODES = ("tile",)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a user asks for; `None` or 0 means that maskbeam chooses.

    Args:
        input: sources of pictures.
        ground_truth: sources of masks, in the order of `input`, or empty.
        model: a model folder, or a carried model's name.
        output: a folder or bucket prefix.
        label_map: `RAW=CLASS_ID,…`; None for the model's own.
        ignore_label: the raw value that counts for nothing; None for the model's own.
        mode: `auto` or `resize`.
        group_by: the manifest column that groups pictures; None for none.
        group_by_regex: the regular expression whose first group, found in the id, groups pictures; None for none.
        mask_format: `png`, `tar` or `none`.
        overlays: over how many pictures their masks are drawn.
        probabilities: whether a plane a class is written.
        max_pixels: larger pictures are refused before they are decoded.
        existing: what to do where the output holds results: `resume`, `overwrite` or `error`.
        retry_failed: whether a resumed job takes up again what failed before.
        max_failure_ratio: the share of failures, 0 to 1, above which a job ends with status 3.
        backend: the engine.
        precision: `float32` or `int8`, which decides the model's file.
        batch_size: pictures a batch; 0 for the engine's best.
        threads: batches in the engine at a time in a process; 0 for the machine's cores.
        plan: whether to count, sample and estimate instead of doing the job.
        plan_workers: machines to estimate for; None to leave them out.
        plan_price_per_hour: of one of them; None to leave the cost out.
        beam_args: everything that Beam understands, untouched.
    """

    input: tuple[str, ...]
    ground_truth: tuple[str, ...]
    model: str
    output: str
    label_map: str | None
    ignore_label: int | None
    mode: str
    group_by: str | None
    group_by_regex: str | None
    mask_format: str
    overlays: int
    probabilities: bool
    max_pixels: int
    existing: str
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


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print as a usage text and a line."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(message)


def parse_options(arguments: Sequence[str]) -> JobOptions:
    """Parses the command line.

    Args:
        arguments: without the program's name.

    Returns:
        The options, Beam's own set apart and proven to be known to Beam.

    Raises:
        OptionError: an option is unknown, misspelt, not built yet or out of its range.
        SystemExit: `--help` was asked for and printed.
    """
    values, rest = command_parser().parse_known_args(list(arguments))
    _refuse_later(values.mode, rest)
    options = JobOptions(
        input=tuple(values.input),
        ground_truth=tuple(values.ground_truth or ()),
        model=values.model,
        output=values.output,
        label_map=values.label_map,
        ignore_label=values.ignore_label,
        mode=values.mode,
        group_by=values.group_by,
        group_by_regex=values.group_by_regex,
        mask_format=values.mask_format,
        overlays=values.overlays,
        probabilities=values.probabilities,
        max_pixels=values.max_pixels,
        existing=values.existing,
        retry_failed=values.retry_failed,
        max_failure_ratio=values.max_failure_ratio,
        backend=values.backend,
        precision=values.precision,
        batch_size=values.batch_size,
        threads=values.threads,
        plan=values.plan,
        plan_workers=values.plan_workers,
        plan_price_per_hour=values.plan_price_per_hour,
        beam_args=tuple(rest),
    )
    if options.ground_truth and len(options.ground_truth) != len(options.input):
        raise OptionError(
            f"--ground_truth is given {len(options.ground_truth)} times and --input {len(options.input)} times;"
            " each --input needs its own, in the same order"
        )
    if options.precision != PRECISIONS[0] and options.backend == "tensorflow":
        raise OptionError("--precision int8 is LiteRT's; --backend tensorflow runs float32 alone")
    if not options.plan and (options.plan_workers is not None or options.plan_price_per_hour is not None):
        raise OptionError("--plan_workers and --plan_price_per_hour go with --plan")
    if options.plan_price_per_hour is not None and options.plan_workers is None:
        raise OptionError("--plan_price_per_hour goes with --plan_workers")
    if rest:
        _refuse_unknown(rest)
    return options


def _refuse_later(mode: str, rest: Sequence[str]) -> None:
    if mode in _LATER_MODES:
        raise OptionError(f"--mode {mode} is not built yet; --mode resize is")
    for argument in rest:
        if argument.partition("=")[0] in _LATER_OPTIONS:
            raise OptionError(f"{argument.partition('=')[0]} is not built yet")


def _refuse_unknown(rest: Sequence[str]) -> None:
    """Holds what is left against all of Beam's options, which otherwise pass a misspelt one in silence."""
    from apache_beam.options.pipeline_options import PipelineOptions

    parser: Any = _Parser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for group in PipelineOptions.__subclasses__():
        group._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(rest))
    if unknown:
        raise OptionError(f"unknown option {unknown[0]}; python -m pipeline --help lists all, no abbreviations")


def _whole(least: int) -> Any:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return parse


def _regex_with_group(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from None
    if not groups:
        raise argparse.ArgumentTypeError(f"{text!r} has no group; put parentheses around what names it")
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _ratio(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _price(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no price")
    return value


def command_parser() -> argparse.ArgumentParser:
    """The parser of maskbeam's own options, which also describes them (`--help`, a Flex Template)."""
    parser = _Parser(
        prog="python -m pipeline",
        description="Segments picture archives: a mask a picture, areas a class, IoU and Dice where there is"
        " ground truth.",
        epilog="Any option of Apache Beam is passed on: --runner, --direct_num_workers, --direct_running_mode,"
        " --project … DirectRunner, the default, runs on this machine and uses every core. "
        "Exit status: 0 done; 1 the job broke; 2 unusable options; 3 done with too many failures.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    main = parser.add_argument_group("what goes in and comes out")
    main.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="SOURCE",
        help="pictures: a folder (walked), a glob, one picture, an archive X.tar, X.tar.gz or X.zip, records"
        " X.tfrecord*, tfds:NAME[/CONFIG][:VERSION]/SPLIT, or a manifest X.csv or X.jsonl with the columns image and,"
        " optionally, image_id and mask; local or gs://, s3://; may be given several times",
    )
    main.add_argument(
        "--model",
        required=True,
        metavar="DIR|NAME",
        help="a model folder, or the name of a carried model such as shapes",
    )
    main.add_argument("--output", required=True, metavar="DIR", help="a folder or bucket prefix for all results")
    outputs = parser.add_argument_group("what is written besides the tables")
    outputs.add_argument(
        "--mask_format",
        choices=MASK_FORMATS,
        default="png",
        help="masks as a PNG file each, in tar shards named as WebDataset reads them, or none (default: %(default)s)",
    )
    outputs.add_argument(
        "--overlays",
        type=_whole(0),
        default=0,
        metavar="N",
        help="draw the masks over N pictures from all over the archive (default: %(default)s)",
    )
    outputs.add_argument(
        "--probabilities",
        action="store_true",
        help="also write each picture's probabilities, an 8-bit plane a class, as one tall grey PNG",
    )
    truth = parser.add_argument_group("ground truth, for scores")
    truth.add_argument(
        "--ground_truth",
        action="append",
        metavar="SOURCE",
        help="masks, paired with the pictures by their path without ending; one for each --input, in the same order",
    )
    truth.add_argument(
        "--label_map",
        metavar="RAW=ID,…",
        help="raw mask values (0 to 65535, or #rrggbb of colour masks) to class ids; default: the model's own, else"
        " identity",
    )
    truth.add_argument(
        "--ignore_label",
        type=_whole(0),
        metavar="VALUE",
        help="mask pixels of this value count for nothing (default: the model's own)",
    )
    groups = parser.add_argument_group(
        "groups: scores and areas for parts of the archive"
    ).add_mutually_exclusive_group()
    groups.add_argument("--group_by", metavar="COLUMN", help="group pictures by a column of their manifest")
    groups.add_argument(
        "--group_by_regex",
        type=_regex_with_group,
        metavar="REGEX",
        help="group pictures by the regular expression's first group, searched for in the image id",
    )
    pictures = parser.add_argument_group("how pictures are treated")
    pictures.add_argument(
        "--mode",
        choices=("auto", "resize", *_LATER_MODES),
        default="auto",
        help="resize stretches the whole picture to the model's size; auto is resize (default: %(default)s)",
    )
    pictures.add_argument(
        "--max_pixels",
        type=_whole(1),
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="larger pictures fail before they are decoded (default: %(default)s)",
    )
    pictures.add_argument(
        "--existing",
        choices=EXISTING,
        default=RESUME,
        help="where the output holds results: resume keeps what still holds and does the rest, overwrite does all"
        " anew, error stops with status 2 (default: %(default)s)",
    )
    pictures.add_argument(
        "--retry_failed",
        action="store_true",
        help="take up again what failed in an earlier run; without it only what the store failed to give is",
    )
    pictures.add_argument(
        "--max_failure_ratio",
        type=_ratio,
        default=0.0,
        metavar="SHARE",
        help="a picture's failure never stops the job; above this share of them it ends with status 3"
        " (default: %(default)s)",
    )
    engine = parser.add_argument_group("the engine")
    engine.add_argument(
        "--backend",
        choices=BACKENDS,
        default="auto",
        help="what runs the model; auto is litert (default: %(default)s)",
    )
    engine.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help="int8 runs the quantised file; what it costs stands in the model's metadata (default: %(default)s)",
    )
    engine.add_argument(
        "--batch_size",
        type=_whole(0),
        default=0,
        metavar="N",
        help="pictures a batch; 0 is the engine's best (default: %(default)s)",
    )
    engine.add_argument(
        "--threads",
        type=_whole(0),
        default=0,
        metavar="N",
        help="batches in the engine at a time, in each process; 0 is chosen for the machine (default: %(default)s)",
    )
    plan = parser.add_argument_group("before a long job")
    plan.add_argument(
        "--plan",
        action="store_true",
        help="count the pictures, segment a sample, print what the job would take, and stop; writes nothing",
    )
    plan.add_argument(
        "--plan_workers", type=_whole(1), metavar="N", help="with --plan: estimate for N machines like this one, too"
    )
    plan.add_argument(
        "--plan_price_per_hour",
        type=_price,
        metavar="X",
        help="with --plan_workers: the price of one machine for an hour, in any currency",
    )
    return parser
