"""The parser of maskbeam's own options: documented in groups, each with a range check."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pipeline.core.decode import DEFAULT_MAX_PIXELS
from pipeline.core.errors import OptionError
from pipeline.core.labels import parse_ignore_label
from pipeline.core.usage import DEFAULT_TILE_OVERLAP, MAX_TILE_OVERLAP
from pipeline.engines.backends import BACKEND_NAMES, FLOAT32, PRECISIONS
from pipeline.output.earlier_run import EXISTING, RESUME
from pipeline.output.mask_output import MASK_FORMATS
from pipeline.segmenting.modes import AUTO_MODE, MODES
from pipeline.segmenting.tta import NO_TTA, TTA

_MIN_SIMILARITY = 0.7


class StrictParser(argparse.ArgumentParser):
    """Raises errors as `OptionError`; argparse would print the usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise OptionError(message)

    def option_strings(self) -> list[str]:
        """All options, in the order in which they were added."""
        return list(self._option_string_actions)


def similar_option(name: str, known: Sequence[str]) -> str | None:
    """The option that a misspelt or abbreviated one probably means, None if no option is similar.

    Args:
        name: the option as given, without a value.
        known: option strings; of those that begin with `name` the first is taken.
    """
    if not name.startswith("--") or name == "--":
        return None
    begun = (option for option in known if option.startswith(name))
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=_MIN_SIMILARITY)
    return next(begun, None) or next(iter(near), None)


def _whole(minimum: int) -> Any:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    return parse


def _regex_with_group(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    if not groups:
        raise argparse.ArgumentTypeError(f"{text!r} has no group; put parentheses around the group's name")
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


def _overlap(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value <= MAX_TILE_OVERLAP:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {MAX_TILE_OVERLAP}")
    return value


def _price(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a price")
    return value


def command_parser() -> StrictParser:
    """The parser of maskbeam's own options, which also describes them (`--help`, a Flex Template)."""
    parser = StrictParser(
        prog="python -m pipeline",
        description="Segments picture archives: a mask for each picture, areas for each class, and with ground truth"
        " IoU and Dice.",
        epilog="Any option of Apache Beam is passed on: --runner, --direct_num_workers, --direct_running_mode,"
        " --project … DirectRunner, the default, runs on this machine and uses every core. "
        "Exit status: 0 done; 1 the job failed, or --ground_truth was given but no picture could be scored;"
        " 2 unusable options; 3 done with too many failures; 130 interrupted.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    main = parser.add_argument_group("input and output")
    main.add_argument(
        "--input",
        action="append",
        required=True,
        metavar="SOURCE",
        help="pictures: a folder (walked), a glob, one picture, an archive X.tar, X.tar.gz or X.zip, records"
        " X.tfrecord*, tfds:NAME[/CONFIG][:VERSION]/SPLIT, or a manifest X.csv or X.jsonl with the columns image and,"
        " optionally, image_id and mask; local, gs://, s3:// or az://, single files also https://; may be given"
        " several times",
    )
    main.add_argument(
        "--model",
        required=True,
        metavar="DIR|NAME",
        help="a model folder, or the name of a carried model such as shapes",
    )
    main.add_argument("--output", required=True, metavar="DIR", help="a folder or bucket prefix for all results")
    outputs = parser.add_argument_group("outputs besides the tables")
    outputs.add_argument(
        "--mask_format",
        choices=MASK_FORMATS,
        default="png",
        help="masks as a PNG file each, in tar files as WebDataset reads them, or none (default: %(default)s)",
    )
    outputs.add_argument(
        "--overlays",
        type=_whole(0),
        default=0,
        metavar="N",
        help="draw the masks over N pictures from across the archive (default: %(default)s)",
    )
    outputs.add_argument(
        "--probabilities",
        action="store_true",
        help="also write each picture's probabilities, an 8-bit plane per class, as one tall grey PNG",
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
        type=parse_ignore_label,
        metavar="VALUE",
        help="ignore mask pixels of this value, or of this colour #rrggbb; negative for files with signed values"
        " (default: the model's own)",
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
        default=AUTO_MODE,
        choices=(AUTO_MODE, *MODES),
        help="resize stretches the whole picture to the model's size; tile cuts it into overlapping tiles at full"
        " resolution; auto does as the model's metadata say, else resize (default: %(default)s)",
    )
    pictures.add_argument(
        "--tile_overlap",
        type=_overlap,
        metavar="SHARE",
        help=f"with tiles: the share of a tile that it has in common with the next (default: the model's, else"
        f" {DEFAULT_TILE_OVERLAP})",
    )
    pictures.add_argument(
        "--tta",
        choices=tuple(TTA),
        default=NO_TTA,
        help="test-time augmentation: flip averages the logits of each picture or tile and its mirror image, d4 those"
        " of its eight rotations and mirror images (default: %(default)s)",
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
        help="what to do if the output has results: resume keeps valid ones and does the rest, overwrite starts from"
        " scratch, error stops with status 2 (default: %(default)s)",
    )
    pictures.add_argument(
        "--prune",
        action="store_true",
        help="remove masks of pictures that are no longer in the input, or of another model, even if they are more"
        " than a tenth of the output's masks",
    )
    pictures.add_argument(
        "--retry_failed",
        action="store_true",
        help="segment pictures again that failed in an earlier run; by default only those that failed in storage",
    )
    pictures.add_argument(
        "--max_failure_ratio",
        type=_ratio,
        default=0.0,
        metavar="SHARE",
        help="failures of pictures never stop the job; above this share of failures it ends with status 3"
        " (default: %(default)s)",
    )
    engine = parser.add_argument_group("the engine")
    engine.add_argument(
        "--backend",
        choices=BACKEND_NAMES,
        default="auto",
        help="what runs the model; auto is litert (default: %(default)s)",
    )
    engine.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=FLOAT32,
        help="int8 runs the quantised file; with ground truth, its loss of accuracy is measured and printed"
        " (default: %(default)s)",
    )
    engine.add_argument(
        "--batch_size",
        type=_whole(0),
        default=0,
        metavar="N",
        help="pictures per batch of the engine; 0 is the backend's default (default: %(default)s)",
    )
    engine.add_argument(
        "--threads",
        type=_whole(0),
        default=0,
        metavar="N",
        help="threads that decode, infer and encode, in each process; 0 is one per core (default: %(default)s)",
    )
    plan = parser.add_argument_group("before a long job")
    plan.add_argument(
        "--plan",
        action="store_true",
        help="count the pictures, segment a sample, print the job's estimated time, and stop; writes nothing",
    )
    plan.add_argument(
        "--plan_workers", type=_whole(1), metavar="N", help="with --plan: also estimate for N machines like this one"
    )
    plan.add_argument(
        "--plan_price_per_hour",
        type=_price,
        metavar="X",
        help="with --plan_workers: the price of one machine for an hour, in any currency",
    )
    return parser
