"""A record's metric values: the ones it holds, or recomputed from its saved predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bench import metrics
from results.record import Record, read_predictions
from results.tables import Value


def recomputed(out: Path, chosen: Sequence[str]) -> Value:
    """Return a function that tells a record's value of a metric; `chosen` ids are always recomputed from predictions."""
    for name in chosen:
        metrics.get(name)

    def value(record: Record, metric: str) -> float | None:
        if metric in record.metrics and metric not in chosen:
            return record.metrics[metric]
        predictions = read_predictions(out, record)
        found = metrics.compute(metric, predictions, record.data.classes, record.data.scored)
        return None if math.isnan(found) else found

    return value
