"""The low-shot probe against scikit-learn's RidgeCV, and its draws."""

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

from bench import metrics
from bench.probe import LowShot
from bench.probes.features import Features, Images, Outcome
from bench.probes.lowshot import low_shot as low_shot_of
from bench.probes.lowshot import ridge, sample

PENALTIES = (1e-4, 1e-2, 1.0, 100.0)
PROBE = LowShot(kind="lowshot", shots=(1, 2, 8), draws=2, penalties=PENALTIES)
CLASSES = ("a", "b", "c")


def low_shot(probe: LowShot, features: Features, seed: int, judged: tuple[bool, ...] = (True, True, True)) -> Outcome:
    return low_shot_of(probe, features, np.array(judged), seed)


def planted(shuffled: bool = False, width: int = 12, fit: int = 90) -> Features:
    """Three levels of which the second shows three classes; shuffled, it shows those of other images."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3, width))

    def images(count: int) -> Images:
        labels = (rng.uniform(size=(count, 3)) < 0.3).astype(np.int8)
        shown = rng.permutation(labels) if shuffled else labels
        levels = (
            rng.normal(size=(count, 5)),
            shown @ directions + 0.3 * rng.normal(size=(count, width)),
            directions[labels[:, 0]],
        )
        return Images(tuple(torch.from_numpy(level.astype(np.float32)) for level in levels), labels)

    return Features(images(fit - 30), images(30), images(150))


def relabelled(features: Features, c: int, value: int, kept: int = 0) -> Features:
    """Give a class one label in train and val, but for the first images of train."""
    parts = []
    for images in (features.train, features.val):
        labels = images.labels.copy()
        labels[kept if images is features.train else 0 :, c] = value
        parts.append(Images(images.levels, labels))
    return Features(*parts, features.test)


def images_of(outcome: Outcome, k: int, draw: int) -> NDArray:
    """Return the places of the images of a sample."""
    return sample([np.array(some, dtype=np.int64) for some in outcome.draws["positives"][str(draw)]], k)


def value(outcome: Outcome) -> float:
    return metrics.compute("map_lowshot", outcome.predictions, CLASSES, CLASSES)


@pytest.mark.parametrize("images, channels", [(30, 8), (12, 40), (8, 8)])
def test_a_regression_and_its_leave_one_out_error_are_those_of_scikit_learn(images: int, channels: int) -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(images, channels)) / np.sqrt(channels) + 0.2
    targets = np.where(np.arange(images)[:, None] < [max(1, images // 4), 3, 5], 1.0, -1.0)
    errors, weights, intercepts = ridge(torch.from_numpy(features), torch.from_numpy(targets), PENALTIES)
    for c in range(3):
        expected = RidgeCV(PENALTIES, store_cv_results=True).fit(features, targets[:, c])
        assert errors[c] == pytest.approx(expected.cv_results_.mean(axis=0).min(), rel=1e-8)
        np.testing.assert_allclose(weights[:, c], expected.coef_, rtol=1e-6, atol=1e-10)
        assert intercepts[c] == pytest.approx(expected.intercept_, rel=1e-8)


def test_the_leave_one_out_error_is_that_of_fits_without_the_image() -> None:
    rng = np.random.default_rng(2)
    features, targets = rng.normal(size=(15, 20)), np.where(np.arange(15) < 4, 1.0, -1.0)
    errors, _, _ = ridge(torch.from_numpy(features), torch.from_numpy(targets[:, None]), (0.5,))
    left_out = []
    for image in range(15):
        others = np.arange(15) != image
        fitted = Ridge(0.5).fit(features[others], targets[others])
        left_out.append(targets[image] - fitted.predict(features[image : image + 1])[0])
    assert errors[0] == pytest.approx(np.mean(np.square(left_out)))


def test_features_that_are_all_the_same_say_nothing() -> None:
    targets = torch.tensor([[1.0], [-1], [-1], [-1]], dtype=torch.float64)
    errors, weights, intercepts = ridge(torch.ones(4, 3, dtype=torch.float64), targets, PENALTIES)
    assert (weights == 0).all() and intercepts[0] == -0.5
    assert errors[0] == pytest.approx(np.mean(np.square([2, 2 / 3, 2 / 3, 2 / 3])))


def test_scores_levels_and_values_follow_from_scikit_learn() -> None:
    features = planted()
    found = low_shot(PROBE, features, seed=3)

    def of_level(level: int) -> tuple[NDArray, NDArray]:
        fit, test = (part.levels[level].double().numpy() for part in (features.fit, features.test))
        fit, test = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (fit, test))
        errors, scores = np.zeros((3, 2, 3)), np.zeros((len(test), 3, 2, 3))
        for shot, draw, c in np.ndindex(3, 2, 3):
            places = images_of(found, PROBE.shots[shot], draw)
            targets = 2.0 * features.fit.labels[places, c] - 1
            fitted = RidgeCV(PENALTIES, store_cv_results=True).fit(fit[places], targets)
            errors[shot, draw, c] = fitted.cv_results_.mean(axis=0).min()
            scores[:, shot, draw, c] = 1 / (1 + np.exp(-fitted.predict(test)))
        return errors, scores

    levels = [of_level(level) for level in range(3)]
    by_sample = np.stack([errors.mean(axis=2) for errors, _ in levels])
    chosen = by_sample.argmin(axis=0)
    assert found.chosen["levels"] == tuple((chosen + 1).ravel())
    assert found.chosen["level"] == np.bincount(chosen.ravel()).argmax() + 1
    expected = np.stack([levels[place][1][:, shot, draw] for (shot, draw), place in np.ndenumerate(chosen)], axis=1)
    np.testing.assert_allclose(found.predictions["shots"].reshape(150, 6, 3), expected, rtol=0, atol=1e-6)
    assert [one.val for one in found.tried] == pytest.approx(1 - by_sample.mean(axis=(1, 2)))


def test_a_sample_has_k_positives_a_class_and_lies_in_larger_samples() -> None:
    features = planted()
    found = low_shot(PROBE, features, seed=0)
    for draw, c in np.ndindex(2, 3):
        positives = found.draws["positives"][str(draw)][c]
        assert (features.fit.labels[positives, c] == 1).all() and len(set(positives)) == 8
    assert set(images_of(found, 2, 1)) < set(images_of(found, 8, 1))
    smaller = low_shot(PROBE.with_changes({"shots": (2,)}, ""), features, seed=0)
    assert images_of(smaller, 2, 1).tolist() == images_of(found, 2, 1).tolist()
    assert (smaller.predictions["shots"][:, 0, 1, 0] == found.predictions["shots"][:, 1, 1, 0]).all()
    assert json.loads(json.dumps(found.draws)) == found.draws


def test_a_class_that_is_not_judged_is_not_drawn_and_scores_one_half() -> None:
    found = low_shot(PROBE, planted(), 0, (True, False, True))
    assert found.draws["positives"]["0"][1] == [] and (found.predictions["shots"][..., 1] == 0.5).all()


def test_difficult_images_are_no_positives_of_the_class() -> None:
    features = planted()
    for images in (features.train, features.val):
        images.labels[::2, 1] = -1
    found = low_shot(PROBE, features, seed=0)
    drawn = [place for draw in "01" for place in found.draws["positives"][draw][1]]
    assert drawn and (features.fit.labels[drawn, 1] == 1).all()


def test_equal_seeds_give_equal_bits_on_any_number_of_threads_and_other_seeds_other_draws() -> None:
    one = low_shot(PROBE, planted(), seed=5)
    torch.set_num_threads(2)
    two = low_shot(PROBE, planted(), seed=5)
    assert torch.get_num_threads() == 2
    assert (one.predictions["shots"] == two.predictions["shots"]).all()
    assert (one.chosen, one.tried, one.draws) == (two.chosen, two.tried, two.draws)
    other = low_shot(PROBE, planted(), seed=6)
    assert other.draws != one.draws and (other.predictions["shots"] != one.predictions["shots"]).any()
    assert one.draws["positives"]["0"] != one.draws["positives"]["1"]


def test_draws_of_classes_with_the_same_labels_differ() -> None:
    features = planted()
    for images in (features.train, features.val):
        images.labels[:, 1] = images.labels[:, 0]
    draws = low_shot(PROBE, features, seed=0).draws
    assert draws["positives"]["0"][0] != draws["positives"]["0"][1]


def test_k_takes_all_images_of_a_class_that_has_fewer() -> None:
    features = relabelled(planted(), 0, 0, kept=12)
    count = int((features.fit.labels[:, 0] == 1).sum())
    found = low_shot(PROBE.with_changes({"shots": (count, count + 3)}, ""), features, seed=0)
    assert len(found.draws["positives"]["0"][0]) == count
    shots = found.predictions["shots"]
    assert np.isfinite(shots).all()
    assert (shots[:, 0, :, 0] != shots[:, 1, :, 0]).any()  # the larger k still adds negatives


@pytest.mark.parametrize("label", [0, 1, -1])
def test_a_class_without_positives_or_negatives_scores_one_half(label: int) -> None:
    features = relabelled(planted(), 2, label)
    found = low_shot(PROBE, features, seed=0)
    assert (found.predictions["shots"][..., 2] == 0.5).all()
    assert found.chosen["level"] == 2 and found.tried[0].val is not None
    for c in (0, 1):
        features = relabelled(features, c, label)
    nothing = low_shot(PROBE, features, seed=0)
    assert (nothing.predictions["shots"] == 0.5).all() and nothing.tried[0].val is None


def test_the_level_that_shows_the_classes_is_chosen_and_a_given_one_is_taken() -> None:
    found = low_shot(PROBE, planted(), seed=0)
    assert found.chosen["level"] == 2 and found.on_test == {"level": 2, "levels": (2,) * 6}
    assert value(found) > 0.8
    assert found.predictions["shots"].shape == (150, 3, 2, 3) and found.predictions["shots"].dtype == np.float32
    best = metrics.compute("map_lowshot", found.predictions_on_test, CLASSES, CLASSES)
    assert [one.test for one in found.tried][1] == max(one.test or 0 for one in found.tried) == pytest.approx(best)
    given = low_shot(PROBE.with_changes({"level": 1}, ""), planted(), seed=0)
    assert given.chosen == {"level": 1, "levels": (1,) * 6} and given.on_test == given.chosen
    assert value(given) == pytest.approx(found.tried[0].test)


def test_more_labelled_images_help() -> None:
    shots = low_shot(PROBE.with_changes({"level": 2}, ""), planted(), seed=0).predictions["shots"]
    labels = planted().test.labels
    values = [np.mean([metrics.map_lowshot(shots[:, shot, :, c], labels[:, c]) for c in range(3)]) for shot in range(3)]
    assert values[0] < values[1] < values[2]


def test_shuffled_features_score_near_the_prior() -> None:
    features = planted(shuffled=True, fit=200)
    found = low_shot(PROBE.with_changes({"level": 2, "draws": 10}, ""), features, seed=0)
    assert value(found) == pytest.approx(features.test.labels.mean(), abs=0.06)


def test_features_of_length_0_are_no_error() -> None:
    features = planted()
    for images in (features.train, features.test):
        images.levels[1][::4] = 0
    assert np.isfinite(low_shot(PROBE, features, seed=0).predictions["shots"]).all()
