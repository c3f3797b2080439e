"""Divides pictures into training, validation and test sets."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.core.errors import OptionError

Indices = npt.NDArray[np.int64]

MIN_VALIDATION_PICTURES = 20
"""With fewer, a warning says that the best epoch is chosen on too few pictures.

Chosen on 20, the epoch of a training on pets scored 0.005 of IoU less than the best one on average, on 5 pictures 0.013
(tests/benchmarks/validation_pictures.py).
"""


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of pictures; each picture is in one part.

    Attributes:
        train: pictures that the weights are fitted to.
        validation: pictures by which the best epoch is chosen.
        test: pictures that no choice depends on.
    """

    train: Indices
    validation: Indices
    test: Indices


def split_pictures(pair_ids: Sequence[str], seed: int, val_fraction: float, test_fraction: float) -> Split:
    """Divides pictures by a hash of their ids, so that a picture keeps its part when others are added or removed.

    Args:
        pair_ids: unique ids.
        seed: of the division.
        val_fraction: the share for validation, above 0.
        test_fraction: the share for the test, at least 0; the two together under 1.

    Returns:
        The parts, each in the order of the ids. Every part with a fraction above 0 has at least one picture.

    Raises:
        OptionError: the fractions are out of range, or there are too few pictures.
    """
    if not 0.0 < val_fraction < 1.0 or not 0.0 <= test_fraction < 1.0 or val_fraction + test_fraction >= 1.0:
        raise OptionError(
            f"--val_fraction {val_fraction} and --test_fraction {test_fraction} must leave a share for training"
        )
    wanted = 2 + (test_fraction > 0.0)
    if len(pair_ids) < wanted:
        raise OptionError(f"a training needs at least {wanted} pictures with masks, not {len(pair_ids)}")
    points = np.array([_point(seed, pair_id) for pair_id in pair_ids])
    # As `is_test_picture`.
    parts = np.where(points < test_fraction, 2, np.where(points < test_fraction + val_fraction, 1, 0))
    # With few pictures a part may be empty: it gets one of the largest part's.
    for part in (0, 1, 2) if test_fraction > 0.0 else (0, 1):
        if not (parts == part).any():
            largest = np.flatnonzero(parts == np.argmax(np.bincount(parts)))
            parts[largest[np.argmin(points[largest])]] = part
    train, validation, test = (np.flatnonzero(parts == part) for part in range(3))
    return Split(train, validation, test)


def is_test_picture(seed: int, pair_id: str, test_fraction: float) -> bool:
    """Whether `split_pictures` puts a picture into the test, but for the exchange where a part would be empty."""
    return _point(seed, pair_id) < test_fraction


def _point(seed: int, pair_id: str) -> float:
    """A number in 0..1 that depends only on the id and the seed."""
    digest = hashlib.sha256(f"{seed}\0{pair_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64
