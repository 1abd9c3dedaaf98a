"""Trivial predictors, which look at no image: what every row has to beat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bench.metrics import Predictions
from bench.record import Record

Predictor = Callable[[Predictions], Predictions]


def trivial(record: Record, needs: str) -> dict[str, Predictor]:
    """Return the trivial predictors for what a metric needs, by name: functions of a run's predictions, which hold the truth.

    - class prior: each class scored by its share of the training images, the same for every image;
    - constant: nothing is present, every score 0;
    - all background: every pixel is background.
    """
    if needs == "scores":
        constant = {"constant (nothing present)": partial(_same_scores, (0.0,) * len(record.data.classes))}
        return {"class prior": partial(_same_scores, record.data.prior), **constant} if record.data.prior else dict(constant)
    return {"all background": _background} if needs == "confusion" else {}


def _same_scores(scores: tuple[float, ...], predictions: Predictions) -> Predictions:
    labels = predictions["labels"]
    return {"scores": np.tile(np.array(scores, dtype=np.float32), (len(labels), 1)), "labels": labels}


def _background(predictions: Predictions) -> Predictions:
    confusion = predictions["confusion"]
    background = np.zeros_like(confusion)
    background[:, :, 0] = confusion.sum(axis=2)
    return {"confusion": background}
