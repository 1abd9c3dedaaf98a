"""What every probe of whole images takes and returns: features by encoder level, labels, predictions and choices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import metrics
from bench.selection import Choice, Tried

Labels = NDArray[np.int8]
"""Labels (N, C): 1 present, 0 absent, -1 difficult objects only, which is not judged."""
Scores = NDArray[np.float32]
Predictions = dict[str, NDArray[Any]]
ELEMENTS = 2**24
"""The largest number of similarities, or of votes, that are computed at once."""
CONSTANT = 1e-6
"""A channel whose deviation over images is at most this share of 1 + |mean| is constant, and dead."""
Judge = Callable[[Scores, Labels], float]
"""The main metric in [0, 1] of scores (N, C) for images with these labels; nan where nothing can be judged."""


@dataclass(frozen=True)
class Images:
    """Some images: float32 features (N, C_l) for each encoder level, the finest first, and labels."""

    levels: tuple[Tensor, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Features:
    """The images of the three splits; every choice is made with train and val alone."""

    train: Images
    val: Images
    test: Images

    @cached_property
    def fit(self) -> Images:
        """Train and val, in this order, to which the chosen candidate is fitted."""
        levels = tuple(torch.cat(pair) for pair in zip(self.train.levels, self.val.levels, strict=True))
        return Images(levels, np.concatenate([self.train.labels, self.val.labels]))

    def of_classes(self, wanted: NDArray[np.bool_]) -> Features:
        """Return the same features with the labels of the wanted classes (C,) alone; others are not judged in any image."""
        parts = (self.train, self.val, self.test)
        return Features(*(Images(one.levels, np.where(wanted, one.labels, np.int8(-1))) for one in parts))

    def numbers(self, level: int | None) -> tuple[int, ...]:
        """Return the levels to choose from, counted from 1: all, or the given one."""
        return tuple(range(1, len(self.train.levels) + 1)) if level is None else (level,)


@dataclass(frozen=True)
class Outcome:
    """Predictions for the test images and the choice that they come from; beside them those that the test split would choose."""

    predictions: Predictions
    chosen: Choice
    tried: tuple[Tried, ...]
    on_test: Choice
    predictions_on_test: Predictions
    draws: Mapping[str, Any] = field(default_factory=dict)
    """The samples of labelled images that were drawn, as JSON values; empty where none are."""


def best(values: Sequence[float]) -> int:
    """Return the place of the highest value, the first of equal ones; 0 where none is defined.

    >>> best([0.1, float("nan"), 0.3, 0.3])
    2
    """
    return int(np.argmax(np.where(np.isnan(values), -np.inf, values))) if len(values) else 0


def by_validation(candidates: Sequence[tuple[Choice, float, Scores]], test: Images, judge: Judge) -> Outcome:
    """Return the outcome of candidates, each with its choice, its score on val, and its scores (N, C) of the test images."""
    on_test = [judge(scores, test.labels) for _, _, scores in candidates]
    tried = tuple(Tried.of(choice, val, value) for (choice, val, _), value in zip(candidates, on_test, strict=True))
    chosen, other = best([val for _, val, _ in candidates]), best(on_test)
    return Outcome(
        {"scores": candidates[chosen][2], "labels": test.labels},
        candidates[chosen][0],
        tried,
        candidates[other][0],
        {"scores": candidates[other][2], "labels": test.labels},
    )


@contextmanager
def full_precision() -> Iterator[None]:
    """Multiply float32 matrices in float32 inside the block: TF32 would be off by 1e-3, and similarities are compared closely."""
    was = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(was)


def judge_of(metric: str, classes: tuple[str, ...], scored: tuple[str, ...]) -> Judge:
    """Return the function that scores predictions (N, C) by a metric, over the scored classes."""

    def judge(scores: Scores, labels: Labels) -> float:
        return metrics.compute(metric, {"scores": scores, "labels": labels}, classes, scored)

    return judge


def standardised(fitted: Tensor, *others: Tensor) -> list[Tensor]:
    """Return features (N, C) with mean 0 and deviation 1 over the first tensor's images; a constant channel becomes 0."""
    mean, scale = scaling(fitted)
    return [(some - mean) * scale for some in (fitted, *others)]


def scaling(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each channel (C,) of features (N, C), and one over its deviation, 0 for a constant channel."""
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    dead = is_constant(mean, deviation)
    return mean, torch.where(dead, torch.zeros_like(deviation), 1 / deviation.clamp(min=1e-30))


def is_constant(mean: Tensor, deviation: Tensor) -> Tensor:
    """Tell of each channel (C,), by its mean and deviation over images, whether it is constant."""
    return deviation <= CONSTANT * (1 + mean.abs())
