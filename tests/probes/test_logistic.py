import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from bench import metrics
from bench.probe import make
from bench.probes.features import Features, Images, standardised
from bench.probes.lbfgs import minimise
from bench.probes.logistic import binary, linear, multinomial

PENALTIES = (1.0, 10.0, 1000.0)


def judge(scores: NDArray[np.float32], labels: NDArray[np.int8]) -> float:
    names = tuple(map(str, range(labels.shape[1])))
    return metrics.compute("map_voc", {"scores": scores, "labels": labels}, names, names)


def problem(count: int = 300, width: int = 12, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, NDArray[np.int8]]:
    """Return correlated features of very different sizes, and labels that depend on them, a few of which are difficult."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, width)) @ random.normal(size=(width, width)) * np.logspace(0, 2, width) + 5
    directions = np.random.default_rng(1).normal(size=(width, classes)) / np.logspace(0, 2, width)[:, None]
    logits = (features - features.mean(axis=0)) @ directions
    labels = (logits + random.normal(size=logits.shape) > 1).astype(np.int8)
    labels[random.random(labels.shape) < 0.03] = -1
    return torch.from_numpy(features.astype(np.float32)), labels


def split(seed: int, level: int, levels: int = 3) -> Images:
    """Return images whose labels depend on the features of one level alone."""
    features, labels = problem(seed=seed)
    noise = torch.from_numpy(np.random.default_rng(seed + 7).normal(size=features.shape).astype(np.float32))
    return Images(tuple(features if place == level else noise for place in range(1, levels + 1)), labels)


def test_equals_scikit_learn_at_every_penalty() -> None:
    raw, labels = problem()
    (features,) = standardised(raw)
    found = binary(features, labels, PENALTIES)
    for number, penalty in enumerate(PENALTIES):
        for c in range(labels.shape[1]):
            judged = labels[:, c] != -1
            theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
            theirs.fit(features[judged].double().numpy(), labels[judged, c] == 1)
            ours = torch.sigmoid(found.logits(features)[number, :, c]).numpy()
            np.testing.assert_allclose(ours, theirs.predict_proba(features.double().numpy())[:, 1], atol=1e-3)


def test_a_class_without_positives_is_scored_alike_everywhere() -> None:
    features, labels = problem()
    labels[:, 1] = np.minimum(labels[:, 1], 0)
    scores = torch.sigmoid(binary(*standardised(features), labels, PENALTIES).logits(features))[:, :, 1]
    assert torch.isfinite(scores).all() and float(scores.max()) < 1e-3 and len(scores.unique()) == 1


def test_more_channels_than_images_equal_scikit_learn() -> None:
    features = torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    labels = (features[:, :2] > 0).numpy().astype(np.int8)
    ours = torch.sigmoid(binary(features, labels, (1.0,)).logits(features)[0]).numpy()
    for c in range(2):
        theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(features.double().numpy(), labels[:, c])
        np.testing.assert_allclose(ours[:, c], theirs.predict_proba(features.double().numpy())[:, 1], atol=1e-3)


def test_several_classes_equal_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 4, (500,), generator=generator)
    features = torch.randn(500, 10, generator=generator) + 1.5 * torch.nn.functional.one_hot(truth, 10)
    ours = multinomial(features.double(), torch.nn.functional.one_hot(truth).double(), (1.0, 50.0), tolerance=1e-10)
    for number, penalty in enumerate((1.0, 50.0)):
        theirs = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000).fit(features.double().numpy(), truth.numpy())
        found = torch.softmax(ours.logits(features.double())[number], dim=1).numpy()
        np.testing.assert_allclose(found, theirs.predict_proba(features.double().numpy()), atol=1e-4)


def test_a_place_of_two_classes_counts_as_both_by_their_shares() -> None:
    features, generator = torch.randn(60, 4), torch.Generator().manual_seed(0)
    shares = torch.rand(60, 3, generator=generator)
    whole = multinomial(features, shares, (1.0,))
    repeated = torch.cat([features] * 3)
    parts = torch.cat([shares * torch.nn.functional.one_hot(torch.tensor(k), 3) for k in range(3)])
    torch.testing.assert_close(multinomial(repeated, parts, (1.0,)).logits(features), whole.logits(features), atol=2e-2, rtol=0)


def test_the_level_that_holds_the_labels_is_chosen() -> None:
    features = Features(split(0, 2), split(1, 2), split(2, 2))
    outcome = linear(make("linear", {}), features, judge)
    assert outcome.chosen["level"] == 2 and judge(outcome.predictions["scores"], features.test.labels) > 0.8


def test_shuffled_labels_are_at_the_prior() -> None:
    images = [split(seed, 2) for seed in range(3)]
    shuffled = [Images(one.levels, np.random.default_rng(0).permutation(one.labels)) for one in images]
    outcome = linear(make("linear", {}), Features(*shuffled), judge)
    share = (shuffled[2].labels == 1).mean()
    assert judge(outcome.predictions["scores"], shuffled[2].labels) < share + 0.1


def test_what_test_would_choose_is_the_best_candidate_there() -> None:
    outcome = linear(make("linear", {"penalties": [1, 1e5]}), Features(split(0, 2), split(1, 2), split(2, 2)), judge)
    values = {tuple(one.choice.values()): one.test for one in outcome.tried}
    assert values[tuple(outcome.on_test.values())] == max(values.values())  # type: ignore[type-var]
    assert len(outcome.tried) == 6


def test_a_given_level_is_the_only_candidate() -> None:
    outcome = linear(make("linear", {"level": 3}), Features(split(0, 2), split(1, 2), split(2, 2)), judge)
    assert {one.choice["level"] for one in outcome.tried} == {3}


@pytest.mark.parametrize("penalty", [1.0, 1e5])
def test_problems_do_not_influence_each_other(penalty: float) -> None:
    (features,), labels = standardised(problem()[0]), problem()[1]
    together = binary(features, labels, PENALTIES + (1e5,))
    alone = binary(features, labels, (penalty,))
    place = (PENALTIES + (1e5,)).index(penalty)
    torch.testing.assert_close(together.weights[place], alone.weights[0], atol=2e-4, rtol=1e-2)


def test_dead_features_give_every_place_the_shares_of_classes() -> None:
    shares = torch.tensor([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])
    found = multinomial(torch.zeros(4, 3), shares, (1.0, 10.0))
    expected = torch.tensor([0.875, 0.125]).expand(2, 4, 2)
    torch.testing.assert_close(torch.softmax(found.logits(torch.zeros(4, 3)), dim=2), expected, atol=1e-3, rtol=0)


def test_a_problem_that_no_step_improves_ends_and_holds_up_no_other() -> None:
    calls: list[list[int]] = []

    def evaluate(points: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(numbers.tolist())
        values = (points - 3).square().sum(dim=1) + torch.tensor([0.0, 1e9])[numbers]
        gradients = 2 * (points - 3)
        stuck = numbers == 1  # its gradient leads uphill, as rounding may make it
        return values, torch.where(stuck[:, None], -1e6 * gradients, gradients)

    found = minimise(evaluate, torch.zeros(2, 1), torch.tensor([[1e-2], [1.0]]), 1e-12)
    assert abs(float(found[0]) - 3) < 1e-3 and float(found[1]) == 0
    assert sum(1 in numbers for numbers in calls) <= 12 and calls[-1] == [0]
