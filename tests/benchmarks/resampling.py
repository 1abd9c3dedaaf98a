"""How long 10,000 resamples of a VOC-sized test set take, beside recomputing the metric for each (measured on a few)."""

import numpy as np

from bench import metrics
from results import resampling
from tests.benchmarks.common import Figure, seconds

IMAGES, CLASSES, RESAMPLES, SLOW = 1449, tuple(f"class {n}" for n in range(20)), 10_000, 5


def measure() -> list[Figure]:
    """Return for each metric the seconds, and how many times as fast as one by one (extrapolated) that is."""
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=(IMAGES, 20)) < 0.08).astype(np.int8)
    left, top = rng.uniform(0, 200, (2, IMAGES, 100, 1))
    boxes = np.concatenate([left, top, left + 100, top + 100], axis=2).astype(np.float32)
    found = rng.integers(0, 20, (IMAGES, 100)).astype(np.int16)
    truth = np.concatenate([found[:, :3, None], boxes[:, :3] + 10, np.zeros((IMAGES, 3, 1))], axis=2).astype(np.float32)
    confidences = rng.uniform(size=(IMAGES, 100)).astype(np.float32)
    known = {
        "boxes": {"boxes": boxes, "confidences": confidences, "found": found, "truth": truth},
        "surface": {"surface": rng.uniform(size=(IMAGES, 20)).astype(np.float32)},
        "confusion": {"confusion": rng.integers(0, 5000, (IMAGES, 22, 21)).astype(np.int32)},
        "scores": {"scores": rng.uniform(size=(IMAGES, 20)).astype(np.float32), "labels": labels},
    }
    found: list[Figure] = []
    for metric in metrics.METRICS.values():
        predictions = known[metric.needs]

        def all_at_once(metric: metrics.Metric = metric, predictions: metrics.Predictions = predictions) -> None:
            function = resampling.resampler(metric.id, predictions, CLASSES, CLASSES)
            for weights in resampling.counts(IMAGES, RESAMPLES, "benchmark"):
                function(weights)

        def one_by_one(metric: metrics.Metric = metric, predictions: metrics.Predictions = predictions) -> None:
            for weights in resampling.counts(IMAGES, SLOW, "benchmark"):
                for row in weights.astype(np.int64):
                    drawn = {name: np.repeat(values, row, axis=0) for name, values in predictions.items()}
                    metrics.compute(metric.id, drawn, CLASSES, CLASSES)

        fast, slow = seconds(all_at_once), seconds(one_by_one) / SLOW * RESAMPLES
        found += [
            Figure(f"{metric.key}, {RESAMPLES:,} resamples of {IMAGES:,} images", fast, "s"),
            Figure(f"{metric.key}, against one by one", slow / fast, "times"),
        ]
    return found
