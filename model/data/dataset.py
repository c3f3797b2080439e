"""A data set ready to train on: every picture at the model's size or at its own, its mask as class ids.

Pictures and masks have the same decoding, label map and resizing as in the job, so a network has the same input in
training and in serving.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from model.data.crops import CropStore
from model.data.encoded_pairs import EncodedPair
from model.data.label_faults import TruthFault, truth_fault
from pipeline.core.decode import decode_mask
from pipeline.core.errors import ErrorType, OptionError, PictureError
from pipeline.core.labels import ClassIds
from pipeline.core.model_input import model_input
from pipeline.core.raster import open_raster
from pipeline.core.resize import resize_mask_nearest
from pipeline.core.spec import InputSpec
from pipeline.core.split_digests import picture_digest
from pipeline.core.truth import Labels, decode_truth

UInt8Array = npt.NDArray[np.uint8]

_Result = TypeVar("_Result")

_IN_MEMORY_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """A decoded picture and its mask at the picture's own size.

    Attributes:
        image: (H, W, channels) uint8 upright.
        mask: (H, W) class ids, `num_classes` where ignored.
        digest: of the picture's file, as `pipeline.core.split_digests.picture_digest`.
    """

    image: UInt8Array
    mask: ClassIds
    digest: int


def load_pair(pair: EncodedPair, labels: Labels, channels: int) -> LoadedPair:
    """Reads and decodes one pair.

    Raises:
        PictureError: the picture or its mask can't be used.
    """
    try:
        image_bytes, mask_bytes = pair.read()
    except (OSError, ValueError) as error:
        raise PictureError("read", ErrorType.UNREADABLE, getattr(error, "strerror", None) or str(error)) from error
    raster = open_raster(image_bytes, channels=channels)
    mask = decode_truth(mask_bytes, raster.info, labels)
    return LoadedPair(raster.read(raster.info.whole), mask, picture_digest(image_bytes))


class PairStore:
    """Pictures and class ids of one size, by number; those beyond the memory limit are in a temporary file."""

    def __init__(self, height: int, width: int, channels: int, in_memory_bytes: int = _IN_MEMORY_BYTES) -> None:
        """Creates an empty store.

        Args:
            height: of every picture, px.
            width: of every picture, px.
            channels: of every picture.
            in_memory_bytes: the pictures beyond this many bytes go to disk.
        """
        self._image_shape, self._mask_shape = (height, width, channels), (height, width)
        self._in_memory: list[tuple[UInt8Array, ClassIds]] = []
        self._pair_bytes = height * width * (channels + 2)
        self._capacity = max(1, in_memory_bytes // self._pair_bytes)
        self._file = tempfile.TemporaryFile(prefix="maskbeam-")  # noqa: SIM115 - it lives as long as the store
        self.pair_ids: list[str] = []

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.pair_ids)

    def fitted(self, image: UInt8Array, mask: ClassIds) -> tuple[UInt8Array, ClassIds]:
        """A pair of any size as it is stored: at the model's size."""
        taken = np.asarray(model_input(image, InputSpec(*self._image_shape)), np.uint8)
        return taken, resize_mask_nearest(mask, *self._mask_shape)

    def append(self, pair_id: str, image: UInt8Array, mask: ClassIds) -> None:
        """Adds one pair: (H, W, C) uint8 and (H, W) class ids."""
        self.pair_ids.append(pair_id)
        if len(self._in_memory) < self._capacity:
            self._in_memory.append((np.ascontiguousarray(image), mask))
        else:
            self._file.write(image.tobytes() + mask.astype(np.uint16).tobytes())
            self._file.flush()

    def __getitem__(self, index: int) -> tuple[UInt8Array, ClassIds]:
        """The image, (H, W, C) uint8, and the class ids, (H, W), of one pair."""
        if index < len(self._in_memory):
            return self._in_memory[index]
        offset = (index - self._capacity) * self._pair_bytes
        data = os.pread(self._file.fileno(), self._pair_bytes, offset)
        split = int(np.prod(self._image_shape))
        image = np.frombuffer(data, np.uint8, split).reshape(self._image_shape)
        return image, np.frombuffer(data, np.uint16, offset=split).reshape(self._mask_shape)

    def picture(self, index: int) -> UInt8Array:
        """A picture at the model's size, (H, W, C) uint8."""
        return self[index][0]

    def items_of(self, pictures: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The numbers of what a network sees of some pictures: each picture once."""
        return pictures

    def examples(self, pictures: npt.NDArray[np.int64], count: int) -> list[int]:
        """The items of the first of some pictures, at most `count`."""
        return [int(index) for index in pictures[:count]]

    def id_of(self, item: int) -> str:
        """The id of an item's picture."""
        return self.pair_ids[item]

    def sample(self, item: int, rng: np.random.Generator, *, varies_scale: bool) -> tuple[UInt8Array, ClassIds]:
        """What the network is trained on, before its augmentation: the picture; nothing is random."""
        return self[item]

    def class_px(self, indices: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.int64]:
        """The pixels of every class in some of the pairs, ignored ones left out, (num_classes,) int64."""
        counts = np.zeros(num_classes + 1, np.int64)
        for index in indices:
            counts += np.bincount(self[int(index)][1].ravel(), minlength=num_classes + 1)
        return counts[:num_classes]

    def frame_px(self, num_classes: int) -> npt.NDArray[np.int64]:
        """The pixels of every class in the outermost rows and columns of all masks, (num_classes,) int64."""
        counts = np.zeros(num_classes + 1, np.int64)
        for index in range(len(self)):
            mask = self[index][1]
            frame = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
            counts += np.bincount(frame, minlength=num_classes + 1)
        return counts[:num_classes]


TrainingStore = PairStore | CropStore
"""Whole pictures at the model's size, or crops at full resolution."""


@dataclass(slots=True)
class PreparedData:
    """The result of a pass over the source.

    Attributes:
        store: the usable pairs.
        digests: of the files of the pictures in the store, in its order.
        left_out: a line for each picture that could not be read or decoded.
        truth_faults: the masks that can't be read as class ids or don't fit their picture.
    """

    store: TrainingStore
    digests: list[int]
    left_out: list[str]
    truth_faults: list[TruthFault]

    @property
    def masks(self) -> int:
        """How many pictures could be read, with usable masks or not."""
        return len(self.store) + len(self.truth_faults)

    def class_px(self, num_classes: int) -> npt.NDArray[np.int64]:
        """The pixels of every class in all pictures, (num_classes,) int64."""
        return self.store.class_px(np.arange(len(self.store)), num_classes)


def prepare(pairs: Iterator[EncodedPair], labels: Labels, store: TrainingStore, channels: int) -> PreparedData:
    """Reads and decodes a whole source, several pictures at a time.

    Args:
        pairs: the source.
        labels: how its raw mask values become class ids.
        store: empty; decides the size of what is stored.
        channels: the model's input channels.

    Returns:
        The pairs, in the source's order.

    Raises:
        OptionError: no picture can be read.
    """

    def work(pair: EncodedPair) -> LoadedPair | PictureError | TruthFault:
        loaded = load_or_fault(pair, labels, channels)
        if isinstance(loaded, PictureError | TruthFault):
            return loaded
        return LoadedPair(*store.fitted(loaded.image, loaded.mask), loaded.digest)

    found = PreparedData(store, [], [], [])
    for pair, result in map_in_order(pairs, work):
        if isinstance(result, TruthFault):
            found.truth_faults.append(result)
        elif isinstance(result, PictureError):
            found.left_out.append(f"{pair.pair_id}: {result.message}")
        else:
            found.store.append(pair.pair_id, result.image, result.mask)
            found.digests.append(result.digest)
    if not found.masks:
        raise OptionError(f"no picture of the data set can be used, {found.left_out[0]}")
    return found


def load_or_fault(pair: EncodedPair, labels: Labels, channels: int) -> LoadedPair | PictureError | TruthFault:
    """As `load_pair`, but returns errors: of the mask a `TruthFault`, of the picture the `PictureError`."""
    try:
        return load_pair(pair, labels, channels)
    except PictureError as error:
        if error.stage != "truth":
            return error
        if error.error_type != "UnknownLabels":
            return TruthFault(pair.pair_id, error.message)
        message = error.message
    try:
        mask = decode_mask(pair.read()[1])
    except (PictureError, OSError, ValueError):
        return TruthFault(pair.pair_id, message)
    return truth_fault(pair.pair_id, message, mask, labels.label_map, labels.ignore_label)


def map_in_order(
    pairs: Iterator[EncodedPair], work: Callable[[EncodedPair], _Result]
) -> Iterator[tuple[EncodedPair, _Result]]:
    """Maps over a stream with a few threads, a bounded number of pairs ahead of the consumer.

    Args:
        pairs: the stream.
        work: called with each, in any thread.

    Yields:
        The pairs in their order, each with its result.
    """
    threads = min(16, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[tuple[EncodedPair, Future[_Result]]] = deque()
        for pair in islice(pairs, 4 * threads):
            running.append((pair, pool.submit(work, pair)))
        while running:
            done, future = running.popleft()
            yield done, future.result()
            for pair in islice(pairs, 1):
                running.append((pair, pool.submit(work, pair)))
