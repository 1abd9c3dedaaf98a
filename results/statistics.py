"""Intervals and paired tests over two sources of chance: which images are in the test set, and which seed was drawn.

Seeds and images are crossed: every seed is scored on the same images, and resampled on the same resamples. With v_s the value of
each of S seeds (of a row, or of a paired difference), C the covariance of their replicates over the resamples, `own` the mean of
its diagonal and `common` that of the rest,

    half(alpha)^2 = n^2 max(0, common) + max(t^2 var(v), n^2 (own - common)) / S

is the half-width of the interval of level 1 - alpha: t is Student's quantile with S - 1 degrees of freedom, n the one with N - 1
for N images. The p value is the alpha at which it equals |mean|. The variance is that of multi-reader studies (Obuchowski and
Rockette 1995, Hillis 2007), its two parts joined after Graybill and Wang 1980. The larger of the two in the bracket guards
against seeds that agree by luck: their own images alone make them differ by own - common. tests/results/operating.py prints how
often it rejects a true null hypothesis.

With one seed the interval is v +- 1.96 standard deviations of the replicates, which says nothing of other seeds. With two seeds
the formula is the same, and a test is nearly powerless (t is 12.7 at 5 %).

An interval cannot know of a collapse that did not happen. Where one seed in five collapses and seeds vary twenty times as much
as their own images make them, three seeds reject a true null hypothesis in 16 % of the cases, since half of the time none
of them collapses. Intervals of nearly perfect accuracies, and of average precision with a few positives, are too short at any
level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
SMALLEST_P = 1e-9
USABLE = 0.5
"""The least share of the resamples on which all seeds must have a value; with less there is no interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; `p` is two-sided against zero and None with a single seed.

    `deviation` is the standard deviation of the seeds' `values`; `common` and `own` are the variances of a value from the images
    that all seeds share and from those as each seed sees them (module docstring), which tell how many seeds would be needed.
    """

    value: float
    low: float
    high: float
    seeds: int
    deviation: float | None = None
    p: float | None = None
    values: tuple[float, ...] = ()
    common: float = 0.0
    own: float = 0.0
    images: int = 0


def estimate(values: Sequence[float], replicates: Floats, images: int, level: float = LEVEL) -> Estimate:
    """Return the mean of one value a seed with its interval, from the same resamples of `images` test images for every seed.

    `replicates` is (S, B): the value of each seed on each of B resamples, the images being the same in a column. The
    interval's ends are nan with fewer than two images, and where more than half of the resamples leave a seed without a value.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    known = replicates[:, np.isfinite(replicates).all(axis=0)]
    if images < 2 or known.shape[1] < max(2.0, USABLE * replicates.shape[1]):
        return Estimate(mean, math.nan, math.nan, count, values=tuple(values), images=images)
    # variances over resamples stand for those over test sets of as many images
    common, own = map(float, image_variances(np.atleast_2d(np.cov(known))))
    if count == 1:
        half = -_quantile(1 - level, math.inf) * math.sqrt(own)
        return Estimate(mean, mean - half, mean + half, 1, values=tuple(values), own=own, images=images)
    spread = float(np.var(values, ddof=1))
    half = float(half_width(1 - level, spread, common, own, count, images))
    p = _p_value(mean, spread, common, own, count, images)
    return Estimate(mean, mean - half, mean + half, count, math.sqrt(spread), p, tuple(values), common, own, images)


def image_variances(covariance: Floats) -> tuple[Floats, Floats]:
    """Return `common`, at least zero, and `own`, each (...,), from covariances (..., S, S) of the seeds' replicates.

    With one seed `common` is zero. A negative `common` is set to zero and subtracted from `own`, so that their difference, the
    variance from the images as each seed sees them, is kept.
    """
    count = covariance.shape[-1]
    own = np.trace(covariance, axis1=-2, axis2=-1) / count
    if count == 1:
        return np.zeros_like(own), own
    common = (covariance.sum(axis=(-2, -1)) - count * own) / (count * (count - 1))
    return np.maximum(common, 0.0), own - np.minimum(common, 0.0)


def half_width(
    alpha: float, spread: float | Floats, common: float | Floats, own: float | Floats, seeds: int, images: int
) -> float | Floats:
    """Return half the width of the interval of level 1 - `alpha` (module docstring); `spread` is the variance of the values."""
    student, normal = _quantile(alpha, seeds - 1), _quantile(alpha, images - 1)
    of_seeds = np.maximum(student**2 * spread, normal**2 * (own - common))
    found: float | Floats = np.sqrt(normal**2 * common + of_seeds / seeds)
    return found


def _quantile(alpha: float, freedom: float) -> float:
    """Return the quantile at alpha / 2 of Student's t; infinite `freedom` means the normal distribution."""
    from scipy import special  # here, because a report of what is known needs none of it

    return float(special.ndtri(alpha / 2) if math.isinf(freedom) else special.stdtrit(freedom, alpha / 2))


def _p_value(mean: float, spread: float, common: float, own: float, seeds: int, images: int) -> float:
    """Return the level at which the interval just touches zero."""
    from scipy.optimize import brentq

    def beyond(logarithm: float) -> float:
        return float(half_width(math.exp(logarithm), spread, common, own, seeds, images)) - abs(mean)

    if mean == 0:
        return 1.0
    if beyond(math.log(SMALLEST_P)) <= 0:
        return SMALLEST_P
    return float(math.exp(brentq(beyond, math.log(SMALLEST_P), 0.0, xtol=1e-10)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979): step down, never smaller than the one before, at most 1.

    >>> [round(p, 10) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def at_look(p: float, seeds: int, looks: Sequence[int]) -> float | None:
    """Return a p value corrected for the declared interim looks; None for a number of seeds at which none was declared.

    At the look at S_k seeds, the last look being at S_K, p is multiplied by S_K^3 / (S_k^3 - S_{k-1}^3). The shares of all looks
    add up to one (Bonferroni), so that all looks together reject no more often than a single one; the last has the largest share.

    >>> round(at_look(0.01, 10, (3, 5, 10)), 4), at_look(0.01, 4, (3, 5, 10))
    (0.0114, None)
    """
    if not looks:
        return p
    if seeds not in looks:
        return None
    before = max((look for look in looks if look < seeds), default=0)
    return min(1.0, p * max(looks) ** 3 / (seeds**3 - before**3))
