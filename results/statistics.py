"""Intervals and paired tests over two sources of chance: which pictures are in the test set, and which seed was drawn.

Seeds and pictures are crossed: every seed is scored on the same pictures. With one seed the interval is the percentile bootstrap
over pictures, and says nothing of other seeds. With several, the variance of the mean has a part from the pictures, that of the
bootstrap, and a part from the seeds, the sample variance less what the pictures add to it; the two half-widths, normal and
Student's t with S - 1 degrees of freedom, are joined as the root of their squares (Graybill and Wang 1980). Resampling three
seeds by a plain hierarchical bootstrap covers about 75 % where it says 95 (tests/results/test_statistics.py measures both).
With two seeds intervals are very wide, and cover 91 % at worst in simulations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
SMALLEST_P = 1e-6


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; `p` is two-sided against zero and None with a single seed."""

    value: float
    low: float
    high: float
    seeds: int
    deviation: float | None = None
    p: float | None = None


def estimate(values: Sequence[float], replicates: Floats, level: float = LEVEL) -> Estimate:
    """Return the mean of one value a seed with its interval, from the same resamples of the pictures for every seed.

    `replicates` is (S, B): the value of each seed on each of B resamples, the pictures being the same in a column.
    """
    count, mean = len(values), math.fsum(values) / len(values)
    known = replicates[:, ~np.isnan(replicates).any(axis=0)]
    if known.shape[1] < 2:
        return Estimate(mean, math.nan, math.nan, count)
    if count == 1:
        low, high = np.quantile(known[0], [(1 - level) / 2, (1 + level) / 2])
        return Estimate(mean, float(low), float(high), 1)
    pictures, seeds, deviation = _variances(np.asarray(values, dtype=np.float64), known)
    half = _half_width(1 - level, pictures, seeds, count)
    return Estimate(mean, mean - half, mean + half, count, deviation, _p_value(mean, pictures, seeds, count))


def _variances(values: Floats, replicates: Floats) -> tuple[float, float, float]:
    """Return the mean's variance from the pictures, and from the seeds alone, and the standard deviation over seeds."""
    count = len(values)
    over_seeds = replicates.mean(axis=0)
    pictures = float(over_seeds.var(ddof=1))
    mixed = float(((replicates - over_seeds).var(axis=1, ddof=1)).sum() / (count - 1))
    spread = float(values.var(ddof=1))
    return pictures, max(0.0, spread - mixed) / count, math.sqrt(spread)


def _half_width(alpha: float, pictures: float, seeds: float, count: int) -> float:
    from scipy import special  # here, because a report of what is known needs none of it

    normal, student = special.ndtri(1 - alpha / 2), special.stdtrit(count - 1, 1 - alpha / 2)
    return math.sqrt(normal**2 * pictures + student**2 * seeds)


def _p_value(mean: float, pictures: float, seeds: float, count: int) -> float:
    """Return the level at which the interval just touches zero."""
    from scipy.optimize import brentq

    if mean == 0:
        return 1.0
    if abs(mean) >= _half_width(SMALLEST_P, pictures, seeds, count):
        return SMALLEST_P

    def beyond(logarithm: float) -> float:
        return _half_width(math.exp(logarithm), pictures, seeds, count) - abs(mean)

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
