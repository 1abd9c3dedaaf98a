"""Intervals cover what they say, tests reject as often as they say, and both agree with scipy where scipy has the test."""

import doctest
import math

import numpy as np
import pytest
from scipy import stats

from results import resampling, statistics

REPETITIONS, PICTURES, RESAMPLES = 500, 150, 400


def drawn(rng: np.random.Generator, seeds: int, seed_share: float, mixed_share: float) -> np.ndarray:
    """Draw scores (seeds, pictures) whose mean has variance 1 around 0: parts from seeds, pictures, and both together."""
    picture_share = 1 - seed_share - mixed_share
    of_seed = rng.normal(0, math.sqrt(seed_share * seeds), (seeds, 1))
    of_picture = rng.normal(0, math.sqrt(picture_share * PICTURES), (1, PICTURES))
    return of_seed + of_picture + rng.normal(0, math.sqrt(mixed_share * PICTURES * seeds), (seeds, PICTURES))


def resampled(rng: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    weights = rng.multinomial(PICTURES, np.full(PICTURES, 1 / PICTURES), size=RESAMPLES)
    return scores @ weights.T / PICTURES


def plain_bootstrap(rng: np.random.Generator, replicates: np.ndarray) -> tuple[float, float]:
    """Resample the seeds as well, and take percentiles."""
    seeds = len(replicates)
    chosen = rng.integers(0, seeds, (replicates.shape[1], seeds))
    means = replicates[chosen.T, np.arange(replicates.shape[1])].mean(axis=0)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


@pytest.mark.parametrize(
    ("seeds", "seed_share", "mixed_share"),
    [(1, 0.0, 0.0), (3, 0.0, 0.0), (3, 0.3, 0.3), (3, 0.5, 0.2), (3, 1.0, 0.0), (5, 0.3, 0.0), (5, 0.5, 0.25), (5, 0.9, 0.0)],
)
def test_95_percent_intervals_cover_the_truth_and_tests_reject_5_percent(
    seeds: int, seed_share: float, mixed_share: float
) -> None:
    rng = np.random.default_rng(20)
    covered, rejected = 0, 0
    for _ in range(REPETITIONS):
        scores = drawn(rng, seeds, seed_share, mixed_share)
        found = statistics.estimate(scores.mean(axis=1).tolist(), resampled(rng, scores))
        covered += found.low <= 0 <= found.high
        rejected += found.p is not None and found.p < 0.05
    assert 0.92 <= covered / REPETITIONS <= 0.97
    if seeds > 1:
        assert 0.03 <= rejected / REPETITIONS <= 0.07
        assert rejected == REPETITIONS - covered


def test_a_plain_hierarchical_bootstrap_of_three_seeds_would_not_cover() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(REPETITIONS):
        low, high = plain_bootstrap(rng, resampled(rng, drawn(rng, 3, 0.9, 0.0)))
        inside += low <= 0 <= high
    assert inside / REPETITIONS < 0.85


def test_paired_differences_of_mean_iou_reject_as_often_as_they_say() -> None:
    """Two methods that are equally good on average, on simulated confusion matrices, three seeds each."""
    rng = np.random.default_rng(3)
    classes = ("a", "b")
    rejected = 0
    for _ in range(REPETITIONS):
        difficulty = rng.beta(8, 3, (100, 1))
        values, replicates = [], []
        weights = next(resampling.counts(100, RESAMPLES, str(rng.integers(1 << 60))))
        for _ in range(3):
            pair = []
            for _ in range(2):
                skill = np.clip(difficulty + rng.normal(0, 0.04) + rng.normal(0, 0.08, (100, 3)), 0, 1)
                right = rng.binomial(200, skill)
                confusion = np.zeros((100, 4, 3), dtype=np.int32)
                for c in range(3):
                    confusion[:, c, c] = right[:, c]
                    confusion[:, c, (c + 1) % 3] = 200 - right[:, c]
                function = resampling.resampler("miou_voc", {"confusion": confusion}, classes, classes)
                pair.append((float(function(np.ones((1, 100)))[0]), function(weights)))
            values.append(pair[0][0] - pair[1][0])
            replicates.append(pair[0][1] - pair[1][1])
        found = statistics.estimate(values, np.stack(replicates))
        rejected += found.p is not None and found.p < 0.05
    assert 0.03 <= rejected / REPETITIONS <= 0.07


def test_with_equal_pictures_it_is_scipys_t_test() -> None:
    differences = [0.02, 0.05, 0.01, 0.04]
    found = statistics.estimate(differences, np.tile(np.array(differences)[:, None], (1, 50)))
    expected = stats.ttest_1samp(differences, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_with_one_seed_it_is_scipys_percentile_bootstrap() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.uniform(size=300) < 0.3).astype(float)
    weights = np.concatenate(list(resampling.counts(300, 10_000, "x")))
    found = statistics.estimate([float(hits.mean())], (weights @ hits / 300)[None])
    expected = stats.bootstrap((hits,), np.mean, n_resamples=10_000, method="percentile", rng=rng).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert found.p is None


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero() -> None:
    rng = np.random.default_rng(5)
    replicates = rng.normal(0, 0.02, (1, 1000)) + np.array([[0.03], [0.06], [0.05]])
    values = [0.03, 0.06, 0.05]
    p = statistics.estimate(values, replicates).p
    assert p is not None and 0 < p < 1
    touching = statistics.estimate(values, replicates, level=1 - p)
    assert touching.low == pytest.approx(0, abs=1e-9)


def test_holm_is_bonferroni_step_by_step() -> None:
    values = [0.001, 0.2, 0.012, 0.04]
    by_hand = {0.001: 0.004, 0.012: 0.036, 0.04: 0.08, 0.2: 0.2}
    assert statistics.holm(values) == pytest.approx([by_hand[value] for value in values])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []
    assert doctest.testmod(statistics).failed == 0


def test_resamples_where_nothing_can_be_judged_are_left_out() -> None:
    replicates = np.array([[0.5, np.nan, 0.6, 0.7]])
    found = statistics.estimate([0.6], replicates)
    assert 0.5 <= found.low <= found.high <= 0.7
    assert math.isnan(statistics.estimate([0.6], np.full((1, 4), np.nan)).low)
