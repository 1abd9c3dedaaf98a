"""Metrics of segmentation: terms of each image whose sums give the value, from matrices of pixels or distances of surfaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bench.metrics import Floats, Judged, Predictions

STEP = 2.0**-30
"""What the terms of an image are rounded to, about 1e-9, so that sums of millions are exact in any order of adding."""


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


def dice(predictions: Predictions, judged: Judged) -> Floats:
    """Dice as medical challenges report it: of each scored class, the mean over the images that show it; without background.

    (1/C) sum_c (1/N_c) sum_n Dice_nc, where Dice_nc = 2 TP / (2 TP + FP + FN) of the pixels of image n, void ignored, and N_c
    counts the images whose truth shows class c. An image whose truth does not show a class is not judged for it. Source: MONAI,
    DiceMetric(include_background=False, reduction="mean_batch", ignore_empty=True).

    Two pixels of class a, one of them found, and one of background:

    >>> round(compute("dice", {"confusion": np.array([[[1, 0], [1, 1], [0, 1]]])}, ("a",), ("a",)), 4)  # 2 / (2 + 0 + 1)
    0.6667
    """
    matrix = predictions["confusion"][:, :-1].astype(np.float64)
    hits, shown, found = np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2), matrix.sum(axis=1)
    shares = np.divide(2 * hits, shown + found, out=np.zeros_like(shown), where=shown > 0)[:, 1:][:, judged]
    return np.concatenate([_rounded(shares), shown[:, 1:][:, judged] > 0], axis=1)


def iou_fg(predictions: Predictions, judged: Judged) -> Floats:
    """Intersection over union of each scored class, over the whole test set, averaged without the background; void ignored.

    IoU_c = TP / (TP + FP + FN); a class that is in neither truth nor prediction is left out.

    >>> compute("iou_fg", {"confusion": np.array([[[2, 0], [1, 1], [0, 1]]])}, ("a",), ("a",))
    0.5
    """
    matrix = predictions["confusion"][:, :-1].astype(np.float64)
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    union = matrix.sum(axis=1) + matrix.sum(axis=2) - hits
    return np.concatenate([hits[:, 1:][:, judged], union[:, 1:][:, judged]], axis=1)


def hd95(predictions: Predictions, judged: Judged) -> Floats:
    """95th percentile Hausdorff distance as a share of the image's diagonal; LOWER is better.

    Of each scored class, the mean over the images whose truth shows it, then the mean over classes. An image counts 1 where
    nothing of the class is found. `surface` (N, C) holds the distances, nan where the truth shows nothing (`bench.surface`).
    Source: MONAI, compute_hausdorff_distance(percentile=95).

    The first image's surfaces are apart by an eighth of its diagonal, the second shows nothing of the class, in the third nothing
    was found:

    >>> compute("hd95", {"surface": np.array([[0.125], [np.nan], [1.0]])}, ("a",), ("a",))
    0.5625
    """
    distances = predictions["surface"][:, judged].astype(np.float64)
    shown = ~np.isnan(distances)
    return np.concatenate([_rounded(np.where(shown, distances, 0.0)), shown], axis=1)


def _rounded(values: Floats) -> Floats:
    return np.round(values / STEP) * STEP


def _intersections_and_unions(matrix: Floats, judged: Judged) -> Floats:
    """Return intersection and union of background and each judged class, (N, 2 K), from matrices (N, C + 1, C + 1)."""
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    union = matrix.sum(axis=1) + matrix.sum(axis=2) - hits
    kept = np.append(True, judged)
    return np.concatenate([hits[:, kept], union[:, kept]], axis=1)
