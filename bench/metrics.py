"""Metrics: pure functions of saved predictions, each with an id that says exactly which of its namesakes it is.

Predictions of a classification are `scores` (N, C) in [0, 1] and `labels` (N, C): 1 present, 0 absent, -1 difficult only. Those
of a segmentation are `confusion` (N, C + 2, C + 1): one matrix an image, row = truth, column = prediction, 0 = background,
last row = void. `scored` says which of the C classes the data can judge; the others stay out of every mean.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError, UsageError, unknown

VOID = 255
"""The id of annotated void in a mask: pixels that the annotators left open."""
PADDING = 254
"""The id of pixels beside the image in a mask, which are never trained on and never scored."""

Predictions = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric: what it needs, how it is computed, and its value for each class where it has one."""

    id: str
    title: str
    needs: str
    compute: Callable[[Predictions, Floats], float]
    per_class: Callable[[Predictions], Floats] | None = None
    version: int = 1

    @property
    def key(self) -> str:
        """The id with its version, as columns and records have it; a changed definition has a new version."""
        return f"{self.id}@{self.version}"


def compute(metric: str, predictions: Predictions, classes: tuple[str, ...], scored: tuple[str, ...]) -> float:
    """Return a metric's value in [0, 1]; nan when no class can be judged.

    Raises UsageError for an unknown id and DataError when the predictions are of the other kind.
    """
    chosen = get(metric)
    if chosen.needs not in predictions:
        raise DataError(f"{metric} needs {chosen.needs}, which these predictions have not; they hold {', '.join(predictions)}.")
    mask = np.array([name in scored for name in classes], dtype=np.float64)
    return chosen.compute(predictions, mask)


def per_class(
    metric: str, predictions: Predictions, classes: tuple[str, ...], scored: tuple[str, ...]
) -> dict[str, float | None]:
    """Return a metric's value for each class that the data can judge (None where it cannot be told); {} if it has none."""
    chosen = get(metric)
    if chosen.per_class is None:
        return {}
    values = chosen.per_class(predictions).tolist()
    names = ("background", *classes) if len(values) == len(classes) + 1 else classes
    kept = {"background", *scored}
    return {n: None if math.isnan(v) else v for n, v in zip(names, values, strict=True) if n in kept}


def get(metric: str) -> Metric:
    """Return a metric by its id, with or without the version; UsageError for one that does not exist here."""
    name, _, version = metric.partition("@")
    if name not in METRICS:
        raise unknown("metric", metric, METRICS)
    found = METRICS[name]
    if version not in ("", str(found.version)):
        raise UsageError(f"{metric} is not computed by this version of the bench, which has {found.key}.")
    return found


def explanation(metric: Metric) -> str:
    """Return what a metric is, with its formula, source and an example that runs."""
    return inspect.cleandoc(metric.compute.__doc__ or "")


def acc_keras(predictions: Predictions, scored: Floats) -> float:
    """Keras' `accuracy` on a multi-hot target: the share of images whose top score is their first positive class.

    (1/N) sum [argmax_c s_nc == min {c : y_nc = 1}]. Keras picks categorical accuracy from the shapes alone, and the argmax
    of a multi-hot row is its lowest index. Difficult objects count as present, as in the annotations. An image without a scored
    class is left out. Source: keras 2.7, engine/compile_utils.py.

    A bus (class 1) and a person (class 2): a top score for the person is wrong.

    >>> acc_keras({"scores": np.array([[.1, .4, .9]]), "labels": np.array([[0, 1, 1]])}, np.ones(3))
    0.0
    """
    scores, labels = _scored(predictions, scored)
    kept = (labels != 0).any(axis=1)
    if not kept.any():
        return math.nan
    hits = scores.argmax(axis=1) == (labels != 0).argmax(axis=1)
    return float(hits[kept].mean())


def acc_subset(predictions: Predictions, scored: Floats) -> float:
    """Subset accuracy: the share of images with every class right at a threshold of 0.5; difficult classes are not judged.

    (1/N) sum_n prod_c [(s_nc > 0.5) == y_nc].

    >>> acc_subset({"scores": np.array([[.1, .9], [.1, .2]]), "labels": np.array([[0, 1], [0, 1]])}, np.ones(2))
    0.5
    """
    scores, labels = _scored(predictions, scored)
    right = ((scores > 0.5) == (labels == 1)) | (labels == -1)
    return float(right.all(axis=1).mean())


def f1_macro(predictions: Predictions, scored: Floats) -> float:
    """F1 at a threshold of 0.5, averaged over the scored classes; a class without positives or detections is left out.

    F1_c = 2 TP / (2 TP + FP + FN); images where a class is difficult only are not judged for it.

    >>> round(f1_macro({"scores": np.array([[.9], [.8], [.1]]), "labels": np.array([[1], [0], [1]])}, np.ones(1)), 3)
    0.5
    """
    return _mean(_f1(predictions), scored)


def map_voc(predictions: Predictions, scored: Floats) -> float:
    """Mean average precision as VOC computes it since 2010: the area under the precision envelope.

    AP_c = sum over recall steps of (r_i - r_{i-1}) max_{j >= i} p_j, difficult-only images left out of class c; equal scores
    are one operating point. The mean is over the scored classes that occur. Source: VOC 2010 devkit, VOCap.m.

    >>> round(map_voc({"scores": np.array([[.9], [.8], [.7]]), "labels": np.array([[1], [0], [1]])}, np.ones(1)), 4)
    0.8333
    """
    return _mean(_average_precisions(predictions), scored)


def map_voc07(predictions: Predictions, scored: Floats) -> float:
    """Mean average precision of VOC 2007: the mean of the envelope at the recalls 0, 0.1, ..., 1 (11 points).

    AP_c = (1/11) sum_r max_{r_j >= r} p_j. Source: Everingham et al. 2010, section 4.2.

    >>> round(map_voc07({"scores": np.array([[.9], [.8], [.7]]), "labels": np.array([[1], [0], [1]])}, np.ones(1)), 4)
    0.8485
    """
    return _mean(_average_precisions(predictions, points=11), scored)


def miou_voc(predictions: Predictions, scored: Floats) -> float:
    """Mean intersection over union as VOC defines it: one matrix for the whole test set, void ignored, background included.

    IoU_c = TP / (TP + FP + FN), the mean over background and the scored classes; a class that is in neither truth nor prediction
    is left out. Source: Everingham et al. 2010, section 4.3.

    Two pixels of class 1, one of them found; one void pixel called class 1 costs nothing:

    >>> miou_voc({"confusion": np.array([[[2, 0], [1, 1], [0, 1]]])}, np.ones(1))  # IoU 2/3 and 1/2
    0.5833333333333333
    """
    return _mean(_iou(_total(predictions)[:-1]), np.array([1.0, *scored]))


def miou_paper(predictions: Predictions, scored: Floats) -> float:
    """The paper's mIU: `tf.keras.metrics.MeanIoU` with void counted as background, over the classes that occur.

    The void row is added to the background row; then the mean of TP / (TP + FP + FN) over background and the scored classes that
    are in truth or prediction.

    >>> miou_paper({"confusion": np.array([[[2, 0], [1, 1], [0, 1]]])}, np.ones(1))  # IoU 2/4 and 1/3
    0.41666666666666663
    """
    return _mean(_iou(_void_as_background(predictions)), np.array([1.0, *scored]))


def pixel_acc(predictions: Predictions, scored: Floats) -> float:
    """Pixel accuracy: the share of pixels of background and the scored classes, void ignored, whose class is right.

    >>> pixel_acc({"confusion": np.array([[[2, 0], [1, 1], [0, 1]]])}, np.ones(1))
    0.75
    """
    matrix = _total(predictions)[:-1]
    judged = np.array([1.0, *scored]) > 0
    count = matrix[judged].sum()
    return float(np.diag(matrix)[judged].sum() / count) if count else math.nan


def _scored(predictions: Predictions, scored: Floats) -> tuple[Floats, NDArray[np.int64]]:
    kept = scored > 0
    return predictions["scores"][:, kept].astype(np.float64), predictions["labels"][:, kept].astype(np.int64)


def _mean(values: Floats, weights: Floats) -> float:
    kept = (weights > 0) & ~np.isnan(values)
    return float(values[kept].mean()) if kept.any() else math.nan


def _f1(predictions: Predictions) -> Floats:
    judged = predictions["labels"] != -1
    truth, found = (predictions["labels"] == 1) & judged, (predictions["scores"] > 0.5) & judged
    hits = (truth & found).sum(axis=0)
    total = truth.sum(axis=0) + found.sum(axis=0)
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan)


def _average_precisions(predictions: Predictions, points: int = 0) -> Floats:
    pairs = zip(predictions["scores"].T, predictions["labels"].T, strict=True)
    return np.array([average_precision(scores, labels, points) for scores, labels in pairs])


def average_precision(scores: NDArray[Any], labels: NDArray[Any], points: int = 0) -> float:
    """Return one class's average precision from scores (N,) and labels (N,); nan without a positive.

    `points` 0 gives the area under the envelope, 11 the mean at eleven recalls.
    """
    judged = labels != -1
    scores, truth = scores[judged], labels[judged] == 1
    if not truth.any():
        return math.nan
    rank = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[rank])
    last = np.append(np.nonzero(np.diff(scores[rank]))[0], len(rank) - 1)  # the last of each group of equal scores
    recall, precision = hits[last] / truth.sum(), hits[last] / (last + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if points:
        levels = np.linspace(0, 1, points)
        places = np.searchsorted(recall, levels - 1e-12)
        return float(np.append(envelope, 0.0)[places].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _total(predictions: Predictions) -> NDArray[np.int64]:
    total: NDArray[np.int64] = predictions["confusion"].sum(axis=0, dtype=np.int64)
    return total


def _void_as_background(predictions: Predictions) -> NDArray[np.int64]:
    matrix = _total(predictions)
    matrix[0] += matrix[-1]
    return matrix[:-1]


def _iou(matrix: NDArray[np.int64]) -> Floats:
    hits = np.diag(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), np.nan)


_ALL = (
    Metric("acc_keras", "Keras accuracy (the paper's Acc)", "scores", acc_keras),
    Metric("acc_subset", "subset accuracy", "scores", acc_subset),
    Metric("map_voc", "mAP, area under the envelope", "scores", map_voc, _average_precisions),
    Metric("map_voc07", "mAP, 11 points", "scores", map_voc07, lambda p: _average_precisions(p, points=11)),
    Metric("f1_macro", "macro F1 at 0.5", "scores", f1_macro, _f1),
    Metric("miou_voc", "mIoU, void ignored", "confusion", miou_voc, lambda p: _iou(_total(p)[:-1])),
    Metric("miou_paper", "mIoU, void as background", "confusion", miou_paper, lambda p: _iou(_void_as_background(p))),
    Metric("pixel_acc", "pixel accuracy", "confusion", pixel_acc),
)
METRICS: dict[str, Metric] = {metric.id: metric for metric in _ALL}
