"""Labels for unlabelled pictures: a network's own predictions where it is confident, the rest ignored.

Class-balanced thresholds: Zou et al., "Unsupervised domain adaptation for semantic segmentation via class-balanced
self-training", ECCV 2018. There each class keeps the same share of its pixels; here each class keeps the share that was
right often enough on pictures with masks, and at least a fixed share.
"""

from dataclasses import dataclass, field

import keras
import numpy as np
import numpy.typing as npt

from model.data.dataset import TrainingStore
from pipeline.core.labels import ClassIds

Probabilities = npt.NDArray[np.float32]
UInt8Array = npt.NDArray[np.uint8]

MIN_PRECISION = 0.9
"""The share of a class's confident pixels that must be right on the validation pictures."""
MIN_SHARE = 0.2
"""The share of a class's pixels that counts as confident however often they are wrong, so that no class vanishes."""

_BINS = 1000


@dataclass(slots=True)
class ConfidenceCounts:
    """How often predictions of a class were right, by their confidence.

    Attributes:
        num_classes: how many classes.
        right: (num_classes, bins) int64 pixels whose predicted class is the true one.
        wrong: the same for the others; ignored pixels count in neither.
    """

    num_classes: int
    right: npt.NDArray[np.int64] = field(init=False)
    wrong: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        """Starts at zero."""
        self.right, self.wrong = np.zeros((2, self.num_classes, _BINS), np.int64)

    def add(self, probabilities: Probabilities, truth: ClassIds) -> None:
        """Counts one picture.

        Args:
            probabilities: (H, W, num_classes) in 0..1.
            truth: (H, W) class ids, `num_classes` where ignored.
        """
        predicted, confidence = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
        bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
        for counts, where in ((self.right, truth == predicted), (self.wrong, truth != predicted)):
            chosen = where & (truth < self.num_classes)
            flat = np.bincount(predicted[chosen] * _BINS + bins[chosen], minlength=self.num_classes * _BINS)
            counts += flat.reshape(self.num_classes, _BINS)

    def thresholds(self, min_precision: float = MIN_PRECISION, min_share: float = MIN_SHARE) -> Probabilities:
        """The confidence from which on each class's predictions are taken as labels.

        Args:
            min_precision: 0 to 1; of the predictions above the threshold as many must be right.
            min_share: 0 to 1; as many of the predictions are above the threshold in any case.

        Returns:
            (num_classes,) float32 in 0..1, the lowest that fulfil either; infinity for a class that is never predicted.
        """
        found = np.full(self.num_classes, np.inf, np.float32)
        # Sums of the bins from each bin upwards.
        right = self.right[:, ::-1].cumsum(axis=1)[:, ::-1]
        both = right + self.wrong[:, ::-1].cumsum(axis=1)[:, ::-1]
        for class_id in range(self.num_classes):
            total = both[class_id, 0]
            if not total:
                continue
            precise = (right[class_id] >= min_precision * both[class_id]) & (both[class_id] > 0)
            enough = (both[class_id] >= min_share * total) & (both[class_id] > 0)
            # The lowest bin of enough precision; or, if that leaves too little, the highest that leaves enough.
            lowest = int(np.argmax(precise)) if precise.any() else _BINS - 1
            found[class_id] = min(lowest, int(np.flatnonzero(enough)[-1])) / _BINS
        return found


def confident_labels(probabilities: Probabilities, thresholds: Probabilities) -> ClassIds:
    """The predicted class where the prediction is confident enough for its class.

    Args:
        probabilities: (H, W, num_classes) in 0..1.
        thresholds: (num_classes,), as `ConfidenceCounts.thresholds`.

    Returns:
        (H, W) class ids, `num_classes` where it is not: ignored by the loss.
    """
    num_classes = probabilities.shape[-1]
    predicted, confidence = probabilities.argmax(axis=-1), probabilities.max(axis=-1)
    dtype = np.uint8 if num_classes <= 255 else np.uint16
    labels: ClassIds = np.where(confidence >= thresholds[predicted], predicted, num_classes).astype(dtype)
    return labels


def mirrored_probabilities(network: keras.Model, images: UInt8Array) -> Probabilities:
    """The mean of the probabilities of pictures and of their mirror images, turned back.

    Args:
        network: (N, H, W, C) uint8 to (N, H, W, num_classes) probabilities.
        images: (N, H, W, C) uint8.

    Returns:
        (N, H, W, num_classes) float32.
    """
    plain = network.predict_on_batch(images)
    mirrored = network.predict_on_batch(np.ascontiguousarray(images[:, :, ::-1]))
    return np.asarray((plain + mirrored[:, :, ::-1]) / 2, np.float32)


def calibrate(
    network: keras.Model, store: TrainingStore, indices: npt.NDArray[np.int64], num_classes: int, batch_size: int = 16
) -> ConfidenceCounts:
    """Counts how often a network is right, by class and confidence, on stored pictures with masks.

    Args:
        network: ends in probabilities.
        store: the pictures.
        indices: (n,) those to count.
        num_classes: how many classes.
        batch_size: pictures that are predicted at once.
    """
    counts = ConfidenceCounts(num_classes)
    for start in range(0, len(indices), batch_size):
        pairs = [store[int(index)] for index in indices[start : start + batch_size]]
        for (_, truth), found in zip(
            pairs, mirrored_probabilities(network, np.stack([image for image, _ in pairs])), strict=True
        ):
            counts.add(found, truth)
    return counts
