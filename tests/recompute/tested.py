"""The interval and the p value of docs/fairness.md, written from its text; Holm's correction; two other tests beside them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from tests.recompute.measured import Floats

ALPHA, LEAST_P = 0.05, 1e-12
BLOCKS = 20


class Estimate(NamedTuple):
    """A mean difference with the ends of its interval and its p value."""

    mean: float
    low: float
    high: float
    p: float


class Variances(NamedTuple):
    """The variance over seeds, and what the images bring: to a single seed, and to all seeds in common."""

    spread: float
    own: float
    common: float


def variances(values: Floats, replicates: Floats) -> Variances:
    """Return the variances of differences of S seeds (S,), from their values on resampled images (S, B)."""
    matrix, seeds = np.cov(replicates), len(values)
    trace = float(np.trace(matrix))
    return Variances(float(np.var(values, ddof=1)), trace / seeds, (float(matrix.sum()) - trace) / (seeds * (seeds - 1)))


def seed_and_image_terms(alpha: float, of: Variances, seeds: int, images: int) -> tuple[float, float, float]:
    """Return terms of the squared half-width: of seeds and of images, whose larger one counts, and of what seeds share."""
    of_seeds, of_images = (float(stats.t.isf(alpha / 2, count - 1)) ** 2 for count in (seeds, images))
    return of_seeds * of.spread / seeds, of_images * (of.own - of.common) / seeds, of_images * max(0.0, of.common)


def half_width(alpha: float, of: Variances, seeds: int, images: int) -> float:
    """Return half the width of the interval of level 1 - `alpha`."""
    by_seeds, by_images, common = seed_and_image_terms(alpha, of, seeds, images)
    return float(np.sqrt(common + max(by_seeds, by_images)))


def estimate(values: Floats, replicates: Floats, images: int) -> Estimate:
    """Return the mean of differences (S,), its interval, and by bisection the level p at which the interval just reaches zero."""
    mean, of, seeds = float(np.mean(values)), variances(values, replicates), len(values)
    width = half_width(ALPHA, of, seeds, images)
    low, high = np.log(LEAST_P), 0.0
    if mean == 0:
        low = high
    elif half_width(LEAST_P, of, seeds, images) <= abs(mean):
        high = low
    while high - low > 1e-13:
        middle = (low + high) / 2
        if half_width(float(np.exp(middle)), of, seeds, images) > abs(mean):
            low = middle
        else:
            high = middle
    return Estimate(mean, mean - width, mean + width, float(np.exp(high)))


def resampling_errors(values: Floats, replicates: Floats, images: int) -> Floats:
    """Return standard errors of low, high and log p due to finitely many resamples, by a jackknife over blocks of them."""
    found = []
    for block in np.array_split(np.arange(replicates.shape[1]), BLOCKS):
        one = estimate(values, np.delete(replicates, block, axis=1), images)
        found.append([one.low, one.high, np.log(one.p)])
    deviations = np.array(found) - np.mean(found, axis=0)
    return np.asarray(np.sqrt((BLOCKS - 1) / BLOCKS * (deviations**2).sum(axis=0)))


def paired_t(first: Floats, second: Floats) -> Estimate:
    """Return the mean difference of paired seeds with its interval and p value by Student's t; images are not resampled."""
    found = stats.ttest_rel(first, second)
    low, high = found.confidence_interval(1 - ALPHA)
    return Estimate(
        float(np.mean(first - second)), float(low), float(high), 1.0 if np.isnan(found.pvalue) else float(found.pvalue)
    )


def hierarchical_bootstrap(replicates: Floats, seed: int, repeats: int = 4) -> Estimate:
    """Return mean, percentiles and p of means over seeds drawn with replacement, on resampled images (S, B)."""
    random = np.random.default_rng([seed, 77])
    picked = (random.integers(len(replicates), size=replicates.shape) for _ in range(repeats))
    means = np.concatenate([np.take_along_axis(replicates, one, axis=0).mean(axis=0) for one in picked])
    low, high = np.quantile(means, (ALPHA / 2, 1 - ALPHA / 2))
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    return Estimate(float(means.mean()), float(low), float(high), float(min(1.0, 2 * (beyond + 1) / (len(means) + 1))))


def holm(p: Sequence[float]) -> Floats:
    """Return p values after Holm's step-down correction, in the order given."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values))
    found[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return found


def holm_by_closure(p: Sequence[float]) -> Floats:
    """Return the same by a closed test: for each hypothesis the largest Bonferroni p value of any set that contains it."""
    found = np.zeros(len(p))
    for size in range(1, len(p) + 1):
        for chosen in map(list, itertools.combinations(range(len(p)), size)):
            found[chosen] = np.maximum(found[chosen], min(1.0, size * min(p[i] for i in chosen)))
    return found
