"""The command line of `python -m model`: errors are reported in one line, heavy imports are delayed until needed."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.core.errors import MaskbeamError, OptionError
from pipeline.core.labels import parse_ignore_label
from pipeline.core.wording import printable

_NEEDS_TRAIN = frozenset(("keras", "tensorflow", "tensorflow_datasets"))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that shows a default only if there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """A parser without abbreviations that reports in one line."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **keywords)

    def error(self, message: str) -> NoReturn:
        raise OptionError(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="python -m model", description="Train, export and try the U-Nets that maskbeam runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    sample = commands.add_parser("sample", help="make a data set of drawn pictures with exact masks")
    sample.add_argument("--output", required=True, metavar="DIR", help="the data set's folder")
    sample.add_argument("--count", type=int, default=100, metavar="N", help="how many pictures")
    sample.add_argument("--seed", type=int, default=7, metavar="S", help="another seed, other pictures")
    sample.add_argument(
        "--scene", default="shapes", metavar="NAME", help="shapes, or field: small plants, 12 megapixels"
    )
    sample.set_defaults(run=_run_sample)
    _add_train(commands)
    export = commands.add_parser("export", help="write a model folder's exports again from its Keras file")
    export.add_argument("--model", required=True, metavar="DIR", help="a model folder with model.keras")
    export.add_argument("--dataset", metavar="SOURCE", help="pictures like those in training, for int8 and agreement")
    export.add_argument("--ground_truth", metavar="SOURCE", help="their masks, unless the data set has them")
    export.add_argument("--saved_model", action="store_true", help="write a SavedModel too")
    export.set_defaults(run=_run_export)
    predict = commands.add_parser("predict", help="segment pictures: masks and overlays")
    predict.add_argument("pictures", nargs="+", metavar="IMAGE", help="files, or folders of them")
    predict.add_argument("--model", required=True, metavar="DIR|NAME", help="a model folder, or a carried model")
    predict.add_argument("--output", required=True, metavar="DIR", help="gets masks/ and overlays/")
    predict.add_argument("--precision", choices=("float32", "int8"), default="float32", help="which LiteRT file runs")
    predict.add_argument("--mode", default="auto", metavar="NAME", help="resize, tile, or auto for the model's own")
    predict.add_argument("--tile_overlap", type=float, metavar="SHARE", help="of a tile with the next")
    predict.add_argument("--tta", default="none", metavar="NAME", help="test-time augmentation: none, flip or d4")
    predict.set_defaults(run=_run_predict)
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser("train", help="train a network on pictures with masks and write its model folder")
    data = train.add_argument_group("data")
    data.add_argument(
        "--dataset",
        required=True,
        metavar="SOURCE",
        help="folder, glob, archive, manifest, or tfds:NAME[/CONFIG][:VERSION]/SPLIT",
    )
    data.add_argument("--ground_truth", metavar="SOURCE", help="the masks, unless the data set has them")
    data.add_argument("--test_dataset", metavar="SOURCE", help="separate pictures for the scores at the end")
    data.add_argument(
        "--unlabelled",
        metavar="SOURCE",
        help="pictures without masks, which the trained network labels and learns from",
    )
    data.add_argument("--label_map", metavar="RAW=ID,…", help="raw mask values (or #rrggbb) to class ids")
    data.add_argument(
        "--ignore_label",
        type=parse_ignore_label,
        metavar="RAW",
        help="the mask value, or colour #rrggbb, of pixels to ignore",
    )
    data.add_argument("--class_names", type=_names, metavar="A,B,…", help="the classes by id")
    data.add_argument("--val_fraction", type=float, metavar="X", help="share that chooses the best epoch")
    data.add_argument("--test_fraction", type=float, metavar="X", help="share kept for the scores at the end")
    net = train.add_argument_group("network")
    net.add_argument("--preset", metavar="NAME", help="efficientnet_lite, residual or chapter")
    net.add_argument(
        "--encoder", metavar="NAME", help="lite0, lite1 or lite2 with ImageNet weights; none for random weights"
    )
    net.add_argument(
        "--from",
        dest="from_model",
        metavar="DIR|NAME",
        help="start from this model's weights; its classes may be others",
    )
    net.add_argument("--mode", metavar="NAME", help="resize: whole pictures at the model's size; tile: crops of them")
    net.add_argument(
        "--image_size",
        type=_image_size,
        metavar="auto|N|HxW",
        help="the model's input, px; auto, the default, measures the masks",
    )
    net.add_argument("--width", type=int, metavar="N", help="filters of the first level; a preset has its own")
    net.add_argument("--depth", type=int, metavar="N", help="how many halvings of the picture; a preset has its own")
    net.add_argument("--channels", type=int, metavar="N", help="1 or 3")
    how = train.add_argument_group("training")
    how.add_argument("--epochs", type=int, metavar="N", help="passes over the training pictures")
    how.add_argument("--batch_size", type=int, metavar="N", help="pictures per step")
    how.add_argument("--loss", metavar="NAME", help="ce, ce_dice or focal")
    how.add_argument("--class_weights", metavar="W,…", help="a weight for each class, or balanced")
    how.add_argument("--learning_rate", type=float, metavar="X", help="the highest rate")
    how.add_argument(
        "--encoder_rate_factor", type=float, metavar="X", help="multiplies the rate in a pretrained encoder, 0 to 1"
    )
    how.add_argument("--schedule", metavar="NAME", help="cosine or constant")
    how.add_argument("--warmup_epochs", type=float, metavar="X", help="epochs over which the rate rises")
    how.add_argument("--augment", metavar="NAME", help="none, flip, light or full")
    how.add_argument("--distil", metavar="DIR|NAME", help="learn from the logits of this model besides the masks")
    how.add_argument("--patience", type=int, metavar="N", help="epochs without gain before the end, 0 for never")
    how.add_argument("--precision", metavar="NAME", help="auto, float32 or mixed_float16")
    how.add_argument("--seed", type=int, metavar="S", help="of split, weights, order and augmentation")
    out = train.add_argument_group("output")
    out.add_argument("--output", required=True, metavar="DIR", help="the model folder")
    out.add_argument("--resume", action="store_true", help="continue from the last checkpoint in the output")
    out.add_argument("--name", help="the model's name")
    out.add_argument("--dataset_name", metavar="TEXT", help="what the metadata calls the data")
    out.add_argument("--licence", metavar="TEXT", help="the data's licence, for the metadata")
    out.add_argument("--tensorboard", action="store_true", help="write TensorBoard's event files")
    out.add_argument("--saved_model", action="store_true", help="export a SavedModel too")
    train.set_defaults(run=_run_train)
    from model.options import TrainOptions

    fields = TrainOptions.__dataclass_fields__
    train.set_defaults(**{name: field.default for name, field in fields.items() if name not in ("dataset", "output")})


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _image_size(text: str) -> tuple[int, int] | None:
    from model.options import parse_image_size

    return parse_image_size(text)


def _run_sample(arguments: argparse.Namespace) -> None:
    from model.samples.sample import write_sample
    from model.samples.scenes import scene_named

    scene = scene_named(arguments.scene)
    objects = write_sample(Path(arguments.output), arguments.count, arguments.seed, scene)
    _answer(f"{arguments.count} pictures with {objects} objects in {arguments.output}")


def _run_train(arguments: argparse.Namespace) -> None:
    from model.options import TrainOptions, check_options

    options = TrainOptions(**{name: getattr(arguments, name) for name in TrainOptions.__dataclass_fields__})
    check_options(options)
    # Keras takes seconds to import; a source that can't be reached is reported before that.
    from model.data.encoded_pairs import check_source

    check_source(options.dataset, options.ground_truth)
    if options.test_dataset:
        check_source(options.test_dataset, None, "--test_dataset")
    from pipeline.engines.quiet import start_keras

    start_keras()
    from model.train import train

    if sys.stderr.isatty():
        from model.training_display import TrainingDisplay

        with TrainingDisplay(options.epochs) as display:
            train(options, display.say, display)
    else:
        train(options, say)
    _answer(f"the model folder is {options.output}")


def _run_export(arguments: argparse.Namespace) -> None:
    if arguments.dataset:
        from model.data.encoded_pairs import check_source

        check_source(arguments.dataset, arguments.ground_truth)
    from pipeline.engines.quiet import start_keras

    start_keras()
    from model.reexport import export_model

    folder = Path(arguments.model)
    spec = export_model(folder, arguments.dataset, arguments.ground_truth, saved_model=arguments.saved_model)
    for name, agreement in spec.agreement.items():
        _answer(f"{folder / name}: {agreement['equal_pixels']:.4%} of the pixels as Keras")


def _run_predict(arguments: argparse.Namespace) -> None:
    from model.predict import predict

    done, failures = predict(
        arguments.model,
        arguments.pictures,
        Path(arguments.output),
        arguments.precision,
        mode=arguments.mode,
        tile_overlap=arguments.tile_overlap,
        tta=arguments.tta,
    )
    for failure in failures:
        say(f"left out: {failure}")
    _answer(f"{done} pictures segmented, {len(failures)} left out; masks/ and overlays/ in {arguments.output}")


def say(line: str) -> None:
    """Prints a line of progress to standard error, without buffering, control characters escaped."""
    print(printable(line), file=sys.stderr, flush=True)


def _answer(line: str) -> None:
    """Prints a line of the command's result to standard output, control characters escaped."""
    print(printable(line))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments after `python -m model`; None for the process's own.

    Returns:
        The exit status: 0 done, 2 unusable options, data or model, 130 interrupted from the keyboard.
    """
    try:
        arguments = build_parser().parse_args(argv)
        from pipeline.core.process import prepare_process

        prepare_process()
        arguments.run(arguments)
    except MaskbeamError as error:
        say(f"maskbeam: {error}")
        return 2
    except KeyboardInterrupt:
        say("maskbeam: interrupted; --resume continues a training")
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDS_TRAIN:
            raise
        say(f"maskbeam: {error.name} is missing: pip install 'maskbeam[train]'")
        return 2
    return 0
