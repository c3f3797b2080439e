"""Training at full resolution: pictures of any size, of which a network sees crops of its input's size."""

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.core.labels import ClassIds
from pipeline.core.resize import resize_image, resize_mask_nearest
from pipeline.segmenting.tile_axis import TileAxis

UInt8Array = npt.NDArray[np.uint8]

MAX_SCALE = 1.25
"""Random crops are enlarged or reduced by up to this factor, where the augmentation varies the scale."""

_IN_MEMORY_BYTES = 4 << 30
_MAX_OUTSIDE = 0.25
"""The share of a crop's side that may be beyond the picture, as parts of the outermost tiles are."""


class CropStore:
    """Pictures and class ids at full resolution, by number; those beyond the memory limit are in a temporary file.

    Of each picture there are as many items as tiles without overlap cover it. An item is such a tile where pictures are
    compared, and a random crop of its picture where the network is trained.

    Args:
        height: of a crop, px.
        width: of a crop, px.
        num_classes: of the masks; the value of ignored pixels.
        in_memory_bytes: the pictures beyond this many bytes go to disk.
    """

    def __init__(self, height: int, width: int, num_classes: int, in_memory_bytes: int = _IN_MEMORY_BYTES) -> None:
        self._size = height, width
        self._num_classes = num_classes
        self._free_bytes = in_memory_bytes
        self._file = tempfile.TemporaryFile(prefix="maskbeam-")  # noqa: SIM115 - it lives as long as the store
        self._pairs: list[tuple[UInt8Array, ClassIds]] = []
        self._items: list[tuple[int, int, int]] = []
        self._first_items = [0]
        self.pair_ids: list[str] = []

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.pair_ids)

    def fitted(self, image: UInt8Array, mask: ClassIds) -> tuple[UInt8Array, ClassIds]:
        """A pair as it is stored: unchanged."""
        return image, mask

    def append(self, pair_id: str, image: UInt8Array, mask: ClassIds) -> None:
        """Adds one pair: (H, W, C) uint8 and (H, W) class ids."""
        rows, columns = (TileAxis.of(*sides, 0.0) for sides in zip(mask.shape, self._size, strict=True))
        picture = len(self.pair_ids)
        self._items += [
            (picture, rows.start(row), columns.start(column))
            for row in range(rows.count)
            for column in range(columns.count)
        ]
        self._first_items.append(len(self._items))
        self.pair_ids.append(pair_id)
        self._free_bytes -= image.nbytes + mask.nbytes
        if self._free_bytes >= 0:
            self._pairs.append((np.ascontiguousarray(image), mask))
        else:
            self._pairs.append((self._on_disk(image), self._on_disk(mask)))

    def picture(self, index: int) -> UInt8Array:
        """A whole picture, (H, W, C) uint8."""
        return np.asarray(self._pairs[index][0])

    def items_of(self, pictures: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The numbers of all items of some pictures, in their order."""
        ranges = [np.arange(self._first_items[index], self._first_items[index + 1]) for index in pictures]
        return np.concatenate(ranges) if ranges else np.zeros(0, np.int64)

    def examples(self, pictures: npt.NDArray[np.int64], count: int) -> list[int]:
        """At most `count` items of some pictures, at equal distances, so that they are of all parts of them."""
        items = self.items_of(pictures)
        places = np.linspace(0, len(items), min(count, len(items)), endpoint=False).astype(np.int64)
        return [int(item) for item in items[places]]

    def id_of(self, item: int) -> str:
        """The id of an item's picture."""
        return self.pair_ids[self._items[item][0]]

    def __getitem__(self, item: int) -> tuple[UInt8Array, ClassIds]:
        """A tile: (height, width, C) uint8, mirrored beyond the picture, and class ids, ignored beyond it."""
        picture, top, left = self._items[item]
        image, mask = self._pairs[picture]
        (rows, is_row), (columns, is_column) = (
            _mirrored(start, count, length)
            for start, count, length in zip((top, left), self._size, mask.shape, strict=True)
        )
        inside = is_row[:, None] & is_column
        classes = mask[np.ix_(rows, columns)]
        return image[np.ix_(rows, columns)], np.where(inside, classes, classes.dtype.type(self._num_classes))

    def sample(self, item: int, rng: np.random.Generator, *, varies_scale: bool) -> tuple[UInt8Array, ClassIds]:
        """A random crop of an item's picture.

        Args:
            item: its number.
            rng: decides everything.
            varies_scale: whether the crop is enlarged or reduced by up to `MAX_SCALE`.

        Returns:
            (height, width, C) uint8 and (height, width) class ids, mirrored beyond the picture.
        """
        image, mask = self._pairs[self._items[item][0]]
        scale = np.exp(rng.uniform(-np.log(MAX_SCALE), np.log(MAX_SCALE))) if varies_scale else 1.0
        lines = []
        for count, length in zip(self._size, mask.shape, strict=True):
            taken = max(1, round(count * scale))
            outside = int(taken * _MAX_OUTSIDE)
            low, high = -outside, length - taken + outside
            start = int(rng.integers(low, high + 1)) if low <= high else (length - taken) // 2
            lines.append(_mirrored(start, taken, length)[0])
        crop = np.ix_(*lines)
        return resize_image(image[crop], *self._size), resize_mask_nearest(mask[crop], *self._size)

    def class_px(self, pictures: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.int64]:
        """The pixels of every class in some of the pictures, ignored ones left out, (num_classes,) int64."""
        counts = np.zeros(num_classes + 1, np.int64)
        for index in pictures:
            counts += np.bincount(self._pairs[int(index)][1].ravel(), minlength=num_classes + 1)
        return counts[:num_classes]

    def frame_px(self, num_classes: int) -> npt.NDArray[np.int64]:
        """The pixels of every class in the outermost rows and columns of all masks, (num_classes,) int64."""
        counts = np.zeros(num_classes + 1, np.int64)
        for _, mask in self._pairs:
            frame = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
            counts += np.bincount(frame, minlength=num_classes + 1)
        return counts[:num_classes]

    def _on_disk(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Writes an array to the end of the file and maps it from there."""
        offset = self._file.tell()
        self._file.write(array.tobytes())
        self._file.flush()
        return np.memmap(self._file, array.dtype, "r", offset, array.shape)


def _mirrored(start: int, count: int, length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Where some pixels along a side come from if the side is mirrored at both ends, and which are inside of it."""
    place = np.arange(start, start + count)
    wrapped = place % (2 * length)
    return np.minimum(wrapped, 2 * length - 1 - wrapped), (place >= 0) & (place < length)
