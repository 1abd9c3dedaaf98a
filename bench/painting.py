"""Boxes painted as class ids, so that detections are shown beside the truth as segmentations are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics import VOID

CONFIDENT = 0.3
"""The confidence from which a detection is painted."""


def painted(boxes: NDArray[Any], classes: NDArray[Any], judged: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return class ids uint8 (H, W) of an image: 0 background, class + 1 inside a box, small boxes over large ones.

    `boxes` (M, 4) are left, top, right and bottom edge in pixels of `size` (height, width); a class of -1 is no box. A box that
    is not `judged` is void, under all others.
    """
    found = np.zeros(size, dtype=np.uint8)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for place in sorted(np.flatnonzero(classes >= 0), key=lambda one: (bool(judged[one]), -float(areas[one]))):
        left, top, right, bottom = np.rint(boxes[place]).astype(int).clip(0)
        found[top:bottom, left:right] = int(classes[place]) + 1 if judged[place] else VOID
    return found


def confusion(predictions: dict[str, NDArray[Any]], classes: int, side: int) -> NDArray[np.int64]:
    """Return how often each pair of true and painted id occurs in each image at `side` pixels, (N, C + 2, C + 1), void last.

    `predictions` are those of a detection, boxes in pixels of the original image.
    """
    counts = np.zeros((len(predictions["found"]), classes + 2, classes + 1), dtype=np.int64)
    for image, (height, width) in enumerate(predictions["sizes"]):
        scale = side / np.array([width, height, width, height])
        chosen = np.where(predictions["confidences"][image] >= CONFIDENT, predictions["found"][image], -1)
        ours = painted(predictions["boxes"][image] * scale, chosen, chosen >= 0, (side, side))
        truth = predictions["truth"][image]
        real = painted(truth[:, 1:5] * scale, truth[:, 0], truth[:, 5] == 0, (side, side)).astype(np.int64)
        real[real == VOID] = classes + 1
        np.add.at(counts[image], (real, ours), 1)
    return counts
