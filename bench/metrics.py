"""Metrics: pure functions of saved predictions, each with an id that says exactly which of its namesakes it is.

Predictions of a classification are `scores` (N, C) in [0, 1] and `labels` (N, C): 1 present, 0 absent, -1 difficult only. Those
of a segmentation are `confusion` (N, C + 2, C + 1): one matrix an image, row = truth, column = prediction, 0 = background,
last row = void; where surfaces are compared, `surface` (N, C) too (`bench.surface`). Those of a low-shot probe are `shots`
(N, shots, draws, C) in [0, 1], a score for each sample of labelled images, and `labels`. `bench.detection` says what those of a
detection are. `scored` says which of the C classes the data can judge; the others stay out of every mean.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import detection, segmentation_metrics
from bench.detection import Matched
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
    is the mean of the K ratios of their sums that are defined. Average precisions are `ranked` instead, and those of detections
    `detected`.
    """

    id: str
    title: str
    needs: str
    terms: Callable[[Predictions, Judged], Floats] | None = None
    ranked: Callable[[NDArray[Any], NDArray[Any]], float] | None = None
    """The value of a class from the scores (N,), or (N, shots, draws), and labels (N,) of its images."""
    recalls: int = 0
    """At how many recalls such a value reads precision; 0 for the area under the envelope."""
    detected: Callable[[Predictions, Judged], Floats] | None = None
    """The value of each judged class from detections."""
    matched: Callable[[Predictions, Judged], list[Matched]] | None = None
    """What gives the same values for resamples of the images: the detections of each judged class, matched in their images."""
    by_class: bool = True
    """Whether each class has a value of its own."""
    background: bool = False
    """Whether the background has one too, before the classes."""
    slow: bool = False
    """Whether a value is the mean of so many rankings that fewer resamples are drawn."""
    single: bool = False
    """Whether it is of images that have one class each."""
    lower: bool = False
    """Whether lower is better. Such a metric is never a protocol's main one, by which rates and settings are chosen."""
    version: int = 1

    @property
    def key(self) -> str:
        """The id with its version, as columns and records have it; a changed definition has a new version."""
        return f"{self.id}@{self.version}"

    def values(self, predictions: Predictions, judged: Judged) -> Floats:
        """Return the values whose mean is the metric, of each judged class or of all together; nan where one is not defined."""
        if self.terms is not None:
            return ratios(self.terms(predictions, judged).sum(axis=0))
        if self.detected is not None:
            return self.detected(predictions, judged)
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
    named = zip(["background", *names] if chosen.background else names, values, strict=True)
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


def direction(metric: str) -> int:
    """Return 1 where a higher value of a metric is better, -1 where a lower one is; 1 for an id that does not exist here."""
    found = METRICS.get(metric.partition("@")[0])
    return -1 if found is not None and found.lower else 1


def explanation(metric: Metric) -> str:
    """Return what a metric is, with its formula, source and an example that runs."""
    return inspect.cleandoc((metric.terms or metric.ranked or metric.detected).__doc__ or "")


def acc_keras(predictions: Predictions, judged: Judged) -> Floats:
    """Keras' `accuracy` on a multi-hot target: the share of images whose top score is their first positive class.

    (1/N) sum [argmax_c s_nc == min {c : y_nc = 1}], c over the scored classes. Keras picks categorical accuracy from the shapes
    alone, and the argmax of a multi-hot row is its lowest index. Difficult objects count as present, as in the annotations. An
    image without a scored class is left out. Source: keras 2.7, engine/compile_utils.py.

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


def acc_top1(predictions: Predictions, judged: Judged) -> Floats:
    """Top-1 accuracy, where each image has one class: the share of images whose top score is their class.

    (1/N) sum [argmax_c s_nc == y_n], over the images of the scored classes; of equal scores the first class counts.

    >>> found = {"scores": np.array([[.1, .9], [.2, .1]]), "labels": np.array([[0, 1], [0, 1]])}
    >>> compute("acc_top1", found, ("a", "b"), ("a", "b"))
    0.5
    """
    shown = (predictions["labels"][:, judged] == 1).any(axis=1)
    return np.stack([_hits(predictions, judged).any(axis=1), shown], axis=1).astype(np.float64)


def acc_class(predictions: Predictions, judged: Judged) -> Floats:
    """Mean class accuracy, where each image has one class: top-1 accuracy of each class's images, averaged over scored classes.

    (1/C) sum_c (1/N_c) sum_{y_n = c} [argmax s_n == c]; a class without images is left out. Also called balanced accuracy, and
    what Oxford Flowers and Pets report.

    Two images of class a, one of them found, and one of class b, which is found:

    >>> found = {"scores": np.array([[.9, .1], [.1, .9], [.1, .9]]), "labels": np.array([[1, 0], [1, 0], [0, 1]])}
    >>> compute("acc_class", found, ("a", "b"), ("a", "b"))
    0.75
    """
    labels = predictions["labels"][:, judged] == 1
    return np.concatenate([_hits(predictions, judged).astype(np.float64), labels.astype(np.float64)], axis=1)


def _hits(predictions: Predictions, judged: Judged) -> NDArray[np.bool_]:
    """Return where an image's top score is a class that it shows, (N, K)."""
    scores, labels = predictions["scores"][:, judged], predictions["labels"][:, judged] == 1
    top = np.zeros(labels.shape, dtype=np.bool_)
    top[np.arange(len(scores)), scores.argmax(axis=1)] = True
    hits: NDArray[np.bool_] = top & labels
    return hits


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
    last = np.append(np.nonzero(np.diff(scores[rank]))[0], len(rank) - 1)  # the last of each group of equal score
    return detection.under_envelope(hits[last], last + 1, int(truth.sum()), detection.recall_levels(recalls))


_ALL = (
    Metric("acc_keras", "Keras accuracy (the paper's Acc)", "scores", acc_keras, by_class=False),
    Metric("acc_subset", "subset accuracy", "scores", acc_subset, by_class=False),
    Metric("acc_top1", "top-1 accuracy", "scores", acc_top1, by_class=False, single=True),
    Metric("acc_class", "mean class accuracy", "scores", acc_class, single=True),
    Metric("map_voc", "mAP, area under the envelope", "scores", ranked=map_voc),
    Metric("map_voc07", "mAP, 11 points", "scores", ranked=map_voc07, recalls=RECALLS),
    Metric("f1_macro", "macro F1 at 0.5", "scores", f1_macro),
    Metric("miou_voc", "mIoU, void ignored", "confusion", segmentation_metrics.miou_voc, background=True),
    Metric("miou_paper", "mIoU, void as background", "confusion", segmentation_metrics.miou_paper, background=True),
    Metric("pixel_acc", "pixel accuracy", "confusion", segmentation_metrics.pixel_acc, by_class=False),
    Metric("dice", "Dice, mean over images", "confusion", segmentation_metrics.dice),
    Metric("iou_fg", "mIoU without background", "confusion", segmentation_metrics.iou_fg),
    Metric("hd95", "95 % Hausdorff distance, lower is better", "surface", segmentation_metrics.hd95, lower=True),
    Metric("ap50_voc", "detection mAP at 0.5", "boxes", detected=detection.ap50_voc, matched=detection.match_voc),
    Metric(
        "ap50_voc07", "detection mAP at 0.5, 11 points", "boxes", detected=detection.ap50_voc07, matched=detection.match_voc07
    ),
    Metric(
        "ap_coco", "detection AP at 0.5 to 0.95", "boxes", detected=detection.ap_coco, matched=detection.match_coco, slow=True
    ),
    Metric("map_lowshot", "mAP of low-shot samples", "shots", ranked=map_lowshot, slow=True),
)
METRICS: dict[str, Metric] = {metric.id: metric for metric in _ALL}
