"""Intervals cover what they echo, tests reject as often as they echo, and both agree with scipy where scipy has the test."""

import doctest
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from results import resampling, statistics
from tests.results import operating

pytestmark = pytest.mark.integration

REPETITIONS, IMAGES, RESAMPLES = 500, 150, 400


def drawn(rng: np.random.Generator, seeds: int, seed_share: float, mixed_share: float) -> np.ndarray:
    """Draw scores (seeds, images) whose mean has variance 1 around 0: parts from seeds, images, and both together."""
    image_share = 1 - seed_share - mixed_share
    of_seed = rng.normal(0, math.sqrt(seed_share * seeds), (seeds, 1))
    of_images = rng.normal(0, math.sqrt(image_share * IMAGES), (1, IMAGES))
    return of_seed + of_images + rng.normal(0, math.sqrt(mixed_share * IMAGES * seeds), (seeds, IMAGES))


def resampled(rng: np.random.Generator, scores: np.ndarray) -> np.ndarray:
    weights = rng.multinomial(IMAGES, np.full(IMAGES, 1 / IMAGES), size=RESAMPLES)
    return scores @ weights.T / IMAGES


def plain_bootstrap(rng: np.random.Generator, replicates: np.ndarray) -> tuple[float, float]:
    """Resample the seeds as well, and take percentiles."""
    seeds = len(replicates)
    chosen = rng.integers(0, seeds, (replicates.shape[1], seeds))
    means = replicates[chosen.T, np.arange(replicates.shape[1])].mean(axis=0)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


SHARES = [(3, 0.0, 0.0), (3, 0.3, 0.3), (3, 0.5, 0.2), (3, 1.0, 0.0), (5, 0.3, 0.0), (5, 0.5, 0.25), (5, 0.9, 0.0)]


@pytest.mark.parametrize(("seeds", "seed_share", "mixed_share"), [(1, 0.0, 0.0), *SHARES])
def test_95_percent_intervals_cover_the_truth_and_tests_reject_5_percent_at_most(
    seeds: int, seed_share: float, mixed_share: float
) -> None:
    rng = np.random.default_rng(20)
    covered, rejected = 0, 0
    for _ in range(REPETITIONS):
        scores = drawn(rng, seeds, seed_share, mixed_share)
        found = statistics.estimate(scores.mean(axis=1).tolist(), resampled(rng, scores), IMAGES)
        covered += found.low <= 0 <= found.high
        rejected += found.p is not None and found.p < 0.05
        assert found.low <= found.value <= found.high
    assert covered / REPETITIONS >= 0.92
    if seeds > 1:
        assert rejected == REPETITIONS - covered


SEED_VARIANCES, COMMON = (0.0, 1.0, 5.0, 20.0), (0.0, 1.0, 5.0)
BOUNDS = {0.05: 0.060, 0.0025: 0.006, 0.001: 0.003}


@pytest.mark.parametrize("noise", [operating.normal, operating.heavy], ids=["normal", "heavy tails"])
@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_true_null_hypothesis_is_rejected_no_more_often_than_it_says_in_the_tail_too(
    seeds: int, noise: operating.Noise
) -> None:
    for seed_variance, common in itertools.product(SEED_VARIANCES, COMMON):
        regime = {"seeds": seeds, "seed_variance": seed_variance, "common": common, "of_images": noise, "of_seeds": noise}
        found = operating.rejections(tuple(BOUNDS), **regime)
        for share, (alpha, bound) in zip(found, BOUNDS.items(), strict=True):
            assert share <= bound, (regime, alpha)


def test_the_clamp_of_before_rejected_far_too_often() -> None:
    """What the program of before did where three seeds agree: no part from the seeds, and a normal quantile over the images."""
    rng = np.random.default_rng(0)
    wrong, count = 0, 0
    for scores in operating.drawn(rng, operating.DRAWS, 3, 5.0, 0.0):
        values, spread, common, own = operating.parts(scores)
        mixed = own - common
        of_seeds = np.maximum(0.0, spread - mixed) / 3
        half = np.sqrt(stats.norm.ppf(0.9995) ** 2 * (common + mixed / 3) + stats.t.ppf(0.9995, 2) ** 2 * of_seeds)
        wrong, count = wrong + int((np.abs(values.mean(axis=-1)) >= half).sum()), count + len(scores)
    assert wrong / count > 0.02  # at a nominal 0.001, of which the new one rejects at most 0.003


def test_one_seed_in_five_that_collapses_is_survived() -> None:
    """No method sees the collapse that did not happen: with three seeds there is none in half of the cases."""
    (found,) = operating.rejections((0.05,), seeds=3, seed_variance=5.0, common=0.0, of_seeds=operating.collapses)
    assert found <= 0.11


@pytest.mark.parametrize("seeds", [3, 5])
def test_holm_keeps_the_family_wise_error_of_six_rows(seeds: int) -> None:
    assert operating.family_wise(seeds, 5.0) <= 0.06


def test_declared_looks_cost_no_more_than_one_and_undeclared_ones_do() -> None:
    assert operating.after_looks((3, 5, 10), shares=True, draws=20_000) <= 0.055
    assert operating.after_looks((3, 5, 10), shares=False, draws=20_000) > 0.09
    shares = [0.01 / (statistics.at_look(0.01, seeds, (3, 5, 10)) or math.nan) for seeds in (5, 10)]
    assert sum(shares) + 3**3 / 10**3 == pytest.approx(1)
    assert statistics.at_look(0.9, 3, (3, 5)) == 1.0 and statistics.at_look(0.2, 4, ()) == 0.2
    assert statistics.at_look(0.01, 4, (3, 5)) is statistics.at_look(0.01, 6, (3, 5)) is None


def test_an_interval_is_no_shorter_than_the_bootstraps_and_than_students() -> None:
    rng = np.random.default_rng(6)
    for seeds, seed_variance, common in itertools.product((2, 3, 5), SEED_VARIANCES, COMMON):
        (scores,) = operating.drawn(rng, 200, seeds, seed_variance, common)
        values, spread, shared, own = operating.parts(scores)
        half = statistics.half_width(0.05, spread, shared, own, seeds, operating.IMAGES)
        of_bootstrap = (scores.mean(axis=1) - values.mean(axis=1)[:, None]).var(axis=-1) / operating.IMAGES
        normal = stats.t.ppf(0.975, operating.IMAGES - 1)
        student = stats.t.ppf(0.975, seeds - 1)
        assert (half >= normal * np.sqrt(of_bootstrap) - 1e-9).all()
        assert (half >= student * np.sqrt(spread / seeds) - 1e-9).all()


def test_the_covariance_of_resamples_is_that_of_the_images() -> None:
    """`operating` takes the limit of many resamples; the program draws 10,000."""
    rng = np.random.default_rng(7)
    ((scores,),) = operating.drawn(rng, 1, 3, 5.0, 1.0)
    weights = np.concatenate(list(resampling.counts(operating.IMAGES, 10_000, "x")))
    found = statistics.estimate(scores.mean(axis=1).tolist(), scores @ weights.T / operating.IMAGES, operating.IMAGES)
    _, _, common, own = operating.parts(scores[None])
    assert (found.common, found.own) == pytest.approx((common[0], own[0]), rel=0.1)


def test_one_seeds_interval_of_rare_classes_holds_its_value_and_the_expected_map() -> None:
    """Resampled average precision is larger than average precision, by two points here: percentiles lie too high."""
    rng = np.random.default_rng(8)
    images, draws, names = 450, 1200, tuple(f"c{n}" for n in range(20))
    shares = np.linspace(0.01, 0.04, len(names))
    values, lows, highs, percentiles = [], [], [], []
    for draw in range(draws):
        labels = (rng.uniform(size=(images, len(names))) < shares).astype(np.int8)
        scores = (rng.normal(size=labels.shape) + 1.0 * labels).astype(np.float32)
        function = resampling.resampler("map_voc", {"scores": scores, "labels": labels}, names, names)
        value = float(function(np.ones((1, images)))[0])
        replicates = np.concatenate([function(weights) for weights in resampling.counts(images, 100, str(draw))])
        found = statistics.estimate([value], replicates[None], images)
        values.append(value)
        lows.append(found.low)
        highs.append(found.high)
        percentiles.append(np.quantile(replicates, [0.025, 0.975]))
    expected = float(np.mean(values))
    assert all(low < value < high for low, value, high in zip(lows, values, highs, strict=True))
    covered, before = (
        np.mean([low <= expected <= high for low, high in pairs]) for pairs in (zip(lows, highs, strict=True), percentiles)
    )
    assert covered >= 0.91 > 0.85 > before


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
        found = statistics.estimate(values, np.stack(replicates), 100)
        rejected += found.p is not None and found.p < 0.05
    assert rejected / REPETITIONS <= 0.07


def test_with_equal_images_it_is_scipys_t_test() -> None:
    differences = [0.02, 0.05, 0.01, 0.04]
    found = statistics.estimate(differences, np.tile(np.array(differences)[:, None], (1, 50)), 300)
    expected = stats.ttest_1samp(differences, 0.0)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_with_one_seed_it_is_the_value_and_1_96_standard_errors() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.uniform(size=300) < 0.3).astype(float)
    weights = np.concatenate(list(resampling.counts(300, 10_000, "x")))
    found = statistics.estimate([float(hits.mean())], (weights @ hits / 300)[None], 300)
    error = stats.bootstrap((hits,), np.mean, n_resamples=10_000, rng=rng).standard_error
    assert (found.low, found.high) == pytest.approx((hits.mean() - 1.96 * error, hits.mean() + 1.96 * error), abs=0.002)
    assert found.p is None


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero() -> None:
    rng = np.random.default_rng(5)
    replicates = rng.normal(0, 0.02, (1, 1000)) + np.array([[0.03], [0.06], [0.05]])
    values = [0.03, 0.06, 0.05]
    p = statistics.estimate(values, replicates, 200).p
    assert p is not None and 0 < p < 1
    touching = statistics.estimate(values, replicates, 200, level=1 - p)
    assert touching.low == pytest.approx(0, abs=1e-9)


def test_holm_is_bonferroni_step_by_step() -> None:
    values = [0.001, 0.2, 0.012, 0.04]
    by_hand = {0.001: 0.004, 0.012: 0.036, 0.04: 0.08, 0.2: 0.2}
    assert statistics.holm(values) == pytest.approx([by_hand[value] for value in values])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0] and statistics.holm([]) == []
    assert doctest.testmod(statistics).failed == 0


def test_without_images_enough_or_resamples_that_are_defined_there_is_no_interval() -> None:
    for values, replicates, images in (
        ([0.2, 0.3], [[0.2, 0.2], [0.3, 0.3]], 1),
        ([0.2], [[0.2, 0.2]], 1),
        ([0.2, 0.3], [[np.nan] * 6 + [0.2] * 4, [0.3] * 10], 10),
        ([0.2, 0.3], [[np.inf] * 6 + [0.2] * 4, [0.3] * 10], 10),
    ):
        found = statistics.estimate(values, np.array(replicates), images)
        assert math.isnan(found.low) and math.isnan(found.high) and found.p is None


def test_seeds_that_are_resampled_against_each_other_count_what_is_their_own() -> None:
    """A negative covariance is no part that all seeds share, and is not lost: m = own - common."""
    common, own = statistics.image_variances(np.array([[1.0, -0.4], [-0.4, 1.0]]))
    assert (float(common), float(own)) == pytest.approx((0.0, 1.4))
    half = statistics.half_width(0.05, 0.0, common, own, 2, 100)
    assert half == pytest.approx(stats.t.ppf(0.975, 99) * math.sqrt(1.4 / 2))


def test_resamples_where_nothing_can_be_judged_are_left_out() -> None:
    replicates = np.array([[0.5, np.nan, 0.6, 0.7]])
    found = statistics.estimate([0.6], replicates, 4)
    assert (found.low, found.high) == pytest.approx((0.6 - 0.196, 0.6 + 0.196), abs=1e-4)
    assert math.isnan(statistics.estimate([0.6], np.full((1, 4), np.nan), 4).low)
