"""The low-shot probe: ridge regression of each class from a few labelled images, for several numbers of them and draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

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
ELEMENTS = 2**20
"""The largest number of feature values that are solved for at once by a thread (8 MiB)."""


@dataclass(frozen=True)
class Sample:
    """What one regression is fitted to: the images of one class, the positives first, and the place of its results."""

    place: tuple[int, int, int]
    """The number of its k, its draw and its class."""
    images: Places
    positives: int


def low_shot(probe: LowShot, features: Features, seed: int) -> Outcome:
    """Return the outcome of the low-shot probe, whose definition and source `bench.probe.LowShot` gives.

    Samples are drawn from train and val together, fewer images than k asks for where a class has fewer; equal seeds draw equal
    samples. The regressions have the targets 1 and -1 and an intercept without a penalty. Their squared leave-one-out errors are
    averaged over the images of a sample, at the penalty that is best for the class, and then over classes; the level of each k
    and draw is the one with the least.

    Predictions are `shots` float32 (N, shots, draws, C), the sigmoid of what is regressed, and `labels` int8 (N, C). The choice
    has the level that is taken most often and all of them in the order of (k, draw). The candidates are the levels, each for all
    samples: `val` is 1 - the mean leave-one-out error over k, draws and classes, and `test` is `bench.metrics.map_lowshot`.
    `draws` is {"images": how many there are in train and val, "positives": {draw: [the places in train and val, in the order in
    which k takes them, of each class]}, "negatives": the same}.
    """
    levels, labels = features.numbers(probe.level), features.test.labels
    drawn = draw(probe, features.fit.labels, seed)
    samples = list(_samples(probe, drawn))
    shape = (len(probe.shots), probe.draws, labels.shape[1])
    fitted = [_of_level(probe, features.fit.levels[n - 1], features.test.levels[n - 1], samples, shape) for n in levels]
    of_sample = np.stack([_mean(errors) for errors, _ in fitted])  # (levels, shots, draws)
    picked = np.where(np.isnan(of_sample), np.inf, of_sample).argmin(axis=0)
    scores = np.stack([fitted[place][1][:, shot, number] for (shot, number), place in np.ndenumerate(picked)], axis=1)
    tried = tuple(
        Tried.of({"level": n}, 1 - float(np.mean(of_sample[place])), _mean_average_precision(fitted[place][1], labels))
        for place, n in enumerate(levels)
    )
    in_order = tuple(levels[place] for place in picked.ravel())
    on_test = best([float("nan") if one.test is None else one.test for one in tried])
    return Outcome(
        {"shots": scores.reshape(len(labels), *shape), "labels": labels},
        {"level": max(levels, key=in_order.count), "levels": in_order},
        tried,
        {"level": levels[on_test]},
        {"shots": fitted[on_test][1], "labels": labels},
        {"images": len(features.fit), **_as_json(drawn)},
    )


def draw(probe: LowShot, labels: Labels, seed: int) -> list[list[tuple[Places, Places]]]:
    """Return for each draw and class the places of positives and negatives in labels (N, C), by chance, as many as are needed."""
    most, classes = max(probe.shots), labels.shape[1]

    def of_class(number: int, c: int) -> tuple[Places, Places]:
        random = np.random.default_rng(seeding.key("probe", "lowshot", seed, number, c))
        positives, negatives = (random.permutation(np.nonzero(labels[:, c] == value)[0]) for value in (1, 0))
        return positives[:most], negatives[: (classes - 1) * most]

    return [[of_class(number, c) for c in range(classes)] for number in range(probe.draws)]


def ridge(features: Tensor, targets: Tensor, penalties: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean squared leave-one-out errors (B,), weights (B, C) and intercepts (B,) of regressions at their best penalty.

    Each of B regressions on features (B, n, C), float64, has the same targets (n,). It minimises |y - X w - b|^2 + penalty |w|^2.
    The leave-one-out error of image i is (y_i - x_i w - b) / (1 - h_i), where h_i is its leverage, the share of its target in its
    own fitted value. So does scikit-learn's RidgeCV.
    """
    count, channels = features.shape[1:]
    mean = features.mean(dim=1)
    centred, target = features - mean[:, None], targets - targets.mean()
    if count > channels:
        energy, directions = torch.linalg.eigh(centred.mT @ centred)
        rotated = centred @ directions  # (B, n, r)
    else:
        energy, directions = torch.linalg.eigh(centred @ centred.mT)
        rotated = directions * energy.clamp(min=0).sqrt()[:, None]
    penalty = torch.tensor(penalties, dtype=torch.float64, device=features.device)
    shrinkage = 1 / (energy.clamp(min=0)[:, :, None] + penalty)  # (B, r, P)
    residuals = target[:, None] - rotated @ ((rotated.mT @ target)[:, :, None] * shrinkage)  # (B, n, P)
    errors = (residuals / (1 - 1 / count - rotated.square() @ shrinkage)).square().mean(dim=1)
    least, chosen = errors.min(dim=1)
    residual = residuals.gather(2, chosen[:, None, None].expand(-1, count, 1))
    weights = (centred.mT @ residual)[:, :, 0] / penalty[chosen][:, None]  # where the gradient is 0
    return least, weights, targets.mean() - (weights * mean).sum(dim=1)


def _samples(probe: LowShot, drawn: Sequence[Sequence[tuple[Places, Places]]]) -> Iterator[Sample]:
    """Yield the samples that have both positives and negatives."""
    for (shot, k), (number, classes) in product(enumerate(probe.shots), enumerate(drawn)):
        for c, (positives, negatives) in enumerate(classes):
            some = positives[:k], negatives[: (len(classes) - 1) * k]
            if len(some[0]) and len(some[1]):
                yield Sample((shot, number, c), np.concatenate(some), len(some[0]))


def _of_level(
    probe: LowShot, fit: Tensor, test: Tensor, samples: Sequence[Sample], shape: tuple[int, int, int]
) -> tuple[Floats, Scores]:
    """Return the squared leave-one-out errors (shots, draws, C) of a level and its scores (N, shots, draws, C) of test images."""
    fit, test = functional.normalize(fit.double()), functional.normalize(test.double())
    errors, scores = np.full(shape, np.nan), np.full((len(test), *shape), NOTHING_KNOWN, dtype=np.float32)

    def solve(batch: Sequence[Sample]) -> None:
        images = torch.from_numpy(np.stack([one.images for one in batch])).to(fit.device)
        targets = torch.full((images.shape[1],), -1.0, dtype=torch.float64, device=fit.device)
        targets[: batch[0].positives] = 1
        least, weights, intercepts = ridge(fit[images], targets, probe.penalties)
        places = tuple(np.array([one.place for one in batch]).T)
        errors[places] = least.cpu().numpy()
        scores[:, *places] = torch.sigmoid(test @ weights.T + intercepts).float().cpu().numpy()

    _on_threads(solve, list(_batches(samples, fit.shape[1])), torch.get_num_threads() if fit.device.type == "cpu" else 1)
    return errors, scores


def _batches(samples: Sequence[Sample], channels: int) -> Iterator[list[Sample]]:
    """Yield samples together that have as many positives and negatives, the largest first."""
    alike: dict[tuple[int, int], list[Sample]] = {}
    for one in samples:
        alike.setdefault((len(one.images), one.positives), []).append(one)
    for (images, _), some in sorted(alike.items(), key=lambda item: item[0], reverse=True):
        size = max(1, ELEMENTS // (images * channels))
        yield from (some[first : first + size] for first in range(0, len(some), size))


def _on_threads(solve: Callable[[Sequence[Sample]], None], batches: Sequence[Sequence[Sample]], threads: int) -> None:
    """Solve several batches at once, each with one thread, so that the number of threads does not change a bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(solve, batches))
    finally:
        torch.set_num_threads(before)


def _mean(errors: Floats) -> Floats:
    """Return the mean over the last dimension of what is known; nan where nothing is."""
    known = ~np.isnan(errors)
    return np.where(known.any(axis=-1), np.where(known, errors, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1), np.nan)


def _mean_average_precision(scores: Scores, labels: Labels) -> float:
    values = np.array([map_lowshot(scores[..., c], labels[:, c]) for c in range(labels.shape[1])])
    return float(_mean(values))


def _as_json(drawn: Sequence[Sequence[tuple[Places, Places]]]) -> dict[str, Any]:
    return {
        kind: {str(number): [of_class[part].tolist() for of_class in classes] for number, classes in enumerate(drawn)}
        for part, kind in enumerate(("positives", "negatives"))
    }
