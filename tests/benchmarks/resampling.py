"""How long 10,000 resamples of a VOC-sized test set take, beside recomputing the metric for each (measured on a few).

python tests/benchmarks/resampling.py
"""

import time

import numpy as np

from bench import metrics
from results import resampling

PICTURES, CLASSES, RESAMPLES, SLOW = 1449, tuple(f"class {n}" for n in range(20)), 10_000, 5


def main() -> None:
    """Print a line for each metric: seconds, seconds one by one (extrapolated), ratio."""
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=(PICTURES, 20)) < 0.08).astype(np.int8)
    known = {
        "confusion": {"confusion": rng.integers(0, 5000, (PICTURES, 22, 21)).astype(np.int32)},
        "scores": {"scores": rng.uniform(size=(PICTURES, 20)).astype(np.float32), "labels": labels},
    }
    print(f"{RESAMPLES:,} resamples of {PICTURES:,} pictures, {len(CLASSES)} classes")
    for metric in metrics.METRICS.values():
        predictions = known[metric.needs]
        started = time.perf_counter()
        function = resampling.resampler(metric.id, predictions, CLASSES, CLASSES)
        for weights in resampling.counts(PICTURES, RESAMPLES, "benchmark"):
            function(weights)
        fast = time.perf_counter() - started
        started = time.perf_counter()
        for weights in resampling.counts(PICTURES, SLOW, "benchmark"):
            resampling._one_by_one(metric.id, predictions, CLASSES, CLASSES, weights)
        slow = (time.perf_counter() - started) / SLOW * RESAMPLES
        print(f"{metric.key:14} {fast:6.2f} s   one by one {slow:8.1f} s   {slow / fast:6.0f} times")


if __name__ == "__main__":
    main()
