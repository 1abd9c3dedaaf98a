"""Metrics of resampled test sets: every metric of `bench.metrics` under image weights, for thousands of weightings at once.

A resample of N images is a row of counts, how often each image was drawn (Efron 1979). Most metrics are a function of sums
over images, so all resamples are one matrix product; counts are integers and sums exact, so the result does not depend on the
machine's order of adding. Average precision is computed at the positives only, where alone recall changes. Detections are matched
within their images, so an image that was drawn twice gives each of its matches twice.
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
from bench.detection import Matched, recall_levels
from bench.metrics import Metric, Predictions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Resampled = Callable[[Floats], Floats]
"""A function from counts (B, N) to the metric of each resample (B,); nan where nothing can be scored."""

CHUNK = 1000
AT_ONCE = 1 << 23
"""The most precisions of a ranking that are in memory at once (64 MiB)."""
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
    ranked, levels = _ranked(chosen, predictions, judged)

    def mean(weights: Floats) -> Floats:
        turned = np.ascontiguousarray(weights.T, dtype=np.float32)  # counts add up exactly below 2^24
        of_class = [np.mean([one.average_precision(turned, levels) for one in some], axis=0) for some in ranked]
        return _nan_mean(np.stack(of_class, axis=1))

    return mean


def _ranked(metric: Metric, predictions: Predictions, judged: metrics.Judged) -> tuple[list[list[_Ranked]], Floats]:
    """Return for each judged class the rankings whose average precisions are averaged, and the recalls at which it is read."""
    if metric.matched is not None:
        found = metric.matched(predictions, judged)
        levels = found[0].levels if found else recall_levels(0)
        return [[_Ranked.of_detections(one, place) for place in range(len(one.right))] for one in found], levels
    scores, labels = predictions[metric.needs], predictions["labels"]
    samples = scores.reshape(len(scores), math.prod(scores.shape[1:-1]), scores.shape[-1])  # those of a low-shot probe, or one
    ranked = [[_Ranked.of(some, labels[:, c]) for some in samples[:, :, c].T] for c in np.nonzero(judged)[0]]
    return ranked, recall_levels(metric.recalls)


def _nan_mean(values: Floats) -> Floats:
    """Return the mean over columns without nan; nan where there are only those."""
    known = ~np.isnan(values)
    found = known.sum(axis=1)
    return np.where(found > 0, np.where(known, values, 0.0).sum(axis=1) / np.maximum(found, 1), np.nan)


class _Ranked:
    """One class's images, or its detections in them, from the highest score down, as groups that hold a positive.

    A group ends with an operating point. Between two such groups precision only falls and the envelope does not change, so
    precision is computed at these groups alone.
    """

    def __init__(self, images: Integers, points: Integers, right: NDArray[np.bool_], positives: Integers) -> None:
        """Take the image (D,) of each place of the ranking, its operating point (D,) and whether it is right (D,).

        `positives` (N,) counts what there is to be found in each image.
        """
        last = np.nonzero(np.diff(points, append=-1))[0]
        kept = last[np.isin(points[last], points[right])]
        ends = np.append(0, kept + 1)
        self.drawn = _ones(images, ends, len(positives))
        """A sparse matrix (G, N): how often each image is in each group."""
        self.found = _ones(images[right], np.append(0, np.cumsum(right))[ends], len(positives))
        """The same of what is right."""
        self.positives = positives.astype(np.float32)

    @classmethod
    def of(cls, scores: NDArray[np.float32], labels: NDArray[np.int8]) -> _Ranked:
        judged = np.nonzero(labels != -1)[0]
        order = judged[np.argsort(-scores[judged], kind="stable")]
        points = np.cumsum(np.diff(scores[order], prepend=np.inf) != 0)
        return cls(order, points, labels[order] == 1, (labels == 1).astype(np.int64))

    @classmethod
    def of_detections(cls, found: Matched, threshold: int) -> _Ranked:
        """Return the ranking of a class's detections at one of the thresholds by its number."""
        kept = found.judged[threshold]
        return cls(found.images[kept], found.points[kept], found.right[threshold, kept], found.boxes)

    def average_precision(self, counts: NDArray[np.float32], levels: Floats) -> Floats:
        """Return AP for each column of counts (N, B): the area under the envelope, or its mean at some recalls (R,)."""
        parts = math.ceil(self.drawn.shape[0] * counts.shape[1] / AT_ONCE)
        if parts > 1 and counts.shape[1] > 1:
            return np.concatenate([self._precision(part, levels) for part in np.array_split(counts, parts, axis=1)])
        return self._precision(counts, levels)

    def _precision(self, counts: NDArray[np.float32], levels: Floats) -> Floats:
        total = self.positives @ counts
        if not self.drawn.shape[0]:
            return np.where(total > 0, 0.0, np.nan)
        of_group = self.found @ counts
        everything, hits = np.cumsum(self.drawn @ counts, axis=0), np.cumsum(of_group, axis=0)
        precision = hits.astype(np.float64) / np.maximum(everything, 1)
        # at each group, the highest precision at this recall or a larger one
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        if len(levels):
            recall = hits / np.maximum(total, 1).astype(np.float64)
            reached = np.searchsorted(levels, recall, side="right")  # the levels up to each group's recall
            value = np.einsum("gb,gb->b", np.diff(reached, axis=0, prepend=0), envelope) / len(levels)
        else:
            value = np.einsum("gb,gb->b", of_group, envelope) / np.maximum(total, 1)
        return np.where(total > 0, value, np.nan)


def _ones(columns: Integers, ends: Integers, width: int) -> Any:
    """Return a sparse matrix whose row r counts the columns from `ends[r]` to `ends[r + 1]`."""
    from scipy.sparse import csr_array  # here, because other metrics need none of it

    columns = columns[: ends[-1]]
    parts = np.ones(len(columns), np.float32), columns.astype(np.int32), ends.astype(np.int32)  # copies, which scipy changes
    made = csr_array(parts, shape=(len(ends) - 1, width))
    made.sum_duplicates()
    return made
