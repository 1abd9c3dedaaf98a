"""A metric of a resample is the metric of the images that were drawn."""

import numpy as np
import pytest

from bench import metrics
from results import resampling
from results.trivial import trivial
from tests.bench.test_detection import drawn
from tests.results import made

CLASSES = ("a", "b", "c", "d")


def predictions(kind: str, images: int = 40) -> metrics.Predictions:
    rng = np.random.default_rng(7)
    if kind == "boxes":
        return drawn(7, images)
    if kind == "surface":
        distances = rng.uniform(size=(images, 4)).astype(np.float32)
        distances[rng.uniform(size=distances.shape) < 0.3] = np.nan
        return {"surface": distances}
    if kind != "confusion":
        labels = rng.choice([-1, 0, 0, 0, 1], size=(images, 4)).astype(np.int8)
        shape = (images, 4) if kind == "scores" else (images, 3, 2, 4)
        scores = np.round(rng.uniform(size=shape), 1).astype(np.float32)  # many equal scores
        labels[:, 3] = 0  # a class that does not occur
        return {kind: scores, "labels": labels}
    confusion = rng.integers(0, 50, (images, 6, 5)).astype(np.int32)
    confusion[:, 4] = 0
    confusion[:, :, 4] = 0
    return {"confusion": confusion}


@pytest.mark.parametrize("metric", sorted(metrics.METRICS))
@pytest.mark.parametrize("scored", [CLASSES, ("a", "c")])
def test_every_metric_of_a_resample_is_that_of_the_drawn_images(metric: str, scored: tuple[str, ...]) -> None:
    known = predictions(metrics.get(metric).needs)
    weights = next(resampling.counts(40, 25, "test"))
    weights[0] = 1
    found = resampling.resampler(metric, known, CLASSES, scored)(weights)
    drawn = [np.repeat(np.arange(40), row.astype(int)) for row in weights]
    slow = [metrics.compute(metric, {name: values[some] for name, values in known.items()}, CLASSES, scored) for some in drawn]
    np.testing.assert_allclose(found, slow, rtol=0, atol=1e-12)
    assert found[0] == pytest.approx(metrics.compute(metric, known, CLASSES, scored), abs=1e-12)


def test_counts_draw_as_many_images_as_there_are_and_the_same_for_a_seed() -> None:
    weights = np.concatenate(list(resampling.counts(50, 2500, "a")))
    assert weights.shape == (2500, 50) and (weights.sum(axis=1) == 50).all()
    assert (weights == np.concatenate(list(resampling.counts(50, 2500, "a")))).all()
    assert (weights != np.concatenate(list(resampling.counts(50, 2500, "b")))).any()
    assert weights.mean() == 1 and weights.var() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("remembered", [0, resampling.REMEMBERED])
def test_metrics_resampled_together_are_those_resampled_alone(remembered: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "REMEMBERED", remembered)
    names = ["miou_voc", "map_voc", "acc_keras", "map_lowshot", "pixel_acc", "f1_macro"]
    functions = [resampling.resampler(name, predictions(metrics.get(name).needs), CLASSES, CLASSES) for name in names]
    together = resampling.replicates(functions, 40, 1500, "test")
    for found, function in zip(together, functions, strict=True):
        alone = np.concatenate([function(weights) for weights in resampling.counts(40, 1500, "test")])
        np.testing.assert_array_equal(found, alone)
    assert resampling.replicates([], 40, 1500, "test") == []


def test_trivial_predictors_of_low_shot_samples_score_the_share_of_positives() -> None:
    labels = np.array([[1, 0, 1], [0, 1, 0], [0, 0, -1], [0, 1, 0]], dtype=np.int8)
    known = {"shots": np.random.default_rng(0).uniform(size=(4, 2, 5, 3)).astype(np.float32), "labels": labels}
    predictors = trivial(made.make(), "shots")
    assert list(predictors) == ["class prior", "constant (nothing present)"]
    for predictor in predictors.values():
        found = predictor(known)
        assert found["shots"].shape == (4, 2, 5, 3) and found["shots"].dtype == np.float32
        assert metrics.per_class("map_lowshot", found, made.CLASSES, made.CLASSES) == pytest.approx(
            {"cat": 1 / 4, "dog": 2 / 4, "cow": 1 / 3}
        )
    assert predictors["class prior"](known)["shots"][3, 1, 4].tolist() == pytest.approx([0.5, 0.3, 0.2])
    assert (
        trivial(made.make(), "scores")["class prior"]({"scores": known["shots"][:, 0, 0], "labels": labels})["scores"]
        == np.float32([0.5, 0.3, 0.2])
    ).all()
