"""How often the intervals of `results.statistics` are wrong, on simulated test sets: `python -m tests.results.operating`.

A seed's value is the mean over N images of a score. Its variance has a part that all seeds share (`common`), one from the images
as this seed alone sees them, the unit, and one from the seed (`seed_variance`); the truth is zero. The covariance is the one that
a bootstrap over the images has in the limit of many resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from results.statistics import at_look, half_width, image_variances

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]
IMAGES, DRAWS, TOGETHER = 150, 8000, 500
ALPHAS = (0.05, 0.0025, 0.001)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Student's t with 3 degrees of freedom, of variance 1."""
    return rng.standard_t(3, shape) / math.sqrt(3)


def collapses(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Four seeds of five a little above the mean, one far below it, of variance 1."""
    return np.where(rng.uniform(size=shape) < 0.2, -2.0, 0.5)


def drawn(
    rng: np.random.Generator,
    draws: int,
    seeds: int,
    seed_variance: float,
    common: float,
    of_images: Noise = normal,
    of_seeds: Noise = normal,
) -> Iterator[Floats]:
    """Yield scores (n, S, N) of test sets, `draws` in all."""
    for first in range(0, draws, TOGETHER):
        n = min(TOGETHER, draws - first)
        shared = math.sqrt(common * IMAGES) * of_images(rng, (n, 1, IMAGES))
        own = math.sqrt(IMAGES) * of_images(rng, (n, seeds, IMAGES))
        yield shared + own + math.sqrt(seed_variance) * of_seeds(rng, (n, seeds, 1))


def parts(scores: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return values (n, S), their variance, and the images' variances `common` and `own`, of scores (n, S, N)."""
    values = scores.mean(axis=-1)
    centred = scores - values[..., None]
    covariance = centred @ centred.transpose(0, 2, 1) / scores.shape[-1] ** 2
    return values, values.var(axis=-1, ddof=1), *image_variances(covariance)


def rejections(alphas: tuple[float, ...], draws: int = DRAWS, seed: int = 0, **regime: object) -> list[float]:
    """Return the share of test sets whose interval of each level leaves out the truth."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(alphas))
    for scores in drawn(rng, draws, **regime):  # type: ignore[arg-type]
        values, spread, common, own = parts(scores)
        halves = [half_width(alpha, spread, common, own, values.shape[-1], IMAGES) for alpha in alphas]
        wrong += [float((np.abs(values.mean(axis=-1)) >= half).sum()) for half in halves]
    return (wrong / draws).tolist()


def family_wise(seeds: int, seed_variance: float, rows: int = 6, draws: int = DRAWS, seed: int = 1) -> float:
    """Return how often Holm's correction tells one of some rows from a baseline, when none differs from it."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(draws // TOGETHER):
        (base,) = drawn(rng, TOGETHER, seeds, seed_variance, 0.0)
        rejected = np.zeros(TOGETHER, dtype=bool)
        for _ in range(rows):
            (row,) = drawn(rng, TOGETHER, seeds, seed_variance, 0.0)
            values, spread, common, own = parts(row - base)
            # Holm's smallest p is multiplied by the number of rows: when that one is not told apart, none is
            rejected |= np.abs(values.mean(axis=-1)) >= half_width(0.05 / rows, spread, common, own, seeds, IMAGES)
        wrong += int(rejected.sum())
    return wrong / (draws // TOGETHER * TOGETHER)


def after_looks(looks: tuple[int, ...], shares: bool, draws: int = DRAWS, seed: int = 2) -> float:
    """Return how often one of several looks, each with more seeds, tells a row from the truth that it equals."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for scores in drawn(rng, draws, max(looks), 20.0, 0.0):
        rejected = np.zeros(len(scores), dtype=bool)
        for look in looks:
            values, spread, common, own = parts(scores[:, :look])
            factor = at_look(1e-6, look, looks) or 0.0
            alpha = 0.05 * (1e-6 / factor if shares else 1.0)
            rejected |= np.abs(values.mean(axis=-1)) >= half_width(alpha, spread, common, own, look, IMAGES)
        wrong += int(rejected.sum())
    return wrong / draws


def main() -> None:
    """Print how often a true null hypothesis is rejected."""
    print("| seeds | variance of seeds | shared by images | " + " | ".join(f"at {alpha}" for alpha in ALPHAS) + " |")
    for seeds in (2, 3, 5, 10):
        for seed_variance in (0.0, 1.0, 5.0, 20.0):
            for common in (0.0, 1.0, 5.0):
                found = rejections(ALPHAS, 100_000, seeds=seeds, seed_variance=seed_variance, common=common)
                print(f"| {seeds} | {seed_variance:g} | {common:g} | " + " | ".join(f"{share:.5f}" for share in found) + " |")
    for seeds in (3, 5):
        print(f"Holm, six rows, {seeds} seeds, variance 5: {family_wise(seeds, 5.0, draws=100_000):.4f}")
    for variance in (5.0, 20.0):
        found = rejections((0.05,), 100_000, seeds=3, seed_variance=variance, common=0.0, of_seeds=collapses)
        print(f"one seed in five collapses, 3 seeds, variance {variance:g}: {found[0]:.4f}")
    for shares in (True, False):
        print(f"looks 3, 5, 10 {'with' if shares else 'without'} shares: {after_looks((3, 5, 10), shares, 100_000):.4f}")


if __name__ == "__main__":
    main()
