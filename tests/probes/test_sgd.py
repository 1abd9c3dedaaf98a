"""Linear heads trained at many rates at once against heads trained alone by torch's own SGD and schedule."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import metrics, seeding
from bench.probe import LinearSgd
from bench.probes.features import Features, Images, Labels, Outcome, Scores, standardised
from bench.probes.sgd import heads, linear_sgd

RATES = (1e-3, 0.01, 0.1, 1.0, 10.0)


def mean_average_precision(scores: Scores, labels: Labels) -> float:
    found = [metrics.average_precision(scores[:, c], labels[:, c]) for c in range(labels.shape[1])]
    return math.nan if np.isnan(found).all() else float(np.nanmean(found))


def small(**changes: object) -> LinearSgd:
    return LinearSgd(**{"kind": "linear-sgd", "rates": RATES, "batch_size": 16, "epochs": 3, **changes})  # type: ignore[arg-type]


def problem(seed: int, count: int = 70) -> tuple[Tensor, Labels]:
    """Features of six channels and labels of three classes, some difficult; 70 images leave a batch of 6."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, -1], size=(count, 3), p=[0.3, 0.5, 0.2]).astype(np.int8)
    return torch.from_numpy(rng.normal(size=(count, 6)).astype(np.float32)), labels


def planted(seed: int, shuffled: bool = False) -> Features:
    """Three levels of which only the second shows the classes; shuffled, it shows those of other images."""
    rng, directions = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(3, 16))

    def images(count: int) -> Images:
        labels = (rng.uniform(size=(count, 3)) < 0.3).astype(np.int8)
        shown = rng.permutation(labels) if shuffled else labels
        useful = shown @ directions + 0.3 * rng.normal(size=(count, 16))
        levels = (5 + rng.normal(size=(count, 8)), useful, 100 * rng.normal(size=(count, 4)))
        return Images(tuple(torch.from_numpy(level.astype(np.float32)) for level in levels), labels)

    return Features(images(150), images(100), images(200))


def alone(probe: LinearSgd, rate: float, inputs: Tensor, labels: Labels, seed: int) -> nn.Linear:
    """Train one head by torch's optimizer and schedule."""
    key = seeding.key("probe", "linear-sgd", seed)
    head = nn.Linear(inputs.shape[1], labels.shape[1])
    weights = torch.randn((inputs.shape[1], labels.shape[1]), generator=torch.Generator().manual_seed(key)) * 0.01
    head.weight.data.copy_(weights.T)
    head.bias.data.zero_()
    optimizer = torch.optim.SGD(head.parameters(), lr=rate * probe.batch_size / 256, momentum=probe.momentum, weight_decay=0)
    per_epoch = math.ceil(len(inputs) / probe.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, probe.epochs * per_epoch, eta_min=0)
    for epoch in range(probe.epochs):
        order = seeding.permutation(len(inputs), key, epoch)
        for start in range(0, len(inputs), probe.batch_size):
            batch = order[start : start + probe.batch_size]
            known = torch.from_numpy(labels[batch])
            logits = head(inputs[batch])
            loss = functional.binary_cross_entropy_with_logits(
                logits[known != -1], (known == 1).float()[known != -1], reduction="sum"
            ) / len(known)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return head


def scores_on_val(outcome: Outcome) -> list[float | None]:
    return [tried.val for tried in outcome.tried]


@pytest.mark.parametrize("batch_size", [16, 70, 500], ids=["a smaller last batch", "one batch", "fewer images than a batch"])
def test_heads_trained_at_once_are_those_that_torch_trains_alone(batch_size: int) -> None:
    probe, (inputs, labels) = small(batch_size=batch_size), problem(0)
    weights, biases = heads(probe, inputs, labels, seed=3)
    for number, rate in enumerate(RATES):
        head = alone(probe, rate, inputs, labels, seed=3)
        torch.testing.assert_close(weights[:, number], head.weight.detach().T, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(biases[number], head.bias.detach(), atol=1e-6, rtol=1e-6)


def test_a_head_does_not_depend_on_the_other_rates() -> None:
    inputs, labels = problem(1)
    together, _ = heads(small(rates=(0.1, 1e300, 1.0)), inputs, labels, seed=0)
    for number, rate in ((0, 0.1), (2, 1.0)):
        head, _ = heads(small(rates=(rate,)), inputs, labels, seed=0)
        torch.testing.assert_close(together[:, number], head[:, 0], atol=1e-6, rtol=1e-6)


def test_a_batch_without_a_judged_label_changes_nothing() -> None:
    inputs, labels = problem(2)
    with_nothing = torch.cat([inputs, inputs]), np.concatenate([labels, np.full_like(labels, -1)])
    weights, _ = heads(small(batch_size=1), *with_nothing, seed=0)
    assert torch.isfinite(weights).all()
    weights, biases = heads(small(), inputs, np.full_like(labels, -1), seed=0)
    assert (biases == 0).all() and (weights == weights[:, :1]).all() and (weights != 0).all()


def test_initial_weights_and_order_follow_the_seed() -> None:
    inputs, labels = problem(3)
    one, same, other = (heads(small(), inputs, labels, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    start = heads(small(rates=(1e-30, 1e-20)), inputs, labels, seed=0)[0]
    assert torch.equal(start[:, 0], start[:, 1]) and 0.005 < float(start[:, 0].std()) < 0.02


def test_the_same_seed_gives_the_same_outcome() -> None:
    one, other = (linear_sgd(small(), planted(0), mean_average_precision, seed=5) for _ in range(2))
    assert one.tried == other.tried and one.chosen == other.chosen
    np.testing.assert_array_equal(one.predictions["scores"], other.predictions["scores"])


def test_a_problem_is_learned_and_its_chosen_head_is_fitted_to_train_and_val() -> None:
    probe, features = small(layers=(1, 2)), planted(1)
    outcome = linear_sgd(probe, features, mean_average_precision, seed=0)
    assert outcome.chosen["layers"] == 2  # the second level of three is the last but one
    assert mean_average_precision(outcome.predictions["scores"], features.test.labels) > 0.9
    inputs, test = standardised(torch.cat(features.fit.levels[1:], dim=1), torch.cat(features.test.levels[1:], dim=1))
    head = alone(probe, float(outcome.chosen["rate"]), inputs, features.fit.labels, seed=0)
    expected = head(test).sigmoid().detach().numpy()
    assert outcome.predictions["scores"].dtype == np.float32
    np.testing.assert_allclose(outcome.predictions["scores"], expected, atol=1e-5)


def test_features_of_other_images_score_at_the_prior() -> None:
    features = planted(2, shuffled=True)
    outcome = linear_sgd(small(layers=(3,)), features, mean_average_precision, seed=0)
    prior = (features.test.labels == 1).mean()
    assert mean_average_precision(outcome.predictions["scores"], features.test.labels) == pytest.approx(prior, abs=0.1)


def test_dead_features_score_every_image_alike() -> None:
    labels = planted(3)
    dead = [Images((torch.full((len(some), 4), 0.7),), some.labels) for some in (labels.train, labels.val, labels.test)]
    scores = linear_sgd(small(), Features(*dead), mean_average_precision, seed=0).predictions["scores"]
    assert np.isfinite(scores).all() and (scores == scores[0]).all()


def test_a_rate_that_diverges_is_undefined_on_val_and_never_chosen() -> None:
    features = planted(4)
    outcome = linear_sgd(small(rates=(1e300, 0.1), layers=(2,)), features, mean_average_precision, seed=0)
    assert outcome.tried[0].val is None and outcome.tried[1].val is not None
    assert outcome.chosen["rate"] == 0.1
    only = linear_sgd(small(rates=(1e300,), layers=(2,)), features, mean_average_precision, seed=0)
    assert only.tried[0].val is None and (only.predictions["scores"] == 0).all()


def test_more_levels_than_there_are_means_all_of_them_once() -> None:
    outcome = linear_sgd(small(rates=(0.1, 1.0), layers=(7, 1, 3, 4)), planted(5), mean_average_precision, seed=0)
    assert [tried.choice for tried in outcome.tried] == [{"layers": n, "rate": rate} for n in (7, 1) for rate in (0.1, 1.0)]
    all_of_them = linear_sgd(small(rates=(0.1, 1.0), layers=(3,)), planted(5), mean_average_precision, seed=0)
    assert scores_on_val(outcome)[:2] == scores_on_val(all_of_them)


def test_a_given_level_is_probed_alone() -> None:
    features = planted(6)
    outcome = linear_sgd(small(level=2), features, mean_average_precision, seed=0)
    assert [tried.choice for tried in outcome.tried] == [{"level": 2, "rate": rate} for rate in RATES]
    assert mean_average_precision(outcome.predictions["scores"], features.test.labels) > 0.9


def test_test_labels_change_no_choice() -> None:
    features = planted(7)
    swapped = Features(features.train, features.val, Images(features.test.levels, 1 - features.test.labels))
    one, other = (linear_sgd(small(), some, mean_average_precision, seed=0) for some in (features, swapped))
    assert one.chosen == other.chosen and one.on_test != other.on_test
    np.testing.assert_array_equal(one.predictions["scores"], other.predictions["scores"])
