"""The SVM probe: a linear support vector machine for each class on features of one encoder level, as VISSL does it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.metrics import average_precision
from bench.probe import Svm
from bench.probes.features import Features, Judge, Labels, Outcome, Scores, best
from bench.selection import Choice, Tried

Floats = NDArray[np.float64]
Result = TypeVar("Result")


def svm(probe: Svm, features: Features, judge: Judge) -> Outcome:
    """Return the outcome of the SVM probe, whose definition and source `bench.probe.Svm` gives.

    One difference to VISSL: an image where a class is difficult (label -1) is left out of that class's training, whereas VISSL's
    trainer counts it as a negative, because -1 is its label of negatives too. Scores are the sigmoid of the decision values.

    A class with fewer positives or negatives than folds cannot be cross-validated and takes the cost nearest to 1. One without
    positives has the score 0 for every image, and one with positives alone 1. Candidates are the costs: the `val` of one is the
    mean of its cross-validated average precisions over classes, and `test` judges the scores of all classes at this cost. Of the
    costs that are equally good the first one is chosen.
    """
    level, labels, test = _level(probe, features, judge), features.fit.labels, features.test.labels
    fitted, seen = _length_one(features.fit.levels[level - 1]), _length_one(features.test.levels[level - 1])
    found = _for_each_class(partial(_candidates, probe, fitted, seen), labels, fitted.shape[1], probe.folds)
    validated = np.stack([values for values, _ in found])  # (C, costs)
    scores = np.stack([some for _, some in found], axis=1)  # (N, C, costs)

    nearest = int(np.abs(np.log(probe.costs)).argmin())
    chosen = [nearest if np.isnan(values).all() else best(list(values)) for values in validated]
    on_test = [best([average_precision(s, test[:, c]) for s in scores[:, c].T]) for c in range(len(found))]
    tried = tuple(
        Tried.of({"level": level, "cost": cost}, _mean(validated[:, place]), judge(scores[:, :, place], test))
        for place, cost in enumerate(probe.costs)
    )

    def taken(places: list[int]) -> tuple[Choice, dict[str, Any]]:
        columns = np.take_along_axis(scores, np.array(places)[None, :, None], axis=2)[:, :, 0]
        return {"level": level, "costs": tuple(probe.costs[place] for place in places)}, {"scores": columns, "labels": test}

    (choice, predictions), (other, of_other) = taken(chosen), taken(on_test)
    return Outcome(predictions, choice, tried, other, of_other)


def _level(probe: Svm, features: Features, judge: Judge) -> int:
    """Return the level whose SVMs of cost 1, fitted to train, are best on val; if there is only one, none is fitted."""
    numbers, labels = features.numbers(probe.level), features.train.labels
    values = []
    for number in numbers if len(numbers) > 1 else ():
        train, val = _length_one(features.train.levels[number - 1]), _length_one(features.val.levels[number - 1])
        columns = _for_each_class(partial(_scores, probe, 1.0, train, val), labels, train.shape[1])
        values.append(judge(np.stack(columns, axis=1), features.val.labels))
    return numbers[best(values)]


def _for_each_class(
    function: Callable[[NDArray[np.int8]], Result], labels: Labels, channels: int, folds: int = 0
) -> list[Result]:
    """Return what a function makes of each class's labels (N,), as many at once as torch has threads.

    Where the images of a fit are fewer than the channels, LinearSVC takes a dual solver, which visits them in a random order; all
    threads share its random state, so there is one.
    """
    from sklearn.exceptions import ConvergenceWarning

    judged = int((labels != -1).sum(axis=0).min(initial=len(labels)))
    smallest = judged - judged // folds - 2 if folds else judged
    threads = torch.get_num_threads() if smallest >= channels else 1
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore", ConvergenceWarning)
        return list(pool.map(function, labels.T))


def _candidates(probe: Svm, fitted: Floats, seen: Floats, labels: NDArray[np.int8]) -> tuple[Floats, Scores]:
    """Return a class's cross-validated average precision at each cost (costs,) and its scores of other images (N, costs)."""
    scores = [_scores(probe, cost, fitted, seen, labels) for cost in probe.costs]
    return _cross_validated(probe, fitted, labels), np.stack(scores, axis=1)


def _cross_validated(probe: Svm, features: Floats, labels: NDArray[np.int8]) -> Floats:
    """Return what scikit-learn's cross_val_score with scoring="average_precision" does, its mean over folds for each cost.

    A fold's features are copied once for all costs. nan for a class with fewer positives or negatives than folds.
    """
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import StratifiedKFold

    features, truth = features[labels != -1], labels[labels != -1] == 1
    if min(truth.sum(), (~truth).sum()) < probe.folds:
        return np.full(len(probe.costs), np.nan)
    values = np.zeros((len(probe.costs), probe.folds))
    for fold, (rest, held) in enumerate(StratifiedKFold(probe.folds).split(features, truth)):
        fitted, left_out = features[rest], features[held]
        for place, cost in enumerate(probe.costs):
            decisions = _decisions(probe, cost, fitted, truth[rest], left_out)
            values[place, fold] = average_precision_score(truth[held], decisions)
    found: Floats = values.mean(axis=1)
    return found


def _scores(probe: Svm, cost: float, fitted: Floats, seen: Floats, labels: NDArray[np.int8]) -> Scores:
    """Return a class's scores (M,) in [0, 1] of images with features (M, C) from others' features and labels."""
    from scipy.special import expit

    truth = labels[labels != -1] == 1
    if truth.all() or not truth.any():
        return np.full(len(seen), truth.any(), dtype=np.float32)
    found: Scores = expit(_decisions(probe, cost, fitted[labels != -1], truth, seen)).astype(np.float32)
    return found


def _decisions(probe: Svm, cost: float, fitted: Floats, truth: NDArray[np.bool_], seen: Floats) -> Floats:
    """Return the decision values (M,) of images with features (M, C) from an SVM that is fitted to others."""
    from sklearn.svm import LinearSVC

    machine = LinearSVC(
        C=cost, class_weight={1: probe.positives, -1: 1}, intercept_scaling=1.0, penalty="l2", loss="squared_hinge", tol=1e-4,
        dual="auto", max_iter=probe.max_iter, random_state=0,
    )  # fmt: skip
    found: Floats = machine.fit(fitted, np.where(truth, 1, -1)).decision_function(seen)
    return found


def _length_one(features: Tensor) -> Floats:
    """Return features (N, C) divided by their length + 1e-5, as VISSL does, in float64."""
    values: Floats = features.cpu().double().numpy()
    return np.ascontiguousarray(values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-5))


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
