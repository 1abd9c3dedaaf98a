"""Trivial predictors, which look at no image: what every row has to beat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from bench.metrics import METRICS, Predictions
from bench.record import Record

Predictor = Callable[[Predictions], Predictions]


def trivial(record: Record, needs: str) -> dict[str, Predictor]:
    """Return the trivial predictors for what a metric needs, by name: functions of a run's predictions, which hold the truth.

    - class prior: each class scored by its share of the training images, the same for every image, and for every low-shot sample;
    - constant: nothing is present, every score 0, where an image may show nothing;
    - all background: every pixel is background, and so nothing of a class is found;
    - whole image: one box over the image for each class, with its share of the training images as confidence.
    """
    if needs in ("scores", "shots"):
        same = partial(_same_scores, needs)
        known = (METRICS.get(identity.partition("@")[0]) for identity in record.metric_ids)
        single = any(metric is not None and metric.single for metric in known)
        constant = {} if single else {"constant (nothing present)": partial(same, (0.0,) * len(record.data.classes))}
        return {"class prior": partial(same, record.data.prior), **constant} if record.data.prior else dict(constant)
    if needs == "boxes":
        equal = (1.0,) * len(record.data.classes)
        return {"whole image": partial(_whole_image, record.data.prior or equal)}
    background: dict[str, Predictor] = {"confusion": _background, "surface": _nothing_near}
    return {"all background": background[needs]} if needs in background else {}


def _same_scores(needs: str, scores: tuple[float, ...], predictions: Predictions) -> Predictions:
    shape = predictions[needs].shape
    return {needs: np.broadcast_to(np.array(scores, dtype=np.float32), shape).copy(), "labels": predictions["labels"]}


def _background(predictions: Predictions) -> Predictions:
    confusion = predictions["confusion"]
    background = np.zeros_like(confusion)
    background[:, :, 0] = confusion.sum(axis=2)
    return {"confusion": background}


def _nothing_near(predictions: Predictions) -> Predictions:
    surface = predictions["surface"]
    return {"surface": np.where(np.isnan(surface), surface, np.float32(1))}


def _whole_image(confidences: tuple[float, ...], predictions: Predictions) -> Predictions:
    sizes = predictions["sizes"].astype(np.float32)
    shape = len(sizes), len(confidences)
    whole = np.concatenate([np.zeros_like(sizes), sizes[:, ::-1]], axis=1)  # left, top, right, bottom
    return {
        "boxes": np.broadcast_to(whole[:, None], (*shape, 4)).copy(),
        "confidences": np.broadcast_to(np.array(confidences, dtype=np.float32), shape).copy(),
        "found": np.broadcast_to(np.arange(len(confidences), dtype=np.int16), shape).copy(),
        "truth": predictions["truth"],
        "sizes": predictions["sizes"],
    }
