"""The sources of training pictures: the job's own, and TensorFlow Datasets.

A source is a stream of encoded pairs; nothing is decoded here.
"""

import functools
import itertools
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.errors import OptionError
from pipeline.core.layout import SPOOL_FOLDER
from pipeline.core.records import Failure, FileRef
from pipeline.sources.checks import check_pictures
from pipeline.sources.pairing import pair
from pipeline.sources.reading import FileReader
from pipeline.sources.source import Listed, Source
from pipeline.sources.sources import parse_sources, parse_truths
from pipeline.storage import filesystem

_TFDS = re.compile(r"tfds:(?P<name>[A-Za-z_]\w*(?:/[\w.-]+?)?(?::[\d.*]+)?)/(?P<split>[^/]+)")
_TFDS_MASKS = ("segmentation_mask", "segmentation_label", "mask", "label")


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One picture with its mask, whose files are not read yet.

    Attributes:
        pair_id: unique in its source: the path below it, or the data set's file name.
        read: returns the bytes of the picture's and of the mask's file; raises OSError or ValueError.
    """

    pair_id: str
    read: Callable[[], tuple[bytes, bytes]]


def check_source(source: str, ground_truth: str | None, option: str = "--dataset") -> None:
    """Checks that a source of training pictures and its masks exist, without listing them.

    A store that doesn't respond is reported after `filesystem.CHECK_PATIENCE_S`, not after the minutes of a reading.
    Data sets of TFDS, whose package takes seconds to import, are not looked up.

    Args:
        source: as in `open_source`.
        ground_truth: as in `open_source`.
        option: the option of the source, for messages.

    Raises:
        OptionError: one doesn't exist or can't be reached, or the source holds no picture.
    """
    if source.startswith("tfds:"):
        return
    with filesystem.patience(filesystem.CHECK_PATIENCE_S):
        images, masks = _images_and_masks(source, ground_truth, option)
        pictures = parse_sources([images], option)
        check_pictures(f"{option} {source}", pictures[0])
        parse_truths([] if masks is None else [masks], pictures)


def open_source(
    source: str, ground_truth: str | None, option: str = "--dataset", say: Callable[[str], None] | None = None
) -> Iterator[EncodedPair]:
    """Lists a source's pictures that have a mask, in a fixed order.

    Args:
        source: as the job's `--input`, a folder with `images/` and `masks/`, or
            `tfds:NAME[/CONFIG][:VERSION]/SPLIT`.
        ground_truth: the source of masks; None if the source has them.
        option: the option of the source, for messages.
        say: called with a line if pictures have no mask or masks no picture; these are left out.

    Returns:
        The pairs, by id, or in the data set's order for TFDS.

    Raises:
        OptionError: the source doesn't exist or has no picture with a mask, or pairing is ambiguous.
    """
    if source.startswith("tfds:"):
        if ground_truth is not None:
            raise OptionError("--ground_truth: a tfds: data set has its own masks")
        return tfds_pairs(source)
    return _paired(option, source, *_images_and_masks(source, ground_truth, option), say)


def _images_and_masks(source: str, ground_truth: str | None, option: str) -> tuple[str, str | None]:
    """The addresses of a source's pictures and masks; None for masks that a manifest or records name."""
    root = filesystem.absolute(source)
    images, masks = filesystem.join(root, "images"), filesystem.join(root, "masks")
    try:
        if ground_truth is None and filesystem.is_folder(images) and filesystem.is_folder(masks):
            return images, masks
    except OSError as error:
        raise OptionError(f"{option} {source}: can't be looked up: {error.strerror or error}") from error
    return source, ground_truth


def _paired(
    option: str, source: str, images: str, masks: str | None, say: Callable[[str], None] | None
) -> Iterator[EncodedPair]:
    """Pairs as the job does, but a failure of the job is an error here."""
    groups = parse_sources([images], option)
    truths = parse_truths([] if masks is None else [masks], groups)
    pictures = [listed for group in groups for one in group for listed in list_source(one)]
    masks_by_key: dict[str, list[FileRef]] = {}
    for truth in itertools.chain(*truths):
        for listed in list_source(truth):
            masks_by_key.setdefault(listed.pairing_key, []).append(listed.file)
    pictures_by_key: dict[str, list[Listed]] = {}
    for listed in pictures:
        pictures_by_key.setdefault(listed.pairing_key, []).append(listed)
    read, pairs = FileReader(spool_output()), []
    without_mask = 0
    for key, same in pictures_by_key.items():
        found = pair(same, masks_by_key.get(key, ()))
        for failure in (*found.failures, *found.truth_failures):
            raise OptionError(f"{option} {source}: {failure.image_id}: {failure.message}")
        pairs += [_file_pair(read, one.image_id, one.image, one.truth) for one in found.located if one.truth]
        without_mask += sum(one.truth is None for one in found.located)
    if not pairs:
        raise OptionError(
            f"{option} {source}: no masks: needs images/ and masks/, --ground_truth, or a manifest's mask column"
            if masks is None
            else f"{option} {source}: no masks: none of {len(pictures)} pictures has a mask of its name"
        )
    without_picture = sum(key not in pictures_by_key for key in masks_by_key)
    if say and (without_mask or without_picture):
        say(
            f"{option}: {without_mask} of {len(pictures)} pictures have no mask and are left out,"
            f" {without_picture} masks have no picture"
        )
    return iter(sorted(pairs, key=lambda one: one.pair_id))


def list_source(source: Source) -> Iterator[Listed]:
    """Lists the pictures or masks of a source of the job.

    Raises:
        OptionError: it can't be listed, or a part of it is broken.
    """
    try:
        for item in replace(source, spool=filesystem.join(spool_output(), SPOOL_FOLDER)).items():
            if isinstance(item, Failure):
                raise OptionError(f"{item.source_uri}: {item.message}")
            if isinstance(item, Listed):
                yield item
    except OSError as error:
        raise OptionError(f"{source.uri} can't be listed: {error.strerror or error}") from error


def spool_output() -> str:
    """A folder for members of compressed archives, for the lifetime of the process."""
    return _spool().name


@functools.cache
def _spool() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="maskbeam-")


def _file_pair(read: FileReader, pair_id: str, image: FileRef, mask: FileRef) -> EncodedPair:
    return EncodedPair(pair_id, lambda: (read(image), read(mask)))


def tfds_name(source: str) -> str | None:
    """The bare name of a `tfds:` source's data set, None for other sources."""
    match = _TFDS.fullmatch(source)
    return None if match is None else re.split("[/:]", match["name"])[0]


def tfds_pairs(source: str) -> Iterator[EncodedPair]:
    """The pairs of `tfds:NAME[/CONFIG][:VERSION]/SPLIT`, in the data set's order.

    Raises:
        OptionError: it is not of this form, can't be prepared, or has no masks.
    """
    match = _TFDS.fullmatch(source)
    if match is None:
        raise OptionError(f"{source} is not of the form tfds:NAME[/CONFIG][:VERSION]/SPLIT")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise OptionError(f"{source} needs the extra `train`: pip install maskbeam[train]") from error
    try:
        builder = tfds.builder(match["name"])
        mask_feature = next(
            name for name in _TFDS_MASKS if name in builder.info.features and _is_image(tfds, builder, name)
        )
        builder.download_and_prepare()
        skip = tfds.decode.SkipDecoding()
        dataset = builder.as_dataset(
            split=match["split"], decoders={"image": skip, mask_feature: skip}, shuffle_files=False
        )
    except StopIteration:
        raise OptionError(f"{source}: the data set has no masks ({', '.join(_TFDS_MASKS)})") from None
    except Exception as error:  # TFDS passes on any exception of its network, builders and file systems
        raise OptionError(f"{source} can't be prepared: {_first_line(error)}") from error
    return _encoded_examples(tfds.as_numpy(dataset), mask_feature, match["split"])


def _is_image(tfds: Any, builder: Any, name: str) -> bool:
    return isinstance(builder.info.features[name], tfds.features.Image)


def _encoded_examples(examples: Any, mask_feature: str, split: str) -> Iterator[EncodedPair]:
    for index, example in enumerate(examples):
        name = example.get("file_name", example.get("image/filename", example.get("filename", b"")))
        pair_id = name.decode("utf-8", "replace") if name else f"{split}-{index}"
        image, mask = bytes(example["image"]), bytes(example[mask_feature])
        yield EncodedPair(pair_id, lambda image=image, mask=mask: (image, mask))  # type: ignore[misc]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
