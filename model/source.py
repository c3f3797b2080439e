"""Where training pictures come from: folders of files, and TensorFlow Datasets.

A source is a stream of encoded pairs; nothing is decoded here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.core.decode import has_picture_ending
from pipeline.core.errors import OptionError
from pipeline.stages import storage

_TFDS = re.compile(r"tfds:(?P<name>[A-Za-z_]\w*(?:/[\w.-]+?)?(?::[\d.*]+)?)/(?P<split>[^/]+)")
_TFDS_MASKS = ("segmentation_mask", "segmentation_label", "mask", "label")


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One picture with its mask, not read yet.

    Attributes:
        pair_id: unique in its source: the path below it, or the data set's file name.
        read: returns the bytes of the picture's and of the mask's file; raises OSError.
    """

    pair_id: str
    read: Callable[[], tuple[bytes, bytes]]


def open_source(source: str, ground_truth: str | None) -> Iterator[EncodedPair]:
    """Lists a source's pictures that have a mask, in a fixed order.

    Args:
        source: a folder with `images/` and `masks/`, a folder of pictures, or `tfds:NAME[/CONFIG][:VERSION]/SPLIT`.
        ground_truth: the folder of masks for a folder of pictures; None where the source holds them.

    Returns:
        The pairs, by id for folders, in the data set's order for TFDS.

    Raises:
        OptionError: there is no such source, it holds no picture with a mask, or pairing is ambiguous.
    """
    if source.startswith("tfds:"):
        if ground_truth is not None:
            raise OptionError("--ground_truth: a tfds: data set holds its own masks")
        return _tfds_pairs(source)
    root = storage.absolute(source)
    if not storage.is_folder(root):
        raise OptionError(f"--dataset {source}: no such folder")
    images, masks = root, None if ground_truth is None else storage.absolute(ground_truth)
    if masks is None:
        images, masks = storage.join(root, "images"), storage.join(root, "masks")
        if not storage.is_folder(images) or not storage.is_folder(masks):
            raise OptionError(
                f"--dataset {source}: no masks: it needs images/ and masks/, or --ground_truth the masks' folder"
            )
    elif not storage.is_folder(masks):
        raise OptionError(f"--ground_truth {ground_truth}: no such folder")
    return _folder_pairs(source, images, masks)


def _folder_pairs(source: str, images: str, masks: str) -> Iterator[EncodedPair]:
    mask_of = _by_stem(masks)
    pairs: list[EncodedPair] = []
    for stem, uris in _by_stem(images).items():
        candidates = mask_of.get(stem, [])
        if len(candidates) > 1:
            raise OptionError(f"--dataset {source}: {stem} has {len(candidates)} masks: {', '.join(candidates)}")
        for uri in uris:
            if candidates:
                pairs.append(_file_pair(uri[len(images) + 1 :], uri, candidates[0]))
    if not pairs:
        raise OptionError(f"--dataset {source}: no masks: not one picture has a mask of its name")
    return iter(sorted(pairs, key=lambda pair: pair.pair_id))


def _by_stem(folder: str) -> dict[str, list[str]]:
    """The picture files below a folder by their path below it without the ending."""
    found: dict[str, list[str]] = {}
    try:
        for file in storage.list_files(folder):
            name = file.uri[len(folder) + 1 :]
            if has_picture_ending(name):
                found.setdefault(name.rpartition(".")[0], []).append(file.uri)
    except OSError as error:
        raise OptionError(f"{folder} can't be listed: {error.strerror or error}") from error
    return found


def _file_pair(pair_id: str, image_uri: str, mask_uri: str) -> EncodedPair:
    return EncodedPair(pair_id, lambda: (storage.read_bytes(image_uri), storage.read_bytes(mask_uri)))


def tfds_name(source: str) -> str | None:
    """The bare name of a `tfds:` source's data set, None for other sources."""
    match = _TFDS.fullmatch(source)
    return None if match is None else re.split("[/:]", match["name"])[0]


def _tfds_pairs(source: str) -> Iterator[EncodedPair]:
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
    except Exception as error:  # TFDS raises whatever its network, builders and file systems raise
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
