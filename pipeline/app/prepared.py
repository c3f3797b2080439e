"""From options to a job whose parts exist and are consistent, before any work."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

from pipeline.app.job_options import JobOptions
from pipeline.core.errors import OptionError, StorageError
from pipeline.core.labels import LabelMap
from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.limits import max_file_bytes
from pipeline.core.recipe import Recipe
from pipeline.engines.model_folder import ModelFolder, open_model
from pipeline.output.earlier_run import RESUME, check_output
from pipeline.output.mask_output import MASK
from pipeline.output.outputs import Destination
from pipeline.output.registry import requested_outputs
from pipeline.output.removal import check_removal, expected_removal
from pipeline.segmenting.modes import choose_mode, make_mode
from pipeline.sources.checks import check_pictures, check_truths
from pipeline.sources.manifest import OWN_COLUMNS
from pipeline.sources.source import Source
from pipeline.sources.sources import parse_sources, parse_truths
from pipeline.storage import filesystem
from pipeline.storage.os_errors import os_errors_as


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose options were checked.

    Args:
        model: the model.
        recipe: what determines the results.
        destination: where and what to write of each picture.
        pictures: sources of pictures.
        truths: sources of masks.
    """

    model: ModelFolder
    recipe: Recipe
    destination: Destination
    pictures: list[Source]
    truths: list[Source]


def prepare(options: JobOptions) -> Prepared:
    """Checks that everything the options name exists and is consistent, before any work.

    Args:
        options: as parsed.

    Returns:
        The job.

    Raises:
        OptionError: something doesn't exist or is inconsistent.
    """
    filesystem.configure(options.beam_args)
    if filesystem.is_read_only(options.output):
        raise OptionError(f"--output {options.output}: {filesystem.READ_ONLY}")
    model = open_model(options.model, backend=options.backend, precision=options.precision)
    pictures = parse_sources(options.input, "--input")
    truths = parse_truths(options.ground_truth, pictures)
    recipe = _recipe(options, model, itertools.chain(*pictures))
    _check_sources(options, pictures, truths)
    output = filesystem.absolute(options.output)
    destination = Destination(output, requested_outputs(asdict(options), recipe), options.mask_format == "tar")
    if not options.plan:
        _check_output(options, destination, recipe, itertools.chain(*pictures, *truths))
    return Prepared(
        model=model,
        recipe=recipe,
        destination=destination,
        pictures=_readable(pictures, options, output),
        truths=_readable(truths, options, output),
    )


def _recipe(options: JobOptions, model: ModelFolder, pictures: Iterable[Source]) -> Recipe:
    ignore_label = model.spec.ignore_label if options.ignore_label is None else options.ignore_label
    label_map = _label_map(options, model, pictures)
    label_map.check(model.spec.num_classes, ignore_label)
    mode, overlap = choose_mode(options.mode, options.tile_overlap, model.spec)
    make_mode(mode, model.spec, tile_overlap=overlap, tta=options.tta)  # refuses what does not suit the model
    return Recipe(
        spec=model.spec,
        model_digest=model.digest,
        label_map=label_map,
        ignore_label=ignore_label,
        max_pixels=options.max_pixels,
        backend=model.backend,
        mode=mode,
        tile_overlap=overlap,
        tta=options.tta,
    )


def _label_map(options: JobOptions, model: ModelFolder, pictures: Iterable[Source]) -> LabelMap:
    """The option's map, else the model's, else the data set's known one, else identity."""
    if options.label_map is not None:
        return LabelMap.parse(options.label_map)
    known = {source.label_map for source in pictures}
    if not model.spec.label_map and len(known) == 1 and (text := known.pop()):
        return LabelMap.parse(text)
    return model.spec.labels()


def _check_sources(
    options: JobOptions, pictures: Sequence[Sequence[Source]], truths: Sequence[Sequence[Source]]
) -> None:
    for group, text in zip(pictures, options.input, strict=True):
        check_pictures(f"--input {text}", group)
    for truth_group, group, text in zip(truths, pictures, options.ground_truth, strict=False):
        check_truths(f"--ground_truth {text}", truth_group, group)
    column = options.group_by
    if column in OWN_COLUMNS:
        raise OptionError(f"--group_by {column}: each picture would be a group; the tables hold each picture's numbers")
    if column is not None and not any(source.has_column(column) for source in itertools.chain(*pictures)):
        raise OptionError(f"--group_by {column}: no manifest of --input has such a column")


def _check_output(options: JobOptions, destination: Destination, recipe: Recipe, read: Iterable[Source]) -> None:
    output = destination.root
    check_output(output, options.existing, read)
    try:
        filesystem.check_writable(output)
    except StorageError as error:
        raise OptionError(f"--output: {error}") from error
    if options.existing == RESUME:
        _check_expected_removal(destination, recipe, options)


def _check_expected_removal(destination: Destination, recipe: Recipe, options: JobOptions) -> None:
    """Refuses a removal that the job would refuse after listing the pictures, as far as it is known now."""
    has_masks = any(output.name == MASK for output in destination.outputs)
    with os_errors_as(OptionError, f"--output {destination.root} can't be read"):
        counts = expected_removal(destination.root, recipe, has_masks=has_masks)
    check_removal(f"--output {destination.root}", counts, may_remove=options.prune)


def _readable(groups: Iterable[Iterable[Source]], options: JobOptions, output: str) -> list[Source]:
    """The sources with what their listing needs to copy pictures that can't be read by range."""
    spool, max_bytes = filesystem.join(output, SPOOL_FOLDER), max_file_bytes(options.max_pixels)
    return [replace(source, spool=spool, max_bytes=max_bytes) for source in itertools.chain(*groups)]
