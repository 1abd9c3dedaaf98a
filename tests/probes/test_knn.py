"""The kNN probe against its definition, written as a loop, and against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from bench import metrics
from bench.probe import Knn
from bench.probes import knn as module
from bench.probes.features import Features, Images, Labels, Scores
from bench.probes.knn import knn, validation_score, votes

T = 0.07


def mean_average_precision(scores: Scores, labels: Labels) -> float:
    found = [metrics.average_precision(scores[:, c], labels[:, c]) for c in range(labels.shape[1])]
    return math.nan if np.isnan(found).all() else float(np.nanmean(found))


def random_labels(rng: np.random.Generator, count: int, classes: int = 4, difficult: float = 0.2) -> Labels:
    return rng.choice([1, 0, -1], size=(count, classes), p=[0.3, 0.7 - difficult, difficult]).astype(np.int8)


def drawn(seed: int, count: int, width: int = 6) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32))


def by_definition(bank: NDArray, labels: Labels, queries: NDArray, k: int, temperature: float) -> NDArray:
    scores = np.zeros((len(queries), labels.shape[1]))
    for row, query in enumerate(queries.astype(np.float64)):
        similarity = [query @ one / np.linalg.norm(query) / np.linalg.norm(one) for one in bank.astype(np.float64)]
        nearest = sorted(range(len(bank)), key=lambda n: -similarity[n])[:k]
        for c in range(labels.shape[1]):
            judged = [n for n in nearest if labels[n, c] != -1]
            weights = [math.exp(similarity[n] / temperature) for n in judged]
            shown = [weight for n, weight in zip(judged, weights, strict=True) if labels[n, c] == 1]
            scores[row, c] = sum(shown) / sum(weights) if judged else 0.0
    return scores


def planted(seed: int, shuffled: bool = False) -> Features:
    """Three levels of which only the second shows the classes; shuffled, it shows those of other images."""
    rng, directions = np.random.default_rng(seed), np.random.default_rng(99).normal(size=(3, 16))

    def images(count: int) -> Images:
        labels = (rng.uniform(size=(count, 3)) < 0.3).astype(np.int8)
        shown = rng.permutation(labels) if shuffled else labels
        useful = shown @ directions + 0.3 * rng.normal(size=(count, 16))
        levels = (rng.normal(size=(count, 8)), useful, rng.normal(size=(count, 16)))
        return Images(tuple(torch.from_numpy(level.astype(np.float32)) for level in levels), labels)

    return Features(images(150), images(100), images(200))


def test_scores_are_those_of_a_loop_over_the_definition() -> None:
    labels = random_labels(np.random.default_rng(0), 40)
    bank, queries = drawn(1, 40), drawn(2, 15)
    for k, scores in zip((1, 3, 40), votes(bank, labels, queries, (1, 3, 40), T), strict=True):
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, by_definition(bank.numpy(), labels, queries.numpy(), k, T), atol=1e-5)


def test_scores_are_scikit_learns_where_no_object_is_difficult() -> None:
    labels = random_labels(np.random.default_rng(3), 60, difficult=0.0)
    bank, queries = drawn(4, 60), drawn(5, 20)
    other = KNeighborsClassifier(7, weights=lambda distance: np.exp((1 - distance) / T), metric="cosine", algorithm="brute")
    expected = np.stack([share[:, 1] for share in other.fit(bank.numpy(), labels).predict_proba(queries.numpy())], axis=1)
    np.testing.assert_allclose(votes(bank, labels, queries, (7,), T)[0], expected, atol=1e-5)


def test_neighbours_are_scikit_learns() -> None:
    bank, queries = drawn(6, 50), drawn(7, 20)
    each_its_own_class = np.eye(50, dtype=np.int8)
    found = votes(bank, each_its_own_class, queries, (5,), temperature=100.0)[0] > 0
    other = NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute").fit(bank.numpy())
    expected = other.kneighbors(queries.numpy(), return_distance=False)
    assert [set(np.nonzero(row)[0]) for row in found] == [set(row) for row in expected]


def test_every_k_scores_as_it_does_alone() -> None:
    labels = random_labels(np.random.default_rng(8), 40)
    together = votes(drawn(9, 40), labels, drawn(10, 15), (20, 2, 9), T)
    for k, scores in zip((20, 2, 9), together, strict=True):
        np.testing.assert_array_equal(scores, votes(drawn(9, 40), labels, drawn(10, 15), (k,), T)[0])


def test_parts_of_the_queries_score_as_all_do_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = random_labels(np.random.default_rng(11), 40)
    whole = votes(drawn(12, 40), labels, drawn(13, 25), (5, 10), T)
    monkeypatch.setattr(module, "ELEMENTS", 3 * 40)
    for scores, expected in zip(votes(drawn(12, 40), labels, drawn(13, 25), (5, 10), T), whole, strict=True):
        np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_length_does_not_matter() -> None:
    labels = random_labels(np.random.default_rng(14), 30)
    lengths = torch.logspace(-3, 3, 30)[:, None]
    expected = votes(drawn(15, 30), labels, drawn(16, 30), (4,), T)[0]
    np.testing.assert_allclose(votes(lengths * drawn(15, 30), labels, lengths * drawn(16, 30), (4,), T)[0], expected, atol=1e-5)


def test_a_neighbour_with_difficult_objects_alone_does_not_vote() -> None:
    bank, query = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    labels = np.array([[-1, -1], [1, -1], [0, 1]], dtype=np.int8)
    one, two, three = votes(bank, labels, query, (1, 2, 3), 1e-3)
    np.testing.assert_array_equal(one, [[0, 0]])
    np.testing.assert_array_equal(two, [[1, 0]])
    np.testing.assert_array_equal(three, [[1, 1]])  # the only judged vote for the second class, however small its weight


def test_k_larger_than_the_bank_takes_all_of_it() -> None:
    labels = random_labels(np.random.default_rng(17), 8)
    all_of_it, more = votes(drawn(18, 8), labels, drawn(19, 5), (8, 500), T)
    np.testing.assert_array_equal(all_of_it, more)


def test_of_several_k_that_take_every_image_the_first_is_a_candidate() -> None:
    outcome = knn(Knn(kind="knn", k=(300, 5, 250, 1000), level=1), planted(0), mean_average_precision)
    assert [tried.choice["k"] for tried in outcome.tried] == [300, 5]
    few = knn(Knn(kind="knn", k=(160, 240), level=1), planted(0), mean_average_precision)  # 150 vote on val, 250 on test
    assert [tried.choice["k"] for tried in few.tried] == [160, 240]


@pytest.mark.parametrize("dead", [torch.zeros(20, 6), torch.full((20, 6), 0.3)], ids=["zero", "constant"])
def test_dead_features_give_every_image_the_same_finite_scores(dead: Tensor) -> None:
    labels = random_labels(np.random.default_rng(20), 20)
    few, every = votes(dead, labels, dead[:7], (3, 20), T)
    assert np.isfinite(few).all() and (few == few[0]).all()
    shares = (labels == 1).sum(axis=0) / (labels != -1).sum(axis=0)
    np.testing.assert_allclose(every, np.broadcast_to(shares, every.shape), atol=1e-5)


def test_one_feature_of_length_zero_has_finite_scores() -> None:
    bank, queries = drawn(21, 10), drawn(22, 4)
    bank[3], queries[1] = 0, 0
    assert np.isfinite(votes(bank, random_labels(np.random.default_rng(23), 10), queries, (1, 10), T)).all()


def test_permuting_queries_permutes_scores_and_permuting_the_bank_changes_none() -> None:
    labels = random_labels(np.random.default_rng(24), 30)
    bank, queries, rng = drawn(25, 30), drawn(26, 12), np.random.default_rng(27)
    expected = votes(bank, labels, queries, (6,), T)[0]
    order, other = rng.permutation(12), rng.permutation(30)
    np.testing.assert_allclose(votes(bank, labels, queries[order], (6,), T)[0], expected[order], atol=1e-6)
    np.testing.assert_allclose(votes(bank[other], labels[other], queries, (6,), T)[0], expected, atol=1e-5)


def test_the_level_that_shows_the_classes_is_chosen_and_train_and_val_vote_on_test() -> None:
    features = planted(1)
    outcome = knn(Knn(kind="knn", k=(5, 20)), features, mean_average_precision)
    assert outcome.chosen["level"] == 2
    assert [tried.choice for tried in outcome.tried] == [{"level": level, "k": k} for level in (1, 2, 3) for k in (5, 20)]
    assert mean_average_precision(outcome.predictions["scores"], features.test.labels) > 0.9
    fit = features.fit
    expected = votes(fit.levels[1], fit.labels, features.test.levels[1], (int(outcome.chosen["k"]),), T)[0]
    np.testing.assert_array_equal(outcome.predictions["scores"], expected)


def test_a_given_level_is_the_only_one_tried() -> None:
    outcome = knn(Knn(kind="knn", k=(5,), level=3), planted(1), mean_average_precision)
    assert [tried.choice for tried in outcome.tried] == [{"level": 3, "k": 5}]


def test_features_of_other_images_score_at_the_prior() -> None:
    features = planted(2, shuffled=True)
    outcome = knn(Knn(kind="knn", k=(20, 50)), features, mean_average_precision)
    prior = (features.test.labels == 1).mean()
    assert mean_average_precision(outcome.predictions["scores"], features.test.labels) == pytest.approx(prior, abs=0.1)


def test_test_labels_change_no_choice() -> None:
    features = planted(3)
    swapped = Features(features.train, features.val, Images(features.test.levels, 1 - features.test.labels))
    one, other = (knn(Knn(kind="knn"), some, mean_average_precision) for some in (features, swapped))
    assert one.chosen == other.chosen and one.on_test != other.on_test
    np.testing.assert_array_equal(one.predictions["scores"], other.predictions["scores"])


def test_the_score_on_val_alone_is_that_of_the_probe() -> None:
    features = planted(4)
    choice, value = validation_score(Knn(kind="knn"), features.train, features.val, mean_average_precision)
    outcome = knn(Knn(kind="knn"), features, mean_average_precision)
    assert choice == outcome.chosen
    assert value == max(tried.val for tried in outcome.tried if tried.val is not None)


def test_the_score_on_val_is_undefined_where_nothing_can_be_judged() -> None:
    features = planted(5)
    nothing = Images(features.val.levels, np.full_like(features.val.labels, -1))
    assert math.isnan(validation_score(Knn(kind="knn"), features.train, nothing, mean_average_precision)[1])
