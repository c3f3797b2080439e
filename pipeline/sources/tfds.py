"""TensorFlow Datasets as sources: finds the files of a split and the names of its features.

The launcher finds the files by TFDS once; workers read them by range without TensorFlow.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import OptionError
from pipeline.sources.archives.record_files import RecordFile
from pipeline.sources.archives.tfrecord import Features
from pipeline.sources.record_source import RecordSource
from pipeline.sources.source import Address, Source
from pipeline.storage import filesystem

_SCHEME = "tfds:"
_SOURCE = re.compile(r"tfds:(?P<name>[A-Za-z_]\w*)(?P<rest>(?:/[\w.-]+?)?(?::[\d.*]+)?)/(?P<split>[^/]+)")
_IMAGES, _MASKS = ("image",), ("segmentation_mask", "segmentation_label", "mask", "label")
_FILE_NAMES = ("file_name", "image/filename", "filename")
_LABEL_MAPS = {"oxford_iiit_pet": "1=0,2=1,3=2"}


@dataclass(frozen=True, slots=True)
class TfdsSource(RecordSource):
    """One file of a split of a data set; `uri` is the source as written."""

    @classmethod
    def recognise(cls, address: Address) -> Sequence[Source] | None:
        """See `Source.recognise`."""
        if not address.text.startswith(_SCHEME):
            return None
        return [cls(address.text, file=file) for file in tfds_files(address.text)]

    @property
    def base_name(self) -> str:
        """The data set's name."""
        return re.split("[/:]", self.uri.removeprefix(_SCHEME))[0]

    @property
    def label_map(self) -> str | None:
        """See `Source.label_map`."""
        return _LABEL_MAPS.get(self.base_name)


def tfds_files(text: str) -> list[RecordFile]:
    """Finds the files of a split; prepares the data set first if necessary.

    Args:
        text: `tfds:NAME[/CONFIG][:VERSION]/SPLIT`; the split may be a slice such as `train[:10%]`.

    Returns:
        The files in order.

    Raises:
        OptionError: the data set or split doesn't exist, TFDS isn't installed, or the data set has no images.
    """
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise OptionError(f"{text}: not of the form tfds:NAME[/CONFIG][:VERSION]/SPLIT")
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise OptionError(f"{text} needs TensorFlow Datasets: pip install 'maskbeam[train]'") from error
    try:
        builder = tfds.builder(match["name"] + match["rest"])
        builder.download_and_prepare()
        info = builder.info
        instructions = info.splits[match["split"]].file_instructions
    except Exception as error:  # TFDS passes on any exception of its builders, network and file systems
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise OptionError(f"{text}: can't be prepared: {reason}") from error
    if str(info.file_format.value) != "tfrecord":
        raise OptionError(f"{text}: is stored as {info.file_format.value}; prepare it with file_format='tfrecord'")
    features = _features(tfds, text, info)
    split = re.split(r"\[", match["split"])[0]
    files, first_index = [], _first_index(info, instructions)
    for instruction in instructions:
        take = int(instruction.take)
        uri = filesystem.absolute(str(instruction.filename))
        files.append(RecordFile(uri, split, first_index, int(instruction.skip), take, features))
        first_index += int(instruction.examples_in_shard)
    return files


def _first_index(info: Any, instructions: Any) -> int:
    """The index, in its split, of the first Example of the first file: a slice may start in a later file."""
    if not instructions:
        return 0
    first = filesystem.base_name(str(instructions[0].filename))
    for split in info.splits.values():
        before = 0
        for name, length in zip(split.filenames, split.shard_lengths, strict=True):
            if filesystem.base_name(str(name)) == first:
                return before
            before += int(length)
    return 0


def _features(tfds: Any, text: str, info: Any) -> Features:
    names = set(info.features)

    def of(wanted: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in wanted if name in names and isinstance(info.features[name], tfds.features.Image))

    if not of(_IMAGES):
        raise OptionError(f"{text}: the data set has no feature {' or '.join(_IMAGES)} that is a picture")
    return Features(of(_IMAGES), of(_MASKS), tuple(name for name in _FILE_NAMES if name in names))
