"""Counts of fractions in bins, from which quantiles come: exact for 0 and 1, in bounded memory, merged in any order."""

from array import array
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

BINS = 10_000
"""Bins of equal width between 0 and 1; exactly 0 and exactly 1 have separate bins."""
_STRIDE = BINS + 2
_ONE = BINS + 1


class FractionHistogram:
    """Numbers of pictures by the fraction of their pixels in a class, for several classes.

    Only non-empty bins are stored. While there are more than `max_bins` allows, all bins double in width, except those
    of exactly 0 and exactly 1. A subset of the pictures fills no more bins than all of them, so it never has wider
    ones, and any order and grouping of `add` and `merge` gives the same histogram.

    Args:
        num_classes: how many classes there are.
        max_bins: the maximum number of bins per class, on average over the classes; None for no limit.
    """

    __slots__ = ("_counts", "_doublings", "_keys", "_max_keys")

    def __init__(self, num_classes: int, max_bins: int | None = None) -> None:
        self._max_keys = num_classes * _STRIDE if max_bins is None else num_classes * max(3, max_bins)
        self._doublings = 0
        # class_id · _STRIDE + bin, ascending, and the number of pictures in each.
        self._keys = array("I")
        self._counts = array("Q")

    def __eq__(self, other: object) -> bool:
        """Whether every count is the same."""
        if not isinstance(other, FractionHistogram):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable

    @property
    def bins(self) -> int:
        """Number of non-empty bins, over all classes."""
        return len(self._keys)

    @property
    def width(self) -> float:
        """The width of a bin between 0 and 1; the last one may be narrower."""
        return (1 << self._doublings) / BINS

    def add(self, class_id: int, part: int, whole: int) -> None:
        """Counts one picture.

        Args:
            class_id: the class.
            part: its pixels, 0 to whole.
            whole: the picture's pixels, at least 1.
        """
        key = class_id * _STRIDE + self._place(part, whole)
        index = bisect_left(self._keys, key)
        if index < len(self._keys) and self._keys[index] == key:
            self._counts[index] += 1
            return
        self._keys.insert(index, key)
        self._counts.insert(index, 1)
        self._limit()

    def merge(self, other: "FractionHistogram") -> None:
        """Adds the counts of other pictures; `other` is not changed."""
        doublings = max(self._doublings, other._doublings)
        (keys, counts), (other_keys, other_counts) = self._widened(doublings), other._widened(doublings)
        self._set(doublings, np.concatenate([keys, other_keys]), np.concatenate([counts, other_counts]))
        self._limit()

    def quantile(self, class_id: int, percent: int, low: float, high: float) -> float | None:
        """A quantile of a class's fractions: the smallest one that at least `percent` per cent do not exceed.

        This is the inverse of the empirical distribution function (Hyndman and Fan, "Sample quantiles in statistical
        packages", The American Statistician 50, 1996, definition 1; `inverted_cdf` in numpy).

        Args:
            class_id: the class.
            percent: 1 to 100.
            low: the smallest fraction that was added.
            high: the largest.

        Returns:
            Exactly 0 or 1 if the quantile is 0 or 1, else the middle of the bin that holds it, between `low` and
            `high`; None without pictures.
        """
        start, end = (bisect_left(self._keys, key * _STRIDE) for key in (class_id, class_id + 1))
        pictures = sum(self._counts[start:end])
        seen = 0
        for index in range(start, end):
            seen += self._counts[index]
            if seen * 100 >= pictures * percent:
                return min(max(self._middle(self._keys[index] % _STRIDE), low), high)
        return None

    def _place(self, part: int, whole: int) -> int:
        """The bin of part / whole within its class."""
        if part in (0, whole):
            return _ONE if part else 0
        return 1 + ((part * BINS // whole) >> self._doublings)

    def _middle(self, place: int) -> float:
        if place in (0, _ONE):
            return float(place == _ONE)
        left, right = ((edge << self._doublings) for edge in (place - 1, place))
        return (left + min(right, BINS)) / 2 / BINS

    def _limit(self) -> None:
        while len(self._keys) > self._max_keys:
            self._set(self._doublings + 1, *self._widened(self._doublings + 1))

    def _widened(self, doublings: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Keys and counts with bins doubled in width so many times; a key may occur more than once."""
        class_ids, places = np.divmod(np.array(self._keys, np.int64), _STRIDE)
        # The bin of exactly 0 stays: an arithmetic shift of -1 is -1.
        inner = 1 + ((places - 1) >> (doublings - self._doublings))
        return class_ids * _STRIDE + np.where(places == _ONE, _ONE, inner), np.array(self._counts)

    def _set(self, doublings: int, keys: npt.NDArray[np.int64], counts: npt.NDArray[np.uint64]) -> None:
        """Sets keys, given in any order; counts of the same key are added."""
        unique, places = np.unique(keys, return_inverse=True)
        summed = np.zeros(unique.size, np.uint64)
        np.add.at(summed, places, counts)
        self._doublings = doublings
        self._keys = array(self._keys.typecode, unique.astype(np.uintc).tobytes())
        self._counts = array(self._counts.typecode, summed.tobytes())
