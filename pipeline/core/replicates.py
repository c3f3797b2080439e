"""Intervals of 95 % from bootstrap replicates that merge like every other sum.

The bootstrap is a Poisson bootstrap over pictures (Chamandy, Muralidharan, Najmi and Naidu, "Estimating uncertainty for
massive data streams", Google 2012): each picture enters each replicate as often as a Poisson(1) draw that depends on
its id alone, so replicates are sums too.
"""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

REPLICATES = 500
_POISSON_ONE_CDF = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(13)])
_POISSON_THRESHOLDS = np.minimum(np.rint(_POISSON_ONE_CDF * 2**32), 2**32 - 1).astype(np.uint32)
_MIN_PICTURES_FOR_INTERVAL = 2
_NORMAL_97_5 = 1.959963984540054
TOO_MANY_GROUPS = "not computed for so many groups"
TOO_FEW_PICTURES = "fewer than two pictures show it"


class Interval(NamedTuple):
    """An interval of 95 %, or why there is none.

    Args:
        bounds: (low, high); None where there is none.
        note: why there is none; "" where there is one, or nothing to estimate.
    """

    bounds: tuple[float, float] | None
    note: str = ""

    def keys_of(self, score: str, estimate: float | None) -> dict[str, Any]:
        """A score as `summary.json` gives it: `score`, `score_ci95`, and `score_ci95_note` where that says anything."""
        keys = {score: estimate, f"{score}_ci95": self.bounds and list(self.bounds)}
        return keys | {f"{score}_ci95_note": self.note} if self.note else keys


def replicate_weights(image_id: str) -> npt.NDArray[np.int64]:
    """How often a picture enters each bootstrap replicate.

    Args:
        image_id: the picture's id; the same id always gives the same weights, on any machine.

    Returns:
        (REPLICATES,) int64 draws from a Poisson distribution of mean 1.
    """
    digest = hashlib.shake_128(image_id.encode("utf-8", "surrogateescape")).digest(4 * REPLICATES)
    uniform = np.frombuffer(digest, "<u4")
    return np.searchsorted(_POISSON_THRESHOLDS, uniform, side="right").astype(np.int64)


class Replicates:
    """Bootstrap replicates of some sums over pictures; they add up exactly in any order.

    Args:
        columns: how many sums each replicate has.
    """

    __slots__ = ("sums",)

    def __init__(self, columns: int) -> None:
        self.sums: npt.NDArray[np.int64] = np.zeros((REPLICATES, columns), np.int64)

    def __eq__(self, other: object) -> bool:
        """Whether every sum is the same."""
        return isinstance(other, Replicates) and np.array_equal(self.sums, other.sums)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def add(self, image_id: str, terms: npt.NDArray[np.int64]) -> None:
        """Adds a picture's terms to each replicate, as often as the picture enters it.

        Args:
            image_id: the picture's id.
            terms: (columns,) int64.
        """
        self.sums += np.multiply.outer(replicate_weights(image_id), terms)

    def merge(self, other: "Replicates") -> None:
        """Adds the replicates of other pictures, which are left as they are."""
        self.sums += other.sums


def interval_of(estimate: float | None, replicates: npt.NDArray[np.float64] | None, pictures: int) -> Interval:
    """An interval of 95 % around a score, from the deviation of its replicates, kept within 0 to 1.

    The replicates' deviation is taken rather than their percentiles (Efron and Tibshirani, "An introduction to the
    bootstrap", 1993, section 13.3): replicates lack pictures, so with many classes all of them may lie below the
    estimate.

    Args:
        estimate: the score over all pictures, 0 to 1; None where it has none.
        replicates: (REPLICATES,) the score in each replicate, NaN where a replicate has none; None where replicates
            were not summed.
        pictures: how many pictures the score depends on.

    Returns:
        The interval, or why there is none.
    """
    if estimate is None:
        return Interval(None)
    if replicates is None:
        return Interval(None, TOO_MANY_GROUPS)
    drawn = replicates[~np.isnan(replicates)]
    if pictures < _MIN_PICTURES_FOR_INTERVAL or drawn.size < 2:
        return Interval(None, TOO_FEW_PICTURES)
    reach = _NORMAL_97_5 * float(drawn.std(ddof=1))
    return Interval((max(0.0, estimate - reach), min(1.0, estimate + reach)))
