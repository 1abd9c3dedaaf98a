"""The scores of a column: values of runs and of trivial predictors, and estimates from the same resamples of the same images.

What an earlier report computed is not computed again, and predictions are read only for what is new.
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
"""How many images, over all runs, are resampled at once: 69 runs of VOC's 1,449. What their scores need is in memory together."""
FEWER = 1_000
"""The most resamples of a metric of many rankings: of samples of labelled images, or of thresholds of overlap."""


@dataclass(frozen=True)
class Answers:
    """The predictions of a run for every image of its split, by the images' ids."""

    ids: tuple[str, ...]
    predictions: Predictions


Reader = Callable[[Record], Answers]


@dataclass(frozen=True)
class _Source:
    """Where predictions come from: everything that they depend on, as JSON values, and a function that returns them."""

    depends_on: list[Any]
    read: Callable[[], Answers]


class Scores:
    """The values of the runs of a column by id, of its trivial predictors by name, and estimates from them.

    Raises DataError when two runs were not scored on the same images in the same order.
    """

    def __init__(self, metric: str, records: Sequence[Record], read: Reader, resamples: int, cache: Cache) -> None:
        first = records[0]
        self._metric, self._cache = metrics.get(metric), cache
        self._resamples = min(resamples, FEWER) if self._metric.slow else resamples
        self._judged = first.data.classes, first.data.scored
        self._same = [self._metric.key, *self._judged]
        self._runs = {record.id for record in records}
        self._sources = {record.id: _Source([record.predictions], partial(read, record)) for record in records}
        self._waiting: dict[str, resampling.Resampled] = {}
        self._replicates: dict[str, NDArray[np.float64]] = {}
        self.values: dict[str, float] = {}
        """The values in [0, 1] that are defined: a run or predictor without one is not in it."""
        self._images_of, self._count = self._score(first.id)
        for record in records[1:]:
            if self._score(record.id)[0] != self._images_of:
                raise DataError(f"{first.id} and {record.id} were not scored on the same images in the same order.")
        predictors = trivial(first, self._metric.needs)
        self.trivial = tuple(predictors)
        for name, predictor in predictors.items():
            self.add(name, [first.predictions, name, first.data.prior], partial(_answers_of, predictor, read, first))

    def add(self, name: str, depends_on: list[Any], read: Callable[[], Answers]) -> None:
        """Add other predictions for the same images under a name; `depends_on` tells them from others, as JSON values.

        Raises DataError for predictions for other images.
        """
        self._sources[name] = _Source(depends_on, read)
        if self._score(name)[0] != self._images_of:
            raise DataError(f"{name} has not the same images in the same order as the runs that it is compared with.")

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return metrics.direction(self._metric.id)

    def own(self, records: Sequence[Record]) -> tuple[Record, ...]:
        """Return those of some runs that are in this column; DataError when two of them have the same seed."""
        found = tuple(record for record in records if record.id in self._runs)
        seeds = {record.job.seed: record.id for record in found}
        for record in found:
            if record.id != seeds[record.job.seed]:
                twice = f"{record.id} and {seeds[record.job.seed]}"
                raise DataError(f"{twice} are different runs of the same row with the same seed, {record.job.seed}.")
        return found

    def mean(self, records: Sequence[Record]) -> Estimate | None:
        """Return the mean of some runs of the column with its interval; None where none of them has a value."""
        return self.estimate([record.id for record in records if record.id in self.values])

    def difference(self, records: Sequence[Record], others: Sequence[Record]) -> Estimate | None:
        """Return the mean of the paired differences over the seeds that two rows share; None where they share none."""
        ours, theirs = ({r.job.seed: r.id for r in side if r.id in self.values} for side in (records, others))
        shared = sorted(ours.keys() & theirs.keys())
        return self.estimate([ours[seed] for seed in shared], [theirs[seed] for seed in shared])

    def floor(self, found: Estimate | None) -> str:
        """Return the best trivial predictor when an interval does not lie above its value, else "".

        Where lower is better, it is to lie below.
        """
        known = [name for name in self.trivial if name in self.values]
        best = max(known, key=lambda name: self.sign * self.values[name], default="")
        if not best or found is None:
            return ""
        reaches = found.high >= self.values[best] if self._metric.lower else found.low <= self.values[best]
        return best if reaches else ""

    def same(self, records: Sequence[Record]) -> tuple[str, int]:
        """Return the trivial predictor that most seeds equal on every resample of the images, and their number; else ("", 0)."""
        runs = [record.id for record in records if record.id in self.values]
        counts = [(name, sum(self._equal(run, name) for run in runs)) for name in self.trivial if name in self.values]
        found = max(counts, key=lambda one: one[1], default=("", 0))
        return found if found[1] else ("", 0)

    def _equal(self, run: str, predictor: str) -> bool:
        if self.values[run] != self.values[predictor]:
            return False
        found = self.estimate([run], [predictor])
        return found is not None and found.low == found.high == 0

    def estimate(self, names: Sequence[str], minus: Sequence[str] = ()) -> Estimate | None:
        """Return the mean over runs or predictors, or over their differences to as many others; None where none is named."""
        if not names:
            return None
        sources = [[self._sources[name].depends_on for name in side] for side in (names, minus)]
        depends_on = ["estimate", *self._same, self._resamples, *sources]
        found = Estimate(*self._cache.recall(depends_on, lambda: list(astuple(self._estimate(names, minus)))))
        return replace(found, values=tuple(found.values))  # JSON has lists

    def mean_difference(self, pairs: Sequence[Sequence[tuple[str, str]]]) -> Estimate | None:
        """Return the mean over seeds of each seed's mean over rows of a difference; None for no seeds.

        `pairs` holds for each seed the names whose differences are averaged, one pair a row. Rows are not drawn: the interval is
        over images and seeds.
        """
        if not pairs:
            return None
        sources = [[[self._sources[name].depends_on for name in pair] for pair in of_seed] for of_seed in pairs]
        depends_on = ["mean difference", *self._same, self._resamples, sources]
        found = Estimate(*self._cache.recall(depends_on, lambda: list(astuple(self._mean_difference(pairs)))))
        return replace(found, values=tuple(found.values))

    def _mean_difference(self, pairs: Sequence[Sequence[tuple[str, str]]]) -> Estimate:
        values = [float(np.mean([self.values[a] - self.values[b] for a, b in of_seed])) for of_seed in pairs]
        found = [np.mean(self.replicates([a for a, _ in s]) - self.replicates([b for _, b in s]), axis=0) for s in pairs]
        return statistics.estimate(values, np.stack(found), self._count)

    def replicates(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return the values (names, B) of runs or predictors on each of B resamples, which are the same for the same images."""
        self._resample(names)
        return np.stack([self._replicates[name] for name in names])

    def depends_on(self, names: Sequence[str]) -> list[Any]:
        """Return what the replicates of runs or predictors depend on, as JSON values."""
        return [*self._same, self._resamples, self._images_of, [self._sources[name].depends_on for name in names]]

    def _estimate(self, names: Sequence[str], minus: Sequence[str]) -> Estimate:
        self._resample([*names, *minus])
        values = [self.values[name] for name in names]
        replicates = self.replicates(names)
        if minus:
            values = [value - self.values[name] for value, name in zip(values, minus, strict=True)]
            replicates = replicates - self.replicates(minus)
            return statistics.estimate(values, replicates, self._count)
        found = statistics.estimate(values, replicates, self._count)
        return replace(found, low=max(0.0, found.low), high=min(1.0, found.high), p=None)

    def _score(self, name: str) -> tuple[str, int]:
        """Add the value of a run or predictor; return a digest of its images' ids, and how many images there are."""
        depends_on = ["value", *self._same, *self._sources[name].depends_on]
        value, images, count = self._cache.recall(depends_on, lambda: self._compute(name))
        if not math.isnan(value):
            self.values[name] = value
        return images, count

    def _compute(self, name: str) -> list[Any]:
        """Return the value of predictions with their images' digest and number, and keep what resampling them needs."""
        answers = self._sources[name].read()
        value = metrics.compute(self._metric.id, answers.predictions, *self._judged)
        if not math.isnan(value):
            # before too many wait: a waiting run holds what its score is computed from
            if len(self._waiting) * len(answers.ids) * _samples(answers) > TOGETHER:
                self._resample(list(self._waiting))
            self._waiting[name] = resampling.resampler(self._metric.id, answers.predictions, *self._judged)
        return [value, hashlib.sha256("\n".join(answers.ids).encode()).hexdigest(), len(answers.ids)]

    def _resample(self, names: Sequence[str]) -> None:
        """Add the replicates of some runs that are not there yet, and of all runs that wait for theirs."""
        for name in names:
            if name not in self._replicates and name not in self._waiting:
                self._compute(name)
        if not self._waiting:
            return
        found = resampling.replicates(list(self._waiting.values()), self._count, self._resamples, self._images_of)
        self._replicates.update(zip(self._waiting, found, strict=True))
        self._waiting.clear()


def _answers_of(predictor: Predictor, read: Reader, record: Record) -> Answers:
    """Return the predictions of a trivial predictor for the images of a run."""
    answers = read(record)
    return Answers(answers.ids, predictor(answers.predictions))


def _samples(answers: Answers) -> int:
    """Return how many rankings an image has a place in: shots times draws of a low-shot probe, its detections, else 1."""
    shots, found = answers.predictions.get("shots"), answers.predictions.get("found")
    if found is not None:
        return max(1, int(found.shape[1]))
    return 1 if shots is None else int(shots.shape[1] * shots.shape[2])
