"""Metrics: pure functions of saved predictions, each with an id that says exactly which of its namesakes it is.

Predictions of a classification are `scores` (N, C) in [0, 1] and `labels` (N, C): 1 present, 0 absent, -1 difficult only. Those
of a segmentation are `confusion` (N, C + 2, C + 1): one matrix an image, row = truth, column = prediction, 0 = background,
last row = void. Those of a low-shot probe are `shots` (N, shots, draws, C) in [0, 1], a score for each sample of labelled images,
and `labels`. `scored` says which of the C classes the data can judge; the others stay out of every mean.
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

RECALLS = 11
"""At how many recalls VOC 2007 reads the precision."""

Predictions = Mapping[str, NDArray[Any]]
Floats = NDArray[np.float64]


Judged = NDArray[np.bool_]
"""Which of the C classes the data can judge."""


@dataclass(frozen=True)
class Metric:
    """A metric: what it is computed from, and its definition, which serves the value and all resamples of the images alike.

    Most are means of ratios of sums over images: `terms` gives each image's numerators and denominators (N, 2 K), and the value
    is the mean of the K ratios of their sums that are defined. Average precisions are `ranked` instead.
    """

    id: str
    title: str
    needs: str
    terms: Callable[[Predictions, Judged], Floats] | None = None
    ranked: Callable[[NDArray[Any], NDArray[Any]], float] | None = None
    """The value of a class from the scores (N,), or (N, shots, draws), and labels (N,) of its images."""
    recalls: int = 0
    """At how many recalls such a value reads precision; 0 for the area under the envelope."""
    by_class: bool = True
    """Whether each class has a value of its own."""
    version: int = 1

    @property
    def key(self) -> str:
        """The id with its version, as columns and records have it; a changed definition has a new version."""
        return f"{self.id}@{self.version}"

    def values(self, predictions: Predictions, judged: Judged) -> Floats:
        """Return the values whose mean is the metric, of each judged class or of all together; nan where one is not defined."""
        if self.terms is not None:
            return ratios(self.terms(predictions, judged).sum(axis=0))
        assert self.ranked is not None
        scores, labels = predictions[self.needs], predictions["labels"]
        return np.array([self.ranked(scores[..., c], labels[:, c]) for c in np.nonzero(judged)[0]])


def voc_palette() -> NDArray[np.uint8]:
    """Return VOC's colours for the ids 0 to 255, uint8 (256, 3): three bits of the id for each channel."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def ratios(sums: Floats) -> Floats:
    """Return numerators over denominators (..., K) of sums (..., 2 K); nan where the denominator is 0."""
    numerators, denominators = np.split(sums, 2, axis=-1)
    return np.where(denominators > 0, numerators / np.maximum(denominators, 1), np.nan)


def compute(metric: str, predictions: Predictions, classes: tuple[str, ...], scored: tuple[str, ...]) -> float:
    """Return a metric's value in [0, 1]; nan when no class can be judged.

    Raises UsageError for an unknown id and DataError when the predictions are of the other kind.
    """
    chosen = get(metric)
    if chosen.needs not in predictions:
        raise DataError(f"{metric} needs {chosen.needs}, which these predictions have not; they hold {', '.join(predictions)}.")
    values = chosen.values(predictions, np.array([name in scored for name in classes]))
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def per_class(
    metric: str, predictions: Predictions, classes: tuple[str, ...], scored: tuple[str, ...]
) -> dict[str, float | None]:
    """Return a metric's value for each class that the data can judge (None where it cannot be told); {} if it has none."""
    chosen = get(metric)
    if not chosen.by_class:
        return {}
    judged = np.array([name in scored for name in classes])
    names = [name for name in classes if name in scored]
    values = chosen.values(predictions, judged).tolist()
    named = zip(["background", *names] if chosen.needs == "confusion" else names, values, strict=True)
    return {name: None if math.isnan(value) else value for name, value in named}


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
    return inspect.cleandoc((metric.terms or metric.ranked).__doc__ or "")


def acc_keras(predictions: Predictions, judged: Judged) -> Floats:
    """Keras' `accuracy` on a multi-hot target: the share of images whose top score is their first positive class.

    (1/N) sum [argmax_c s_nc == min {c : y_nc = 1}]. Keras picks categorical accuracy from the shapes alone, and the argmax
    of a multi-hot row is its lowest index. Difficult objects count as present, as in the annotations. An image without a scored
    class is left out. Source: keras 2.7, engine/compile_utils.py.

    A bus (class b) and a person (class c): a top score for the person is wrong.

    >>> found = {"scores": np.array([[.1, .4, .9]]), "labels": np.array([[0, 1, 1]])}
    >>> compute("acc_keras", found, ("a", "b", "c"), ("a", "b", "c"))
    0.0
    """
    scores, labels = predictions["scores"][:, judged], predictions["labels"][:, judged]
    kept = (labels != 0).any(axis=1)
    hits = (scores.argmax(axis=1) == (labels != 0).argmax(axis=1)) & kept
    return np.stack([hits, kept], axis=1).astype(np.float64)


def acc_subset(predictions: Predictions, judged: Judged) -> Floats:
    """Subset accuracy: the share of images with every class right at a threshold of 0.5; difficult classes are not judged.

    (1/N) sum_n prod_c [(s_nc > 0.5) == y_nc].

    >>> found = {"scores": np.array([[.1, .9], [.1, .2]]), "labels": np.array([[0, 1], [0, 1]])}
    >>> compute("acc_subset", found, ("a", "b"), ("a", "b"))
    0.5
    """
    scores, labels = predictions["scores"][:, judged], predictions["labels"][:, judged]
    right = (((scores > 0.5) == (labels == 1)) | (labels == -1)).all(axis=1)
    return np.stack([right, np.ones_like(right)], axis=1).astype(np.float64)


def f1_macro(predictions: Predictions, judged: Judged) -> Floats:
    """F1 at a threshold of 0.5, averaged over the scored classes; a class without positives or detections is left out.

    F1_c = 2 TP / (2 TP + FP + FN); images where a class is difficult only are not judged for it.

    >>> found = {"scores": np.array([[.9], [.8], [.1]]), "labels": np.array([[1], [0], [1]])}
    >>> compute("f1_macro", found, ("a",), ("a",))
    0.5
    """
    scores, labels = predictions["scores"][:, judged], predictions["labels"][:, judged]
    truth, found = labels == 1, (scores > 0.5) & (labels != -1)
    return np.concatenate([2.0 * (truth & found), truth.astype(np.float64) + found], axis=1)


def map_voc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean average precision as VOC computes it since 2010: the area under the precision envelope.

    AP_c = sum over recall steps of (r_i - r_{i-1}) max_{j >= i} p_j, difficult-only images left out of class c; equal scores
    are one operating point. The mean is over the scored classes that occur. Source: VOC 2010 devkit, VOCap.m.

    >>> found = {"scores": np.array([[.9], [.8], [.7]]), "labels": np.array([[1], [0], [1]])}
    >>> round(compute("map_voc", found, ("a",), ("a",)), 4)
    0.8333
    """
    return average_precision(scores, labels)


def map_voc07(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean average precision of VOC 2007: the mean of the envelope at the recalls 0, 0.1, ..., 1 (11 points).

    AP_c = (1/11) sum_r max_{r_j >= r} p_j. Source: Everingham et al. 2010, section 4.2.

    >>> found = {"scores": np.array([[.9], [.8], [.7]]), "labels": np.array([[1], [0], [1]])}
    >>> round(compute("map_voc07", found, ("a",), ("a",)), 4)
    0.8485
    """
    return average_precision(scores, labels, RECALLS)


def map_lowshot(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Mean average precision of a low-shot probe: that of map_voc, over the samples of labelled images.

    mAP_c = (1 / S D) sum_s sum_d AP_csd, where AP_csd is the area under the envelope of class c, from the scores of the sample
    with number of shots s and draw d. The mean is over the scored classes that occur. Source: Goyal et al. 2019,
    arXiv:1905.01235; the average precision is that of facebookresearch/vissl, vissl/utils/svm_utils/evaluate.py.

    Two numbers of shots and one draw; the first sample ranks the negative second, the other one first:

    >>> found = {"shots": np.array([[[[.9]], [[.8]]], [[[.8]], [[.9]]]]), "labels": np.array([[1], [0]])}
    >>> compute("map_lowshot", found, ("a",), ("a",))  # AP 1 and 1/2
    0.75
    """
    samples = scores.reshape(len(scores), math.prod(scores.shape[1:]))
    return float(np.mean([average_precision(of_sample, labels) for of_sample in samples.T]))


def miou_voc(predictions: Predictions, judged: Judged) -> Floats:
    """Mean intersection over union as VOC defines it: one matrix for the whole test set, void ignored, background included.

    IoU_c = TP / (TP + FP + FN), the mean over background and the scored classes; a class that is in neither truth nor prediction
    is left out. Source: Everingham et al. 2010, section 4.3.

    Two pixels of class a, one of them found; one void pixel called class a costs nothing:

    >>> compute("miou_voc", {"confusion": np.array([[[2, 0], [1, 1], [0, 1]]])}, ("a",), ("a",))  # IoU 2/3 and 1/2
    0.5833333333333333
    """
    return _intersections_and_unions(predictions["confusion"][:, :-1].astype(np.float64), judged)


def miou_paper(predictions: Predictions, judged: Judged) -> Floats:
    """The paper's mIU: `tf.keras.metrics.MeanIoU` with void counted as background, over the classes that occur.

    The void row is added to the background row; then the mean of TP / (TP + FP + FN) over background and the scored classes that
    are in truth or prediction.

    >>> compute("miou_paper", {"confusion": np.array([[[2, 0], [1, 1], [0, 1]]])}, ("a",), ("a",))  # IoU 2/4 and 1/3
    0.41666666666666663
    """
    confusion = predictions["confusion"].astype(np.float64)
    matrix = confusion[:, :-1].copy()
    matrix[:, 0] += confusion[:, -1]
    return _intersections_and_unions(matrix, judged)


def pixel_acc(predictions: Predictions, judged: Judged) -> Floats:
    """Pixel accuracy: the share of pixels of background and the scored classes, void ignored, whose class is right.

    >>> compute("pixel_acc", {"confusion": np.array([[[2, 0], [1, 1], [0, 1]]])}, ("a",), ("a",))
    0.75
    """
    matrix = predictions["confusion"][:, :-1].astype(np.float64)
    kept = np.append(True, judged)
    hits = np.diagonal(matrix, axis1=1, axis2=2)[:, kept].sum(axis=1)
    return np.stack([hits, matrix[:, kept].sum(axis=(1, 2))], axis=1)


def _intersections_and_unions(matrix: Floats, judged: Judged) -> Floats:
    """Return intersection and union of background and each judged class, (N, 2 K), from matrices (N, C + 1, C + 1)."""
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    union = matrix.sum(axis=1) + matrix.sum(axis=2) - hits
    kept = np.append(True, judged)
    return np.concatenate([hits[:, kept], union[:, kept]], axis=1)


def average_precision(scores: NDArray[Any], labels: NDArray[Any], recalls: int = 0) -> float:
    """Return one class's average precision from scores (N,) and labels (N,); nan without a positive.

    `recalls` 0 gives the area under the envelope, 11 the mean at eleven recalls.
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
    if recalls:
        levels = np.linspace(0, 1, recalls)
        places = np.searchsorted(recall, levels - 1e-12)
        return float(np.append(envelope, 0.0)[places].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


_ALL = (
    Metric("acc_keras", "Keras accuracy (the paper's Acc)", "scores", acc_keras, by_class=False),
    Metric("acc_subset", "subset accuracy", "scores", acc_subset, by_class=False),
    Metric("map_voc", "mAP, area under the envelope", "scores", ranked=map_voc),
    Metric("map_voc07", "mAP, 11 points", "scores", ranked=map_voc07, recalls=RECALLS),
    Metric("f1_macro", "macro F1 at 0.5", "scores", f1_macro),
    Metric("miou_voc", "mIoU, void ignored", "confusion", miou_voc),
    Metric("miou_paper", "mIoU, void as background", "confusion", miou_paper),
    Metric("pixel_acc", "pixel accuracy", "confusion", pixel_acc, by_class=False),
    Metric("map_lowshot", "mAP of low-shot samples", "shots", ranked=map_lowshot),
)
METRICS: dict[str, Metric] = {metric.id: metric for metric in _ALL}
