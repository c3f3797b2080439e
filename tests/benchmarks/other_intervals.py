"""Intervals of 95 % for a ratio of sums as the textbooks have them, many jobs at a time; for `intervals.py`."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]
Bounds = tuple[Values, Values]

REPLICATES = 1_000
_NORMAL_975 = stats.norm.ppf(0.975)


class Jobs:
    """A class's counts in the pictures of many jobs of the same size, and its IoU in bootstrap replicates.

    Args:
        wrong_px: (jobs, pictures) union without intersection.
        union_px: (jobs, pictures).
        rng: draws which pictures are in each replicate; the same draws serve all jobs.
    """

    def __init__(self, wrong_px: Values, union_px: Values, rng: np.random.Generator) -> None:
        self.wrong_px, self.union_px = wrong_px, union_px
        self.pictures = wrong_px.shape[1]
        self.showing = (union_px > 0).sum(axis=1)
        self.union = union_px.sum(axis=1)
        self.wrong = wrong_px.sum(axis=1) / self.union
        self.iou = 1 - self.wrong
        residuals = wrong_px - self.wrong[:, None] * union_px
        self.deviation = np.sqrt(self.showing / (self.showing - 1) * (residuals**2).sum(axis=1)) / self.union
        # By how much the IoU falls without each picture.
        self.differences = residuals / (self.union[:, None] - union_px)
        self.weights = rng.multinomial(self.pictures, np.full(self.pictures, 1 / self.pictures), REPLICATES)
        self.replicate_union = self.weights @ union_px.T
        self.replicate_wrong = self.weights @ wrong_px.T / self.replicate_union

    @property
    def replicates(self) -> Values:
        """(REPLICATES, jobs) IoU of each replicate; NaN where it has no picture that shows the class."""
        return 1 - self.replicate_wrong

    def replicate_deviations(self) -> Values:
        """(REPLICATES, jobs) standard error of each replicate's IoU, by linearisation."""
        wrong, squares = self.replicate_wrong, self.weights @ (self.wrong_px**2).T
        squares = squares - 2 * wrong * (self.weights @ (self.wrong_px * self.union_px).T)
        squares += wrong**2 * (self.weights @ (self.union_px**2).T)
        return np.sqrt(np.maximum(squares, 0)) / self.replicate_union


def normal(jobs: Jobs) -> Bounds:
    """Score ± 1.96 bootstrap deviations, as up to version 0.1."""
    reach = _NORMAL_975 * np.nanstd(jobs.replicates, axis=0, ddof=1)
    return jobs.iou - reach, jobs.iou + reach


def percentile(jobs: Jobs) -> Bounds:
    """The 2.5 and 97.5 % points of the replicates."""
    low, high = np.nanquantile(jobs.replicates, [0.025, 0.975], axis=0)
    return low, high


def bca(jobs: Jobs) -> Bounds:
    """Bias-corrected and accelerated: Efron, JASA 82:171 (1987)."""
    below = (jobs.replicates < jobs.iou).mean(axis=0)
    bias = stats.norm.ppf(np.clip(below, 1 / REPLICATES, 1 - 1 / REPLICATES))
    moments = [(jobs.differences**power).sum(axis=1) for power in (2, 3)]
    acceleration = moments[1] / (6 * moments[0] ** 1.5)
    ordered = np.sort(jobs.replicates, axis=0)
    bounds = []
    for z in (-_NORMAL_975, _NORMAL_975):
        share = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        rank = np.clip((np.nan_to_num(share) * REPLICATES).astype(int), 0, REPLICATES - 1)
        bounds.append(ordered[rank, np.arange(len(rank))])
    return bounds[0], bounds[1]


def studentised(jobs: Jobs) -> Bounds:
    """The bootstrap-t: Hall, Annals of Statistics 16:927 (1988)."""
    ratios = (jobs.replicates - jobs.iou) / jobs.replicate_deviations()
    low, high = np.nanquantile(np.where(np.isfinite(ratios), ratios, np.nan), [0.025, 0.975], axis=0)
    return jobs.iou - high * jobs.deviation, jobs.iou - low * jobs.deviation


def logit_t(jobs: Jobs) -> Bounds:
    """Linearised on the logit scale, with Student's t of the pictures that show the class less one."""
    reach = stats.t.ppf(0.975, jobs.showing - 1) * jobs.deviation / (jobs.iou * jobs.wrong)
    logit = np.log(jobs.iou / jobs.wrong)
    return 1 / (1 + np.exp(reach - logit)), 1 / (1 + np.exp(-reach - logit))


METHODS: dict[str, Callable[[Jobs], Bounds]] = {
    "± 1.96 bootstrap deviations (before)": normal,
    "bootstrap percentiles": percentile,
    "BCa bootstrap": bca,
    "studentised bootstrap": studentised,
    "logit, t of pictures - 1": logit_t,
}
