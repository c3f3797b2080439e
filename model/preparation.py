"""From the options of a training to a `TrainingJob`; errors in options and data are reported here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.classes import map_text, resolve_classes
from model.data.copies import Thumbnail, copies_of, thumbnail
from model.data.crops import CropStore
from model.data.dataset import PairStore, PreparedData, load_or_fault, map_in_order, prepare
from model.data.encoded_pairs import open_source
from model.data.image_size import choose_image_size
from model.data.label_faults import TruthFault, describe_faults
from model.data.split import MIN_VALIDATION_PICTURES, Split, is_test_picture, split_pictures
from model.early_warnings import background_warning
from model.job import TrainingJob
from model.networks.network import PRESETS, NetworkConfig, check_config
from model.networks.stored_network import StoredNetwork
from model.options import DEFAULT_PRESET, TrainOptions, check_class_weights, parse_class_weights
from model.start import check_teacher, choose_start, encoder_of, read_sources, resolve_structure
from pipeline.core.errors import OptionError, PictureError
from pipeline.core.split_digests import TEST, TRAIN, VALIDATION, SplitDigests
from pipeline.core.truth import Labels
from pipeline.core.usage import TILE
from pipeline.core.wording import pictures_text

Say = Callable[[str], None]


def prepare_job(options: TrainOptions, say: Say) -> TrainingJob:
    """Determines network and classes, reads all pictures and divides them.

    Args:
        options: of the training.
        say: called with a line of progress.

    Returns:
        The job.

    Raises:
        OptionError: the options or the data can't be used.
    """
    source, teacher = read_sources(options)
    options = resolve_structure(options, source)
    config = _network_config(options)
    start = choose_start(options, config, source)
    labels, class_names = resolve_classes(options)
    config = replace(config, num_classes=labels.num_classes)
    if teacher is not None:
        check_teacher(teacher, options.distil or "", class_names, config.channels)
    weights = parse_class_weights(options.class_weights)
    if weights is not None:
        check_class_weights(weights, labels.num_classes)
    # It is used only after the last epoch, so its errors are reported before the first.
    test_pictures = _check_test_dataset(options, labels, say) if options.test_dataset else None
    if options.image_size is None and options.mode != TILE:
        config = _with_chosen_size(options, config, labels, say)
    data = _read(options, config, labels, say)
    test_fraction = 0.0 if options.test_dataset else options.test_fraction
    split = split_pictures(data.store.pair_ids, options.seed, options.val_fraction, test_fraction)
    if test_pictures is None:
        test_pictures = {data.store.pair_ids[index]: _kept_picture(data, int(index)) for index in split.test}
    digests = _digests(data, split, test_pictures, [one for one in (source, teacher) if one is not None])
    _report_classes(data, labels, class_names, say)
    _report_split(split, len(test_pictures), digests, say)
    _report_copies(data, split, test_pictures, say)
    kept = frozenset(test_pictures)
    return TrainingJob(options, config, labels, class_names, data, split, kept, digests, start, teacher)


def _network_config(options: TrainOptions) -> NetworkConfig:
    """The network of the options; its number of classes isn't known yet."""
    name = options.preset or DEFAULT_PRESET
    if name not in PRESETS:
        raise OptionError(f"--preset {name} is not one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    depth = preset.depth if options.depth is None else options.depth
    height, width = options.image_size or (preset.image_size, preset.image_size)
    if options.image_size is None and 0 < depth < 12:
        height = width = -(-preset.image_size >> depth) << depth
    config = NetworkConfig(
        name,
        preset.width if options.width is None else options.width,
        depth,
        height,
        width,
        options.channels,
        num_classes=2,
        encoder=encoder_of(options),
    )
    check_config(config)
    return config


def _with_chosen_size(options: TrainOptions, config: NetworkConfig, labels: Labels, say: Say) -> NetworkConfig:
    """The network at the size that the masks need; those that the test keeps do not decide it."""
    test_fraction = 0.0 if options.test_dataset else options.test_fraction
    chosen = choose_image_size(
        open_source(options.dataset, options.ground_truth),
        labels,
        config.channels,
        1 << config.depth,
        (config.image_height, config.image_width),
        lambda pair_id: is_test_picture(options.seed, pair_id, test_fraction),
    )
    for line in chosen.lines:
        say(line)
    return replace(config, image_height=chosen.size[0], image_width=chosen.size[1])


def _read(options: TrainOptions, config: NetworkConfig, labels: Labels, say: Say) -> PreparedData:
    pairs = open_source(options.dataset, options.ground_truth, say=say)
    size = config.image_height, config.image_width
    is_tiled = options.mode == TILE
    store = CropStore(*size, labels.num_classes) if is_tiled else PairStore(*size, config.channels)
    data = prepare(pairs, labels, store, config.channels)
    for line in data.left_out:
        say(f"left out: {line}")
    if data.truth_faults:
        # Such a mask is more often a wrong option than a bad file; training on the other pictures would hide it.
        seen = np.flatnonzero(data.class_px(labels.num_classes)).tolist()
        raise OptionError(describe_faults(data.truth_faults, data.masks, map_text(options), labels.num_classes, seen))
    return data


@dataclass(frozen=True, slots=True)
class KeptPicture:
    """A picture that is scored at the end: the digest of its file, and its thumbnail for finding copies."""

    digest: int
    thumbnail: Thumbnail


def _check_test_dataset(options: TrainOptions, labels: Labels, say: Say) -> dict[str, KeptPicture | None]:
    """Reads all pictures of `--test_dataset`; a mask that can't be used is an error.

    Returns:
        Every picture by its id, None where it can't be read.
    """
    faults: list[TruthFault] = []
    found: dict[str, KeptPicture | None] = {}
    pairs = open_source(options.test_dataset or "", None, "--test_dataset", say)
    for pair, loaded in map_in_order(pairs, lambda one: load_or_fault(one, labels, options.channels)):
        found[pair.pair_id] = None
        if isinstance(loaded, TruthFault):
            faults.append(loaded)
        elif isinstance(loaded, PictureError):
            say(f"left out of --test_dataset: {pair.pair_id}: {loaded.message}")
        else:
            found[pair.pair_id] = KeptPicture(loaded.digest, thumbnail(loaded.image))
    usable = sum(one is not None for one in found.values())
    if faults:
        pairs_named = (f"{raw}={class_id}" for raw, class_id in labels.label_map.to_metadata().items())
        text = map_text(options) or ",".join(pairs_named)
        said = describe_faults(faults, usable + len(faults), text, labels.num_classes, ())
        raise OptionError(f"--test_dataset: {said}")
    if not usable:
        raise OptionError(f"--test_dataset {options.test_dataset}: no picture can be read")
    return found


def _digests(
    data: PreparedData, split: Split, kept: dict[str, KeptPicture | None], earlier: Sequence[StoredNetwork]
) -> SplitDigests:
    """The parts; the pictures that earlier models were trained on have influenced the weights, too."""
    known = [digest for one in earlier if one.split for digest in one.split.digests[TRAIN].tolist()]
    return SplitDigests.of(
        {
            TRAIN: (*(data.digests[index] for index in split.train), *known),
            VALIDATION: (data.digests[index] for index in split.validation),
            TEST: (one.digest for one in kept.values() if one is not None),
        }
    )


def _report_classes(data: PreparedData, labels: Labels, class_names: tuple[str, ...], say: Say) -> None:
    class_px = data.class_px(labels.num_classes)
    for class_id in np.flatnonzero(class_px == 0):
        say(f"warning: class {class_id} ({class_names[class_id]}) occurs in no mask")
    if (line := background_warning(data.store.frame_px(labels.num_classes), class_px, class_names)) is not None:
        say(f"warning: {line}")


def _report_split(split: Split, kept: int, digests: SplitDigests, say: Say) -> None:
    """Reports the division of the pictures, and warns if it makes the choice of the epoch or the scores unreliable."""
    trained, chosen_by = len(split.train), len(split.validation)
    say(f"{trained} pictures to train on, {chosen_by} to choose the best epoch, {kept} kept for the end")
    if chosen_by < MIN_VALIDATION_PICTURES:
        say(
            f"warning: the best epoch is chosen on {pictures_text(chosen_by)}; with fewer than"
            f" {MIN_VALIDATION_PICTURES} the choice is unreliable: raise --val_fraction"
        )
    for part, consequence in (
        (VALIDATION, "choose the best epoch: it is chosen too late"),
        (TEST, "are kept for the end: the scores are too high"),
    ):
        if count := digests.shared(TRAIN, part):
            say(f"warning: {pictures_text(count)} with the same content are trained on and {consequence}")


def _kept_picture(data: PreparedData, index: int) -> KeptPicture:
    return KeptPicture(data.digests[index], thumbnail(data.store.picture(index)))


def _report_copies(data: PreparedData, split: Split, kept: dict[str, KeptPicture | None], say: Say) -> None:
    """Warns of validation and kept pictures that show what is trained on, in another file."""
    ids, trained = data.store.pair_ids, {data.digests[index] for index in split.train}
    originals = np.stack([thumbnail(data.store.picture(int(index))) for index in split.train])
    validation = {ids[index]: _kept_picture(data, int(index)) for index in split.validation}
    for part, consequence in (
        (validation, "choose the best epoch: it is chosen too late"),
        (kept, "are kept for the end: the scores are too high"),
    ):
        # Equal files are reported with the split.
        others = {name: one for name, one in part.items() if one is not None and one.digest not in trained}
        if not others:
            continue
        found = copies_of(np.stack([one.thumbnail for one in others.values()]), originals)
        named = [f"{name} of {ids[split.train[at]]}" for name, at in zip(others, found, strict=True) if at >= 0]
        if named:
            say(
                f"warning: {pictures_text(len(named))} look like copies (encoded again, resized) of pictures that are"
                f" trained on and {consequence}: {', '.join([*named[:3], *(['…'] if len(named) > 3 else [])])}"
            )
