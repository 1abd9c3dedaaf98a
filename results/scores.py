"""The scores of a column: values of runs and trivial predictors, and estimates from the same resamples of the same images.

What is known from an earlier report is not computed again, and predictions are read only for what is not known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import metrics
from bench.errors import DataError
from bench.metrics import Predictions
from bench.record import Record
from results import resampling, statistics
from results.cache import Cache
from results.statistics import Estimate
from results.trivial import Predictor, trivial

TOGETHER = 100_000
"""Images of all runs that are resampled at once: 69 runs of VOC's 1,449. What they are scored by is in memory together."""


@dataclass(frozen=True)
class Answers:
    """The predictions of a run for every image of its split, by the images' ids."""

    ids: tuple[str, ...]
    predictions: Predictions


Reader = Callable[[Record], Answers]


@dataclass(frozen=True)
class _Source:
    """Where predictions come from: all that they depend on, and a function that gives them."""

    depends_on: list[Any]
    read: Callable[[], Answers]


class Scores:
    """The values of the runs and the trivial predictors of a column, by run id and name, and estimates from them.

    Raises DataError when two runs were not scored on the same images in the same order.
    """

    def __init__(self, metric: str, records: Sequence[Record], read: Reader, resamples: int, cache: Cache) -> None:
        first = records[0]
        self._metric, self._resamples, self._cache = metrics.get(metric), resamples, cache
        self._judged = first.data.classes, first.data.scored
        self._same = [self._metric.key, *self._judged]
        self._sources = {record.id: _Source([record.predictions], partial(read, record)) for record in records}
        self._waiting: dict[str, resampling.Resampled] = {}
        self._replicates: dict[str, NDArray[np.float64]] = {}
        self.values: dict[str, float] = {}
        """What is defined; a run or predictor without a value is left out."""
        self._images_of, self._count = self._look(first.id)
        for record in records[1:]:
            if self._look(record.id)[0] != self._images_of:
                raise DataError(f"{first.id} and {record.id} were not scored on the same images in the same order.")
        predictors = trivial(first, self._metric.needs)
        self.trivial = tuple(predictors)
        for name, predictor in predictors.items():
            depends_on = [first.predictions, name, first.data.prior]
            self._sources[name] = _Source(depends_on, partial(_answers_of, predictor, read, first))
            self._look(name)

    def estimate(self, names: Sequence[str], minus: Sequence[str] = ()) -> Estimate | None:
        """Return the mean of some runs, or of their differences to as many others, with its interval."""
        if not names:
            return None
        sources = [[self._sources[name].depends_on for name in side] for side in (names, minus)]
        depends_on = ["estimate", *self._same, self._resamples, *sources]
        found = Estimate(*self._cache.recall(depends_on, lambda: list(astuple(self._estimate(names, minus)))))
        return replace(found, values=tuple(found.values))  # JSON has lists

    def _estimate(self, names: Sequence[str], minus: Sequence[str]) -> Estimate:
        self._resample([*names, *minus])
        values = [self.values[name] for name in names]
        replicates = np.stack([self._replicates[name] for name in names])
        if minus:
            values = [value - self.values[name] for value, name in zip(values, minus, strict=True)]
            replicates = replicates - np.stack([self._replicates[name] for name in minus])
            return statistics.estimate(values, replicates, self._count)
        found = statistics.estimate(values, replicates, self._count)
        return replace(found, low=max(0.0, found.low), high=min(1.0, found.high), p=None)

    def _look(self, name: str) -> tuple[str, int]:
        """Take the value of a run or predictor; return a digest of its images, and how many there are."""
        depends_on = ["value", *self._same, *self._sources[name].depends_on]
        value, images, count = self._cache.recall(depends_on, lambda: self._compute(name))
        if not math.isnan(value):
            self.values[name] = value
        return images, count

    def _compute(self, name: str) -> list[Any]:
        """Read predictions and compute their value; they are kept as far as resampling them needs."""
        answers = self._sources[name].read()
        value = metrics.compute(self._metric.id, answers.predictions, *self._judged)
        if not math.isnan(value):
            if len(self._waiting) * len(answers.ids) > TOGETHER:
                self._resample(list(self._waiting))
            self._waiting[name] = resampling.resampler(self._metric.id, answers.predictions, *self._judged)
        return [value, hashlib.sha256("\n".join(answers.ids).encode()).hexdigest(), len(answers.ids)]

    def _resample(self, names: Sequence[str]) -> None:
        """Add what is missing of the replicates of some runs, and of all that wait for theirs."""
        for name in names:
            if name not in self._replicates and name not in self._waiting:
                self._compute(name)
        if not self._waiting:
            return
        found = resampling.replicates(list(self._waiting.values()), self._count, self._resamples, self._images_of)
        self._replicates.update(zip(self._waiting, found, strict=True))
        self._waiting.clear()


def _answers_of(predictor: Predictor, read: Reader, record: Record) -> Answers:
    """Return what a trivial predictor says of the images of a run."""
    answers = read(record)
    return Answers(answers.ids, predictor(answers.predictions))
