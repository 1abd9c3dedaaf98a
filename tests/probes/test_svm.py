"""The SVM probe against scikit-learn, called as VISSL does."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from bench import metrics
from bench.probe import Svm
from bench.probes import svm as module
from bench.probes.features import Features, Images, Labels, Scores
from bench.probes.svm import svm

COSTS = (0.1, 1.0, 10.0)
PROBE = Svm(kind="svm", costs=COSTS)


def mean_average_precision(scores: Scores, labels: Labels) -> float:
    found = [metrics.average_precision(scores[:, c], labels[:, c]) for c in range(labels.shape[1])]
    return math.nan if np.isnan(found).all() else float(np.nanmean(found))


def planted(counts: tuple[int, int, int] = (60, 30, 120), width: int = 8, shuffled: bool = False) -> Features:
    """Two levels of which the second shows three classes; shuffled, it shows those of other images."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(3, width))

    def images(count: int) -> Images:
        labels = (rng.uniform(size=(count, 3)) < 0.3).astype(np.int8)
        shown = rng.permutation(labels) if shuffled else labels
        levels = (rng.normal(size=(count, width)), shown @ directions + 0.7 * rng.normal(size=(count, width)) + 1)
        return Images(tuple(torch.from_numpy(level.astype(np.float32)) for level in levels), labels)

    return Features(*map(images, counts))


def with_labels(features: Features, c: int, change: dict[int, int]) -> Features:
    """Change the labels of a class in train and val: those in `change` become its values."""
    parts = []
    for images in (features.train, features.val):
        labels = images.labels.copy()
        labels[:, c] = [change.get(int(label), label) for label in labels[:, c]]
        parts.append(Images(images.levels, labels))
    return Features(*parts, features.test)


def as_vissl_does(features: Features, level: int) -> tuple[NDArray, NDArray]:
    """Return cross-validated AP (C, costs) and the decision values of the test images (C, costs, N) at a level."""

    def normalized(images: Images) -> NDArray:
        values = images.levels[level - 1].numpy().astype(np.float64)
        return values / (np.linalg.norm(values, axis=1) + 1e-5)[:, np.newaxis]

    values, decisions = [], []
    for c in range(features.fit.labels.shape[1]):
        target = features.fit.labels[:, c].astype(np.int32)
        target[target == 0] = -1
        for cost in COSTS:
            machine = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual="auto", max_iter=2000, random_state=0)
            folds = cross_val_score(machine, normalized(features.fit), target, cv=3, scoring="average_precision")
            values.append(folds.mean())
            decisions.append(machine.fit(normalized(features.fit), target).decision_function(normalized(features.test)))
    return np.reshape(values, (-1, len(COSTS))), np.reshape(decisions, (-1, len(COSTS), len(features.test)))


@pytest.mark.parametrize("counts, width", [((60, 30, 120), 8), ((20, 15, 60), 50)], ids=["primal", "dual"])
def test_costs_and_scores_are_those_of_scikit_learn_called_as_vissl_does(counts: tuple[int, int, int], width: int) -> None:
    features = planted(counts, width)
    found = svm(PROBE.with_changes({"level": 2}, ""), features, mean_average_precision)
    values, decisions = as_vissl_does(features, 2)
    chosen = values.argmax(axis=1)
    assert found.chosen == {"level": 2, "costs": tuple(COSTS[place] for place in chosen)}
    expected = 1 / (1 + np.exp(-decisions[np.arange(3), chosen]))
    np.testing.assert_allclose(found.predictions["scores"], expected.T, rtol=0, atol=1e-7)
    assert [one.val for one in found.tried] == pytest.approx(values.mean(axis=0), abs=1e-12)


def test_what_the_test_split_would_choose_is_kept_apart() -> None:
    features = planted()
    found = svm(PROBE.with_changes({"level": 2}, ""), features, mean_average_precision)
    _, decisions = as_vissl_does(features, 2)
    of_test = np.array([[metrics.average_precision(d, features.test.labels[:, c]) for d in decisions[c]] for c in range(3)])
    assert found.on_test == {"level": 2, "costs": tuple(COSTS[place] for place in of_test.argmax(axis=1))}
    value = mean_average_precision(found.predictions_on_test["scores"], features.test.labels)
    assert value == pytest.approx(of_test.max(axis=1).mean())
    assert [one.test for one in found.tried] == pytest.approx(of_test.mean(axis=0))
    assert [one.choice for one in found.tried] == [{"level": 2, "cost": cost} for cost in COSTS]


def test_images_where_a_class_is_difficult_are_left_out_of_its_training() -> None:
    features = planted()
    parts, kept = [], []
    for images in (features.train, features.val):
        labels = images.labels.copy()
        labels[::3, 0] = -1
        parts.append(Images(images.levels, labels))
        without = labels[:, 0] != -1
        kept.append(Images(tuple(level[torch.from_numpy(without)] for level in images.levels), labels[without]))
    probe = PROBE.with_changes({"level": 2}, "")
    found = svm(probe, Features(*parts, features.test), mean_average_precision)
    expected = svm(probe, Features(*kept, features.test), mean_average_precision)
    as_negatives = svm(probe, with_labels(Features(*parts, features.test), 0, {-1: 0}), mean_average_precision)
    assert (found.predictions["scores"][:, 0] == expected.predictions["scores"][:, 0]).all()
    assert found.chosen["costs"][0] == expected.chosen["costs"][0]
    assert (found.predictions["scores"][:, 0] != as_negatives.predictions["scores"][:, 0]).any()


def test_a_class_that_cannot_be_cross_validated_takes_the_cost_nearest_to_1() -> None:
    features = planted()
    labels = [np.copy(images.labels) for images in (features.train, features.val)]
    for part in labels:
        part[:, 1] = 0
        part[0, 1] = 1  # one in each split: two positives for three folds
    rare = Features(Images(features.train.levels, labels[0]), Images(features.val.levels, labels[1]), features.test)
    found = svm(Svm(kind="svm", costs=(0.01, 2, 10), level=2), rare, mean_average_precision)
    assert found.chosen["costs"][1] == 2
    assert len(np.unique(found.predictions["scores"][:, 1])) > 100


@pytest.mark.parametrize("value", [0, 1])
def test_a_class_with_labels_of_one_kind_has_its_share_as_the_score(value: int) -> None:
    found = svm(PROBE, with_labels(planted(), 2, {0: value, 1: value}), mean_average_precision)
    assert (found.predictions["scores"][:, 2] == value).all()
    assert found.chosen["costs"][2] == 1
    assert found.tried[0].val is not None


def test_labels_of_one_kind_in_every_class_give_no_value_and_no_error() -> None:
    features = planted()
    for c in range(3):
        features = with_labels(features, c, {1: 0, 0: -1})
    found = svm(PROBE, features, mean_average_precision)
    assert (found.predictions["scores"] == 0).all()
    assert {one.val for one in found.tried} == {None}


def test_the_level_that_shows_the_classes_is_chosen_and_a_given_one_is_taken() -> None:
    found = svm(PROBE, planted(), mean_average_precision)
    assert found.chosen["level"] == 2
    assert mean_average_precision(found.predictions["scores"], found.predictions["labels"]) > 0.8
    given = svm(PROBE.with_changes({"level": 1}, ""), planted(), mean_average_precision)
    assert {given.chosen["level"], given.on_test["level"], *(one.choice["level"] for one in given.tried)} == {1}


def test_the_level_is_chosen_on_val_by_machines_that_saw_train_alone() -> None:
    features = planted()
    judged = []

    def judge(scores: Scores, labels: Labels) -> float:
        judged.append(scores)
        return mean_average_precision(scores, labels)

    svm(PROBE, features, judge)
    train, val = (images.levels[1].double().numpy() for images in (features.train, features.val))
    train, val = (values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-5) for values in (train, val))
    machine = LinearSVC(C=1, class_weight={1: 2, 0: 1}, dual="auto", random_state=0).fit(train, features.train.labels[:, 0])
    np.testing.assert_allclose(judged[1][:, 0], 1 / (1 + np.exp(-machine.decision_function(val))), atol=1e-6)


def test_shuffled_features_score_near_the_prior() -> None:
    features = planted(counts=(200, 100, 400), shuffled=True)
    found = svm(PROBE, features, mean_average_precision)
    value = mean_average_precision(found.predictions["scores"], features.test.labels)
    assert value == pytest.approx(features.test.labels.mean(), abs=0.06)


@pytest.mark.parametrize("counts, width", [((60, 30, 40), 8), ((20, 15, 60), 50)], ids=["primal", "dual"])
def test_the_number_of_threads_changes_no_bit(counts: tuple[int, int, int], width: int) -> None:
    features = planted(counts, width)
    one = svm(PROBE, features, mean_average_precision)
    torch.set_num_threads(2)
    two = svm(PROBE, features, mean_average_precision)
    assert (one.predictions["scores"] == two.predictions["scores"]).all()
    assert (one.chosen, one.tried, one.on_test) == (two.chosen, two.tried, two.on_test)


@pytest.mark.parametrize("counts, width, expected", [((60, 30, 40), 8, 2), ((20, 15, 60), 50, 1)], ids=["primal", "dual"])
def test_the_dual_solver_whose_random_state_threads_share_runs_on_one(
    counts: tuple[int, int, int], width: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def pool(threads: int) -> ThreadPoolExecutor:
        asked.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr(module, "ThreadPoolExecutor", pool)
    torch.set_num_threads(2)
    svm(PROBE, planted(counts, width), mean_average_precision)
    assert asked == [expected] * 3  # two levels on train, and the costs


def test_what_liblinear_says_of_its_convergence_is_not_shown() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        svm(PROBE.with_changes({"max_iter": 1}, ""), planted((20, 15, 60), 50), mean_average_precision)


def test_classes_that_are_not_wanted_are_not_fitted_and_change_no_other() -> None:
    features = planted()
    wanted = np.array([True] + [False] * (features.test.labels.shape[1] - 1))
    whole, some = (svm(PROBE, one, mean_average_precision) for one in (features, features.of_classes(wanted)))
    np.testing.assert_array_equal(some.predictions["scores"][:, 0], whole.predictions["scores"][:, 0])
    assert (some.predictions["scores"][:, 1:] == 0).all()
