"""Every metric against its definition, scikit-learn or torchmetrics."""

import doctest
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_curve
from torchmetrics.classification import MulticlassJaccardIndex

from bench import metrics
from bench.errors import DataError, UsageError

CLASSES = ("a", "b", "c", "d")
RNG = np.random.default_rng(0)


@pytest.fixture
def scores() -> metrics.Predictions:
    labels = (RNG.uniform(size=(60, 4)) < 0.4).astype(np.int8)
    labels[labels.sum(axis=1) == 0, 0] = 1
    return {"scores": RNG.uniform(size=(60, 4)).astype(np.float32), "labels": labels}


@pytest.fixture
def masks() -> tuple[np.ndarray, np.ndarray, metrics.Predictions]:
    truth, found = RNG.integers(0, 5, (6, 8, 8)), RNG.integers(0, 5, (6, 8, 8))
    truth[RNG.uniform(size=truth.shape) < 0.1] = 255
    confusion = np.zeros((6, 6, 5), dtype=np.int32)
    for image in range(6):
        for row, column in zip(truth[image].flat, found[image].flat, strict=True):
            confusion[image, 5 if row == 255 else row, column] += 1
    return truth, found, {"confusion": confusion}


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(metrics).failed == 0


def test_acc_keras_is_the_argmax_of_both_sides(scores: metrics.Predictions) -> None:
    by_hand = np.mean([s.argmax() == y.argmax() for s, y in zip(scores["scores"], scores["labels"], strict=True)])
    assert metrics.compute("acc_keras", scores, CLASSES, CLASSES) == pytest.approx(by_hand)


def test_map_voc_is_scikit_learns_curve_with_the_envelope(scores: metrics.Predictions) -> None:
    expected = []
    for column in range(4):
        precision, recall, _ = precision_recall_curve(scores["labels"][:, column], scores["scores"][:, column])
        precision, recall = precision[::-1], recall[::-1]  # rising recall
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        expected.append(np.sum(np.diff(recall) * envelope[1:]))
    assert metrics.compute("map_voc", scores, CLASSES, CLASSES) == pytest.approx(np.mean(expected), abs=1e-12)


def test_map_voc07_is_the_mean_of_eleven_maxima(scores: metrics.Predictions) -> None:
    expected = []
    for column in range(4):
        rank = np.argsort(-scores["scores"][:, column])
        hits = np.cumsum(scores["labels"][rank, column])
        precision, recall = hits / np.arange(1, 61), hits / hits[-1]
        points = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= level - 1e-12), default=0)
            for level in np.linspace(0, 1, 11)
        ]
        expected.append(np.mean(points))
    assert metrics.compute("map_voc07", scores, CLASSES, CLASSES) == pytest.approx(np.mean(expected), abs=1e-12)


def test_map_lowshot_is_the_mean_of_map_voc_over_shots_and_draws() -> None:
    rng = np.random.default_rng(1)
    labels = rng.choice([-1, 0, 0, 1], size=(50, 4)).astype(np.int8)
    labels[:, 3] = 0  # a class that does not occur
    shots = np.round(rng.uniform(size=(50, 3, 2, 4)), 1).astype(np.float32)
    samples = [{"scores": shots[:, s, d], "labels": labels} for s, d in np.ndindex(3, 2)]
    found = {"shots": shots, "labels": labels}
    expected = np.mean([metrics.compute("map_voc", one, CLASSES, ("a", "c", "d")) for one in samples])
    assert metrics.compute("map_lowshot", found, CLASSES, ("a", "c", "d")) == pytest.approx(expected, abs=1e-12)
    by_class = metrics.per_class("map_lowshot", found, CLASSES, ("a", "c", "d"))
    expected = np.mean([metrics.per_class("map_voc", one, CLASSES, CLASSES)["c"] for one in samples])
    assert list(by_class) == ["a", "c", "d"] and by_class["d"] is None
    assert by_class["c"] == pytest.approx(expected, abs=1e-12)


def test_average_precision_does_not_depend_on_the_order_of_equal_scores() -> None:
    values, truth = np.array([0.5, 0.5, 0.5, 0.1]), np.array([1, 0, 0, 1])
    found = {metrics.average_precision(values[order], truth[order]) for order in ([0, 1, 2, 3], [2, 1, 0, 3], [1, 0, 2, 3])}
    assert len(found) == 1
    assert found.pop() == pytest.approx(1 / 2 * 1 / 2 + 1 / 2 * 1 / 2)


def test_difficult_objects_are_not_negatives() -> None:
    predictions = {"scores": np.array([[0.9], [0.8], [0.1]]), "labels": np.array([[-1], [1], [0]])}
    assert metrics.compute("map_voc", predictions, ("a",), ("a",)) == 1.0
    assert metrics.compute("f1_macro", predictions, ("a",), ("a",)) == 1.0


def test_f1_macro_is_scikit_learns(scores: metrics.Predictions) -> None:
    expected = f1_score(scores["labels"], scores["scores"] > 0.5, average="macro")
    assert metrics.compute("f1_macro", scores, CLASSES, CLASSES) == pytest.approx(expected)


def test_acc_subset_needs_every_class_right(scores: metrics.Predictions) -> None:
    expected = ((scores["scores"] > 0.5) == scores["labels"]).all(axis=1).mean()
    assert metrics.compute("acc_subset", scores, CLASSES, CLASSES) == pytest.approx(expected)


def test_miou_voc_is_torchmetrics_with_void_ignored(masks: tuple) -> None:
    truth, found, predictions = masks
    reference = MulticlassJaccardIndex(5, ignore_index=255)(torch.from_numpy(found), torch.from_numpy(truth))
    assert metrics.compute("miou_voc", predictions, CLASSES, CLASSES) == pytest.approx(reference.item(), abs=1e-6)


def test_miou_paper_counts_void_as_background(masks: tuple) -> None:
    truth, found, predictions = masks
    truth = np.where(truth == 255, 0, truth)
    by_hand = [((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in range(5)]
    assert metrics.compute("miou_paper", predictions, CLASSES, CLASSES) == pytest.approx(np.mean(by_hand))


def test_pixel_accuracy_leaves_void_out(masks: tuple) -> None:
    truth, found, predictions = masks
    judged = truth != 255
    assert metrics.compute("pixel_acc", predictions, CLASSES, CLASSES) == pytest.approx((truth == found)[judged].mean())


def test_classes_that_are_not_scored_stay_out_of_every_mean(scores: metrics.Predictions, masks: tuple) -> None:
    two = {name: values[:, :2] for name, values in scores.items()}
    assert metrics.compute("map_voc", scores, CLASSES, ("a", "b")) == metrics.compute("map_voc", two, ("a", "b"), ("a", "b"))
    values = metrics.per_class("miou_voc", masks[2], CLASSES, ("a", "c"))
    assert list(values) == ["background", "a", "c"]
    assert metrics.compute("miou_voc", masks[2], CLASSES, ("a", "c")) == pytest.approx(np.mean(list(values.values())))


def test_a_class_that_does_not_occur_is_nan_and_left_out_of_the_mean() -> None:
    predictions = {"scores": np.array([[0.9, 0.2], [0.1, 0.3]]), "labels": np.array([[1, 0], [0, 0]])}
    assert metrics.compute("map_voc", predictions, ("a", "b"), ("a", "b")) == 1.0
    assert metrics.per_class("map_voc", predictions, ("a", "b"), ("a", "b")) == {"a": 1.0, "b": None}
    assert math.isnan(metrics.compute("map_voc", predictions, ("a", "b"), ("b",)))


def test_a_metric_of_the_other_kind_is_refused(scores: metrics.Predictions) -> None:
    with pytest.raises(DataError, match="miou_voc needs confusion"):
        metrics.compute("miou_voc", scores, CLASSES, CLASSES)
    with pytest.raises(DataError, match="map_lowshot needs shots"):
        metrics.compute("map_lowshot", scores, CLASSES, CLASSES)


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'miou_voc'"):
        metrics.get("miou_vok")
