"""The low-shot probe: ridge regression of every class from a few labelled images, for several numbers of them and draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bench import seeding
from bench.metrics import map_lowshot
from bench.probe import LowShot
from bench.probes.features import Features, Labels, Outcome, Scores, best
from bench.selection import Tried

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
NOTHING_KNOWN = 0.5
"""The score of every image for a class of which no positive or no negative was drawn."""


def low_shot(probe: LowShot, features: Features, judged: NDArray[np.bool_], seed: int) -> Outcome:
    """Return the outcome of the low-shot probe, whose definition and source `bench.probe.LowShot` gives.

    `judged` (C,) says which classes are drawn and scored. Samples are drawn from train and val together, fewer images than k asks
    for where a class has fewer; equal seeds draw equal samples. The regressions have the targets 1 and -1, 0 for difficult, and
    an intercept without a penalty. Their squared leave-one-out errors are averaged over the images of a sample, at the penalty
    that is best for the class, and then over classes; the level of each k and draw is the one with the least error. A class of
    which no positive or no negative was drawn, or that is not judged, scores 0.5 for every image.

    Predictions are `shots` float32 (N, shots, draws, C), the sigmoid of what is regressed, and `labels` int8 (N, C). The choice
    has the level that is taken most often and all of them in the order of (k, draw). The candidates are the levels, each for all
    samples: `val` is 1 - the mean leave-one-out error over k, draws and classes, and `test` is `bench.metrics.map_lowshot`.
    `draws` is {"positives": {draw: [the places in train and val, in the order in which k takes them, of each class]}}.
    """
    levels, labels = features.numbers(probe.level), features.test.labels
    drawn = draw(probe, features.fit.labels, judged, seed)
    shape = (len(probe.shots), probe.draws, labels.shape[1])
    fitted = [_of_level(probe, features, n, drawn, judged) for n in levels]
    of_sample = np.stack([_mean(errors) for errors, _ in fitted])  # (levels, shots, draws)
    picked = np.where(np.isnan(of_sample), np.inf, of_sample).argmin(axis=0)
    scores = np.stack([fitted[place][1][:, shot, number] for (shot, number), place in np.ndenumerate(picked)], axis=1)
    tried = tuple(
        Tried.of({"level": n}, 1 - float(np.mean(of_sample[place])), _mean_average_precision(fitted[place][1], labels, judged))
        for place, n in enumerate(levels)
    )
    in_order = tuple(levels[place] for place in picked.ravel())
    on_test = best([float("nan") if one.test is None else one.test for one in tried])
    return Outcome(
        {"shots": scores.reshape(len(labels), *shape), "labels": labels},
        {"level": max(levels, key=in_order.count), "levels": in_order},
        tried,
        {"level": levels[on_test], "levels": (levels[on_test],) * picked.size},
        {"shots": fitted[on_test][1], "labels": labels},
        {"positives": {str(number): [some.tolist() for some in classes] for number, classes in enumerate(drawn)}},
    )


def draw(probe: LowShot, labels: Labels, judged: NDArray[np.bool_], seed: int) -> list[list[Places]]:
    """Return for each draw and class the places of positives in labels (N, C), by chance, as many as the largest k."""
    most = max(probe.shots)

    def of_class(number: int, c: int) -> Places:
        random = np.random.default_rng(seeding.key("probe", "lowshot", seed, number, c))
        return random.permutation(np.nonzero(labels[:, c] == 1)[0])[: most if judged[c] else 0]

    return [[of_class(number, c) for c in range(labels.shape[1])] for number in range(probe.draws)]


def sample(drawn: Sequence[Places], k: int) -> Places:
    """Return the places (n,) of a sample, in order: the first k positives of every class, each image once."""
    return np.unique(np.concatenate([some[:k] for some in drawn]))


def ridge(features: Tensor, targets: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean squared leave-one-out errors (K,), weights (C, K) and intercepts (K,) at each target's best penalty.

    Features are (n, C) and targets (n, K), both float64. A regression minimises |y - X w - b|^2 + penalty |w|^2. The
    leave-one-out error of image i is (y_i - x_i w - b) / (1 - h_i), where h_i is its leverage, the share of its target in its own
    fitted value. So does scikit-learn's RidgeCV.
    """
    count, channels = features.shape
    mean = features.mean(dim=0)
    centred, target = features - mean, targets - targets.mean(dim=0)
    if count > channels:
        energy, directions = torch.linalg.eigh(centred.T @ centred)
        rotated = centred @ directions  # (n, r)
    else:
        energy, directions = torch.linalg.eigh(centred @ centred.T)
        rotated = directions * energy.clamp(min=0).sqrt()
    penalty = torch.tensor(penalties, dtype=torch.float64, device=features.device)
    shrinkage = 1 / (energy.clamp(min=0) + penalty[:, None])  # (P, r)
    residuals = target - rotated @ (shrinkage[..., None] * (rotated.T @ target))  # (P, n, K)
    left = 1 - 1 / count - shrinkage @ rotated.square().T  # (P, n)
    errors = (residuals / left[..., None]).square().mean(dim=1)  # (P, K)
    least, chosen = errors.min(dim=0)
    residual = residuals.gather(0, chosen.expand(1, count, -1))[0]
    weights = centred.T @ residual / penalty[chosen]  # where the gradient is 0
    return least, weights, targets.mean(dim=0) - mean @ weights


def _of_level(
    probe: LowShot, features: Features, level: int, drawn: Sequence[Sequence[Places]], judged: NDArray[np.bool_]
) -> tuple[Floats, Scores]:
    """Return the squared leave-one-out errors (shots, draws, C) of a level and its scores (N, shots, draws, C) of test images."""
    fit, test = (functional.normalize(some.levels[level - 1].double()) for some in (features.fit, features.test))
    labels = torch.from_numpy(features.fit.labels).to(fit.device)
    shape = len(probe.shots), probe.draws, len(judged)
    errors, scores = np.full(shape, np.nan), np.full((len(test), *shape), NOTHING_KNOWN, dtype=np.float32)

    def solve(place: tuple[int, int]) -> None:
        shot, number = place
        images = torch.from_numpy(sample(drawn[number], probe.shots[shot])).to(fit.device)
        known = labels[images]
        varies = ((known == 1).any(dim=0) & (known == 0).any(dim=0)).cpu().numpy() & judged
        if not varies.any():
            return
        targets = ((known == 1).double() - (known == 0).double())[:, torch.from_numpy(varies).to(fit.device)]
        least, weights, intercepts = ridge(fit[images], targets, probe.penalties)
        errors[shot, number, varies] = least.cpu().numpy()
        scores[:, shot, number, varies] = torch.sigmoid(test @ weights + intercepts).float().cpu().numpy()

    _on_threads(solve, list(np.ndindex(*shape[:2])), torch.get_num_threads() if fit.device.type == "cpu" else 1)
    return errors, scores


def _on_threads(solve: Callable[[tuple[int, int]], None], places: Sequence[tuple[int, int]], threads: int) -> None:
    """Solve several samples at once, each with one thread, so that the number of threads does not change a bit."""
    if threads == 1:  # as on a GPU, in the thread that it is used from
        for place in places:
            solve(place)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(solve, reversed(places)))
    finally:
        torch.set_num_threads(before)


def _mean(errors: Floats) -> Floats:
    """Return the mean over the last dimension of what is known; nan where nothing is."""
    known = ~np.isnan(errors)
    return np.where(known.any(axis=-1), np.where(known, errors, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1), np.nan)


def _mean_average_precision(scores: Scores, labels: Labels, judged: NDArray[np.bool_]) -> float:
    values = np.array([map_lowshot(scores[..., c], labels[:, c]) for c in np.nonzero(judged)[0]])
    return float(_mean(values))
