"""Metrics of resampled test sets: every metric of `bench.metrics` under image weights, for thousands of weightings at once.

A resample of N images is a row of counts, how often each image was drawn (Efron 1979). Most metrics are a function of sums
over images, so all resamples are one matrix product; counts are integers and sums exact, so the result does not depend on the
machine's order of adding. Average precision is computed at the positives only, where alone recall changes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import metrics
from bench.metrics import Predictions

Floats = NDArray[np.float64]
Resampled = Callable[[Floats], Floats]
"""A function from counts (B, N) to the metric of each resample (B,); nan where nothing can be scored."""

CHUNK = 1000
REMEMBERED = 1 << 26
"""The most counts that are kept for the next column of the same images (128 MiB): 10,000 resamples of 6,700 images."""


@dataclass(frozen=True)
class Additive:
    """A metric of sums over images, from the terms of each image (N, 2 K): the mean of the ratios that are defined."""

    terms: Floats

    def __call__(self, weights: Floats) -> Floats:
        """Return the metric of each resample."""
        return self.finish(weights @ self.terms)

    @staticmethod
    def finish(sums: Floats) -> Floats:
        """Return the metric of sums of terms (B, 2 K)."""
        return _nan_mean(metrics.ratios(sums))


def replicates(functions: Sequence[Resampled], images: int, resamples: int, seed: str) -> list[Floats]:
    """Return the values (`resamples`,) of each function on the same resamples; all additive ones share one matrix product."""
    additive = [one for one in functions if isinstance(one, Additive)]
    terms = np.concatenate([one.terms for one in additive], axis=1) if additive else np.zeros((images, 0))
    ends = np.cumsum([one.terms.shape[1] for one in additive])[:-1]
    chunks: list[list[Floats]] = [[] for _ in functions]
    for weights in counts(images, resamples, seed):
        sums = iter(np.split(weights @ terms, ends, axis=1))
        for found, one in zip(chunks, functions, strict=True):
            found.append(one.finish(next(sums)) if isinstance(one, Additive) else one(weights))
    return [np.concatenate(found) for found in chunks]


def counts(images: int, resamples: int, seed: str) -> Iterator[Floats]:
    """Yield counts (b, N) with b at most 1000, `resamples` rows in all; equal seeds give equal counts, whatever the metric."""
    remembered = images * resamples <= REMEMBERED
    for drawn in _remembered(images, resamples, seed) if remembered else _drawn(images, resamples, seed):
        yield drawn.astype(np.float64)


@lru_cache(maxsize=1)
def _remembered(images: int, resamples: int, seed: str) -> list[NDArray[np.uint16]]:
    return [drawn.astype(np.uint16) for drawn in _drawn(images, resamples, seed)]


def _drawn(images: int, resamples: int, seed: str) -> Iterator[NDArray[np.int64]]:
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    for first in range(0, resamples, CHUNK):
        rows = min(CHUNK, resamples - first)
        drawn = random.integers(0, images, size=(rows, images), dtype=np.int64)
        drawn += np.arange(rows, dtype=np.int64)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images)


def resampler(metric: str, predictions: Predictions, classes: tuple[str, ...], scored: tuple[str, ...]) -> Resampled:
    """Return the function that computes a metric for many resamples of some predictions, from the metric's own definition."""
    chosen, judged = metrics.get(metric), np.array([name in scored for name in classes])
    if chosen.terms is not None:
        return Additive(chosen.terms(predictions, judged))
    scores, labels = predictions[chosen.needs], predictions["labels"]
    samples = scores.reshape(len(scores), math.prod(scores.shape[1:-1]), scores.shape[-1])  # those of a low-shot probe, or one
    ranked = [[_Ranked.of(some, labels[:, c]) for some in samples[:, :, c].T] for c in np.nonzero(judged)[0]]

    def mean(weights: Floats) -> Floats:
        turned = np.ascontiguousarray(weights.T, dtype=np.float32)  # counts add up exactly below 2^24
        of_class = [np.mean([one.average_precision(turned, chosen.recalls) for one in some], axis=0) for some in ranked]
        return _nan_mean(np.stack(of_class, axis=1))

    return mean


def _nan_mean(values: Floats) -> Floats:
    """Return the mean over columns without nan; nan where there are only those."""
    known = ~np.isnan(values)
    found = known.sum(axis=1)
    return np.where(found > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(found, 1), np.nan)


class _Ranked:
    """One class's images from the highest score down, as groups of equal score that hold a positive.

    Between two such groups precision only falls and the envelope does not change, so precision is computed at these groups alone.
    """

    def __init__(self, drawn: Any, found: Any) -> None:
        """Take two sparse matrices (G, N) of ones: the images of each group, and the positives among them."""
        self.drawn, self.found = drawn, found

    @classmethod
    def of(cls, scores: NDArray[np.float32], labels: NDArray[np.int8]) -> _Ranked:
        judged = np.nonzero(labels != -1)[0]
        order = judged[np.argsort(-scores[judged], kind="stable")]
        positive = labels[order] == 1
        # the last place of each group of equal score, and the group of each place
        ends = np.append(np.nonzero(np.diff(scores[order]))[0], len(order) - 1) if len(order) else np.zeros(0, np.int64)
        group = np.searchsorted(ends, np.arange(len(order)))
        kept = ends[np.unique(group[positive])] if positive.any() else np.zeros(0, np.int64)
        ends = np.append(0, kept + 1)
        positives = np.append(0, np.cumsum(positive))[ends]
        return cls(_ones(order, ends, len(labels)), _ones(order[positive], positives, len(labels)))

    def average_precision(self, counts: NDArray[np.float32], points: int) -> Floats:
        """Return AP for each column of counts (N, B): the area under the envelope, or its mean at some recalls."""
        if not self.drawn.shape[0]:
            return np.full(counts.shape[1], np.nan)
        of_group = self.found @ counts
        everything, hits = np.cumsum(self.drawn @ counts, axis=0), np.cumsum(of_group, axis=0)
        total = hits[-1]
        precision = hits.astype(np.float64) / np.maximum(everything, 1)
        # at each group, the highest precision at this recall or a larger one
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        if points:
            recall = hits / np.maximum(total, 1).astype(np.float64)
            read = np.concatenate([envelope, np.zeros((1, counts.shape[1]))])  # nothing beyond the last recall
            first = [np.count_nonzero(recall < level - 1e-12, axis=0) for level in np.linspace(0, 1, points)]
            value = np.mean(np.take_along_axis(read, np.stack(first), axis=0), axis=0)
        else:
            value = np.einsum("gb,gb->b", of_group, envelope) / np.maximum(total, 1)
        return np.where(total > 0, value, np.nan)


def _ones(columns: NDArray[np.int64], ends: NDArray[np.int64], width: int) -> Any:
    """Return a sparse matrix of ones whose row r has the columns from `ends[r]` to `ends[r + 1]`."""
    from scipy.sparse import csr_array  # here, because other metrics need none of it

    columns = columns[: ends[-1]]
    return csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(ends) - 1, width))
