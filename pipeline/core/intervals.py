"""Intervals of 95 % for scores, from a jackknife over blocks of pictures.

The score is computed again without each block (`pipeline.core.blocks`). With d the differences, sum(d²) estimates its
variance: the delete-a-group jackknife, as in Wolter, "Introduction to variance estimation" (2nd edition, 2007),
sections 4.2 and 4.5, without the factor (blocks - 1) / blocks. Three corrections make the interval cover where scores
are close to 1, few pictures decide them, or sizes are unequal:

- The interval is symmetric on the logit scale, within 0 to 1: logit(score) ± t · sd / (score · (1 - score)).
- t is Student's with sum(d²)² / sum(d⁴) degrees of freedom: about the number of blocks that the variance comes from, so
  a handful where a handful of pictures holds most mistakes. That is half of what Satterthwaite (Biometrics Bulletin
  2:110, 1946) gives for sum(d²), because few pictures give too small a sum(d⁴); the benchmark has both.
- Mistakes of a kind that no picture shows yet can't be seen in any variance. If a share p of the pictures is missed
  entirely, none of n pictures shows it with probability (1 - p)^n, which is 5 % at p = 3 / n: the rule of three (Hanley
  and Lippman-Hand, JAMA 249:1743, 1983). Both ends are at least as far away as if that share of pictures were all wrong
  or all right.

Where two or three missed pictures decide the variance, t is far too wide; the lower end is then that of the gamma
interval for weighted counts (Fay and Feuer, Statistics in Medicine 16:791, 1997), its quantile by Wilson and Hilferty.

`tests/benchmarks/intervals.py` measures the coverage, and `pipeline/docs/intervals.md` shows it.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

MIN_PICTURES = 10
"""A score that depends on fewer pictures has no interval."""

UNSEEN = 3.0
"""-log(0.05), rounded: with n pictures, UNSEEN / n is the largest share that may remain unseen (rule of three)."""

NOT_SUMMED = "not computed for so many groups"
_NORMAL_975 = 1.959963984540054


class Interval(NamedTuple):
    """An interval of 95 %, or the reason why there is none.

    Args:
        bounds: (low, high); None where there is none.
        note: why there is none; "" if there is one, or if there is nothing to estimate.
    """

    bounds: tuple[float, float] | None
    note: str = ""

    def keys_of(self, score: str, estimate: float | None) -> dict[str, Any]:
        """A score's keys of `summary.json`: `score`, `score_ci95`, and `score_ci95_note` unless it is empty."""
        keys = {score: estimate, f"{score}_ci95": self.bounds and list(self.bounds)}
        return keys | {f"{score}_ci95_note": self.note} if self.note else keys


class LeftOut(NamedTuple):
    """Scores with one block left out, for each block, and the block's size.

    Args:
        scores: (blocks, k), NaN where no pixels are left.
        sizes: (blocks, k) the block's part of each score's denominator, in pixels or pictures.
    """

    scores: Array
    sizes: npt.NDArray[np.int64]

    def of(self, index: int) -> "LeftOut":
        """One of the scores."""
        return LeftOut(self.scores[:, [index]], self.sizes[:, [index]])


def interval_of(estimates: Array, left_out: LeftOut | None, pictures: npt.ArrayLike) -> Interval:
    """An interval of 95 % for a score, or for the mean of several.

    Args:
        estimates: (k,) scores over all pictures, 0 to 1; NaN for a class that occurs nowhere, which means leave out.
        left_out: the k scores with one block left out; None if no blocks were summed.
        pictures: (k,) how many pictures each score depends on.

    Returns:
        The interval, which contains the mean; or why there is none.
    """
    present = ~np.isnan(estimates)
    if not present.any():
        return Interval(None)
    if left_out is None:
        return Interval(None, NOT_SUMMED)
    scores, counts = estimates[present], np.asarray(pictures, np.float64)[present]
    differences = scores - left_out.scores[:, present]
    few = (counts < MIN_PICTURES) | np.isnan(differences).any(axis=0)
    if few.all():
        return Interval(None, f"too few pictures: {counts.max():.0f}, and an interval needs {MIN_PICTURES}")
    differences = np.nan_to_num(differences) / scores.size
    mean = float(scores.mean())
    weight = float((1 / np.minimum(counts, _effective_number(left_out.sizes[:, present]))).mean())
    # The effect on the mean of pictures of a kind not seen yet: all wrong or all right, or in one class only.
    unseen = np.minimum(UNSEEN / counts, 1) / scores.size
    drops, rises = unseen * scores, unseen * (1 - scores)
    if few.any():
        low, high = _bounds(mean, differences[:, ~few].sum(axis=1), weight, counts.max())
        decides = few & ((mean - drops < low) | (mean + rises > high))
        if decides.any():
            fewest = f"{counts[decides].min():.0f} of a class that the mean counts"
            return Interval(None, f"too few pictures: {fewest}, and an interval needs {MIN_PICTURES}")
    low, high = _bounds(mean, differences.sum(axis=1), weight, counts.max())
    return Interval((min(low, mean - float(drops.max())), max(high, mean + float(rises.max()))))


def student_t_975(degrees_of_freedom: float) -> float:
    """The 0.975 quantile of Student's t distribution.

    By the expansion 26.7.5 of Abramowitz and Stegun, "Handbook of mathematical functions" (1964); 0.13 % below
    the exact value at 3 degrees of freedom, 0.8 % at 2, 11 % at 1.

    Args:
        degrees_of_freedom: 1 or more, not only whole numbers.
    """
    z, n = _NORMAL_975, degrees_of_freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92_160 * n**4)
    )


def gamma_975(mean: float, variance: float) -> float:
    """The 0.975 quantile of the gamma distribution with a mean and a variance.

    By the cube root approximation of Wilson and Hilferty (PNAS 17:684, 1931): within 1 % where the mean is a standard
    deviation or more.

    Args:
        mean: over 0.
        variance: over 0.
    """
    shape = mean * mean / variance
    return mean * max(0.0, 1 - 1 / (9 * shape) + _NORMAL_975 / (3 * math.sqrt(shape))) ** 3


def _bounds(score: float, differences: Array, weight: float, pictures: float) -> tuple[float, float]:
    """The interval by jackknife, widened by the rule of three.

    Args:
        score: 0 to 1.
        differences: (blocks,) the score minus the score without the block.
        weight: a typical picture's share in the score.
        pictures: how many the score depends on.
    """
    low, high = _jackknife_bounds(score, differences, weight)
    unseen = UNSEEN / pictures
    return min(low, score * (1 - unseen)), max(high, score + (1 - score) * unseen)


def _jackknife_bounds(score: float, differences: Array, weight: float) -> tuple[float, float]:
    squares = differences * differences
    variance = float(squares.sum())
    fourth_powers = float((squares * squares).sum())
    if not 0 < score < 1 or fourth_powers == 0:
        return score, score
    degrees_of_freedom = variance * variance / fourth_powers
    reach = student_t_975(degrees_of_freedom) * math.sqrt(variance) / (score * (1 - score))
    logit = math.log(score / (1 - score))
    low, high = _logistic(logit - reach), _logistic(logit + reach)
    # One typical picture more, as in Fay and Feuer.
    variance += weight * weight
    return max(low, 1 - gamma_975(1 - score + weight, variance)), min(high, gamma_975(score + weight, variance))


def _logistic(value: float) -> float:
    return math.exp(min(value, 0.0)) / (1 + math.exp(-abs(value)))


def _effective_number(sizes: npt.NDArray[np.int64]) -> Array:
    """The number of equal blocks with the same variance of the mean (Kish's effective sample size), (k,)."""
    shares = sizes / sizes.sum(axis=0, dtype=np.float64)
    number: Array = 1 / (shares * shares).sum(axis=0)
    return number
