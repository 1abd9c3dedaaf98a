"""Predictors that look at no picture, from what a run's record and predictions know: what every row has to beat."""

from __future__ import annotations

import numpy as np

from bench.metrics import Predictions
from results.record import Record


def trivial(record: Record, predictions: Predictions) -> dict[str, Predictions]:
    """Return each trivial predictor's predictions for the pictures of a run.

    - class prior: each class scored by its share of the training pictures, the same for every picture;
    - constant: nothing is present, every score 0;
    - all background: every pixel is background.
    """
    if "scores" in predictions:
        labels = predictions["labels"]
        constant = {"constant (nothing present)": {"scores": np.zeros(labels.shape, np.float32), "labels": labels}}
        if not record.data.prior:
            return dict(constant)
        prior = np.tile(np.array(record.data.prior, dtype=np.float32), (len(labels), 1))
        return {"class prior": {"scores": prior, "labels": labels}, **constant}
    if "confusion" in predictions:
        confusion = predictions["confusion"]
        background = np.zeros_like(confusion)
        background[:, :, 0] = confusion.sum(axis=2)
        return {"all background": {"confusion": background}}
    return {}
