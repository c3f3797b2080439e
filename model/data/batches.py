"""Batches for training: shuffled, augmented, and a function of seed, epoch and number only.

With the TensorFlow backend a tf.data pipeline makes them on all cores; with another backend a Keras `PyDataset` does.
Both give the same pixels, also in an epoch that is repeated after a kill.
"""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from model.data.augment import VARIES_SCALE, augment
from model.data.dataset import TrainingStore
from pipeline.core.labels import ClassIds

UInt8Array = npt.NDArray[np.uint8]


class TrainingPictures:
    """The pictures of one split, augmented for each epoch."""

    def __init__(
        self, store: TrainingStore, indices: npt.NDArray[np.int64], augmentation: str, batch_size: int, seed: int
    ) -> None:
        """Chooses pictures.

        Args:
            store: all pictures.
            indices: (n,) the items of those of the split.
            augmentation: one of `model.data.augment.AUGMENTATIONS`.
            batch_size: pictures per batch; at most n.
            seed: of shuffle and augmentation.
        """
        self.store, self.indices = store, indices
        self._augmentation, self._seed = augmentation, seed
        self.batch_size = min(batch_size, len(indices))
        self.steps = len(indices) // self.batch_size

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The pictures of an epoch in their order, whole batches only, (steps * batch_size,) int64."""
        shuffled = np.random.default_rng([self._seed, epoch]).permutation(self.indices)
        return shuffled[: self.steps * self.batch_size]

    def picture(self, epoch: int, index: int) -> tuple[UInt8Array, ClassIds]:
        """One picture of an epoch: (H, W, C) uint8 and (H, W) class ids."""
        rng = np.random.default_rng([self._seed, epoch, index])
        seen = self.store.sample(index, rng, varies_scale=self._augmentation in VARIES_SCALE)
        image, mask = augment(*seen, self._augmentation, rng)
        return np.ascontiguousarray(image), mask.copy()

    def batch(self, epoch: int, indices: npt.NDArray[np.int64]) -> tuple[UInt8Array, ClassIds]:
        """Several pictures of an epoch: (n, H, W, C) uint8 and (n, H, W) class ids."""
        images, masks = zip(*(self.picture(epoch, int(index)) for index in indices), strict=True)
        return np.stack(images), np.stack(masks)


class NumpyBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """An epoch for any backend."""

    def __init__(self, pictures: TrainingPictures, epoch: int) -> None:
        """One epoch of the pictures."""
        super().__init__(workers=2, use_multiprocessing=False)
        self._pictures, self._epoch = pictures, epoch
        self._order = pictures.order(epoch).reshape(pictures.steps, pictures.batch_size)

    def __len__(self) -> int:
        """The number of batches."""
        return self._pictures.steps

    def __getitem__(self, step: int) -> tuple[UInt8Array, ClassIds]:
        """One batch: (n, H, W, C) uint8 and (n, H, W) class ids."""
        return self._pictures.batch(self._epoch, self._order[step])


def epoch_batches(pictures: TrainingPictures, epoch: int) -> Any:
    """One epoch for `keras.Model.fit`, each batch (n, H, W, C) uint8 and (n, H, W) class ids."""
    if keras.backend.backend() != "tensorflow":
        return NumpyBatches(pictures, epoch)
    import tensorflow as tf

    image, mask = pictures.picture(epoch, int(pictures.indices[0]))

    def load(index: Any) -> Any:
        dtypes = (tf.uint8, tf.as_dtype(mask.dtype))
        loaded = tf.numpy_function(lambda number: pictures.picture(epoch, int(number)), [index], dtypes, stateful=False)
        return tf.ensure_shape(loaded[0], image.shape), tf.ensure_shape(loaded[1], mask.shape)

    dataset = tf.data.Dataset.from_tensor_slices(pictures.order(epoch))
    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(pictures.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
