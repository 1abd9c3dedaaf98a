"""Metrics of object detection: detections are matched to boxes within each image, and precision is read along their confidences.

Predictions of a detection are, for each of N images, `boxes` float32 (N, K, 4), left, top, right and bottom edges in pixels of
the original image, `confidences` float32 (N, K) in [0, 1], `found` int16 (N, K), the class of each or -1 for a row that is no
detection, `truth` float32 (N, M, 6), the class (-1: no box), the four edges and a flag (0 judged, 1 difficult, 2 crowd), and
`sizes` int32 (N, 2), height and width of the original image. Edges are continuous: a box of the first pixel alone is 0, 0, 1, 1.

No match depends on other images, so a metric of resampled images is one of weighted matches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import DataError

if TYPE_CHECKING:
    from bench.metrics import Floats, Judged, Predictions

BOX_ARRAYS = ("boxes", "confidences", "found", "truth")
JUDGED, DIFFICULT, CROWD = 0, 1, 2
"""The flags of a true box: it has to be found; it need not be; it is a region of many objects."""
MOST = 1_000
"""The most detections, and the most true boxes, of an image: what a file of predictions may hold."""
OVERLAP = 0.5
"""The least intersection over union at which VOC takes a box for found."""
MOST_COCO = 100
"""How many detections of an image and class COCO scores."""
AT_ONCE = 1 << 20
"""How many overlaps are computed at once."""
_ALL_AREAS = (0.0, 1e10)
"""COCO's area range `all`, in square pixels."""
_OUTSIDE = -1.0
"""An area outside of it, which makes COCOeval ignore a box; it overwrites the field `ignore`."""


@dataclass(frozen=True)
class Matched:
    """The D detections of one class in N images from the highest confidence down, matched at T thresholds of overlap.

    `images` int64 (D,) says which image each is of, `points` int64 (D,) the operating point that it belongs to, from 0 up.
    `right` and `judged` bool (T, D) say whether it finds a box, and whether it counts at all. `boxes` int64 (N,) is how many
    boxes of each image have to be found. `levels` (R,) are the recalls at which precision is read; none for the area under the
    envelope.
    """

    images: NDArray[np.int64]
    points: NDArray[np.int64]
    right: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    boxes: NDArray[np.int64]
    levels: Floats

    def average_precision(self) -> float:
        """Return the mean over thresholds of the class's average precision; nan where no box has to be found."""
        total = int(self.boxes.sum())
        if not total:
            return math.nan
        last = np.nonzero(np.diff(self.points, append=-1))[0]
        hits, counted = np.cumsum(self.right, axis=1)[:, last], np.cumsum(self.judged, axis=1)[:, last]
        return float(np.mean([under_envelope(*one, total, self.levels) for one in zip(hits, counted, strict=True)]))


def under_envelope(hits: NDArray[Any], counted: NDArray[Any], positives: int, levels: Floats) -> float:
    """Return the area under the precision envelope, or its mean at some recalls `levels`.

    `hits` and `counted` (G,) are how many are right, and how many there are, down to each operating point.
    """
    recall, precision = hits / positives, hits / np.maximum(counted, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if len(levels):
        return float(np.append(envelope, 0.0)[np.searchsorted(recall, levels)].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def recall_levels(count: int) -> Floats:
    """Return `count` recalls from 0 to 1, less a little that makes up for rounding; none for 0."""
    return np.linspace(0, 1, count) - 1e-12 if count else np.zeros(0)


def ap50_voc(predictions: Predictions, judged: Judged) -> Floats:
    """VOC's average precision of detections at an overlap of 0.5: the area under the precision envelope, averaged over classes.

    The detections of a class, from the highest confidence down, each take the box of their image and class that they overlap
    most. An overlap of at least 0.5 is right the first time the box is taken and wrong from then on; the detection is left out
    where the box is difficult. Any other detection is wrong. Recall counts the boxes that are not difficult; a class without any
    is left out of the mean. Crowds count as difficult. Equal confidences are one operating point. VOC's overlap counts pixels,
    both ends included; with continuous edges that is intersection over union. Source: VOC devkit 2012, VOCevaldet.m and VOCap.m.

    The second of three detections finds nothing:

    >>> boxes = np.array([[[0, 0, 9, 9], [40, 40, 49, 49], [20, 20, 29, 29]]])
    >>> truth = np.array([[[0, 0, 0, 9, 9, 0], [0, 20, 20, 29, 29, 0]]])
    >>> found = {"boxes": boxes, "confidences": np.array([[.9, .8, .7]]), "found": np.array([[0, 0, 0]]), "truth": truth}
    >>> round(compute("ap50_voc", found, ("a",), ("a",)), 4)
    0.8333
    """
    return _values(match_voc(predictions, judged))


def ap50_voc07(predictions: Predictions, judged: Judged) -> Floats:
    """VOC 2007's average precision of detections: that of ap50_voc, read at the recalls 0, 0.1, ..., 1 (11 points).

    Source: Everingham et al. 2010, section 4.2, and the VOC 2007 devkit, VOCevaldet.m.

    >>> boxes = np.array([[[0, 0, 9, 9], [40, 40, 49, 49], [20, 20, 29, 29]]])
    >>> truth = np.array([[[0, 0, 0, 9, 9, 0], [0, 20, 20, 29, 29, 0]]])
    >>> found = {"boxes": boxes, "confidences": np.array([[.9, .8, .7]]), "found": np.array([[0, 0, 0]]), "truth": truth}
    >>> round(compute("ap50_voc07", found, ("a",), ("a",)), 4)  # 1 at the recalls 0 to 0.5, else 2/3
    0.8485
    """
    return _values(match_voc07(predictions, judged))


def ap_coco(predictions: Predictions, judged: Judged) -> Floats:
    """COCO's AP: average precision at 101 recalls, averaged over the overlaps 0.5, 0.55, ..., 0.95 and the classes.

    Computed by pycocotools' COCOeval: all areas, at most 100 detections of a class in an image. A detection takes the free box
    that it overlaps most, and a judged one before any other. Crowds are `iscrowd`: they take any number of detections, which are
    left out. Difficult boxes are ignored, each with the one detection that takes it. Of equal confidences the earlier image
    comes first. Source: pycocotools, cocoeval.py; https://cocodataset.org/#detection-eval.

    The box is found with an overlap of 8/9, so at 8 of 10 thresholds:

    >>> found = {"boxes": np.array([[[0, 0, 9, 8]]]), "confidences": np.array([[.9]]), "found": np.array([[0]]),
    ...          "truth": np.array([[[0, 0, 0, 9, 9, 0]]])}
    >>> round(compute("ap_coco", found, ("a",), ("a",)), 4)
    0.8
    """
    evaluation = _evaluate(predictions, judged)
    with _quiet():
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # thresholds, recalls, classes; -1 for a class without a box
    return np.where((precision < 0).all(axis=(0, 1)), np.nan, precision.mean(axis=(0, 1)))


def _values(matched: Sequence[Matched]) -> Floats:
    return np.array([one.average_precision() for one in matched], dtype=np.float64)


def match_voc(predictions: Predictions, judged: Judged, recalls: int = 0) -> list[Matched]:
    """Return the detections of each judged class, matched as `ap50_voc` says."""
    boxes, confidences, classes, truth = arrays(predictions, len(judged))
    images, rows = np.nonzero(classes >= 0)
    taken, overlaps = _largest_overlaps(boxes, classes, truth)
    order = np.argsort(-confidences[images, rows], kind="stable")
    images, rows = images[order], rows[order]
    taken, reached = taken[images, rows], overlaps[images, rows] >= OVERLAP
    has_to_be_found = truth[..., 5] == JUDGED
    left_out, right = np.zeros((2, len(order)), dtype=np.bool_)
    left_out[reached] = ~has_to_be_found[images[reached], taken[reached]]
    claims = np.nonzero(reached & ~left_out)[0]
    right[claims[np.unique(images[claims] * max(1, truth.shape[1]) + taken[claims], return_index=True)[1]]] = True
    found = []
    for c in np.nonzero(judged)[0]:
        own = np.nonzero(classes[images, rows] == c)[0]
        points = np.cumsum(np.diff(confidences[images[own], rows[own]], prepend=np.inf) != 0) - 1
        wanted = ((truth[..., 0] == c) & has_to_be_found).sum(axis=1)
        found.append(Matched(images[own], points, right[None, own], ~left_out[None, own], wanted, recall_levels(recalls)))
    return found


def match_voc07(predictions: Predictions, judged: Judged) -> list[Matched]:
    """Return the detections of each judged class, matched as `ap50_voc07` says."""
    return match_voc(predictions, judged, 11)


def match_coco(predictions: Predictions, judged: Judged) -> list[Matched]:
    """Return the detections of each judged class as COCOeval matches them at its ten thresholds, each a point of its own."""
    evaluation = _evaluate(predictions, judged)
    count = len(evaluation.params.imgIds)
    found = []
    for place in range(len(evaluation.params.catIds)):
        parts = [one for one in evaluation.evalImgs[place * count : (place + 1) * count] if one is not None]
        boxes = np.zeros(count, dtype=np.int64)
        boxes[[one["image_id"] for one in parts]] = [np.count_nonzero(one["gtIgnore"] == 0) for one in parts]
        images = np.repeat([one["image_id"] for one in parts], [len(one["dtScores"]) for one in parts]).astype(np.int64)
        order = np.argsort(-np.array([score for one in parts for score in one["dtScores"]], dtype=np.float64), kind="stable")
        none = np.zeros((len(evaluation.params.iouThrs), 0))
        matches = np.concatenate([none, *(one["dtMatches"] for one in parts)], axis=1)[:, order] > 0
        counts = np.concatenate([none, *(one["dtIgnore"] for one in parts)], axis=1)[:, order] == 0
        levels = np.array(evaluation.params.recThrs)
        found.append(Matched(images[order], np.arange(len(order)), matches & counts, counts, boxes, levels))
    return found


def arrays(predictions: Predictions, classes: int) -> tuple[Floats, Floats, NDArray[np.int64], Floats]:
    """Return the boxes, confidences, classes and true boxes of predictions, checked.

    Raises DataError for an array that is missing or of another shape, for a class that does not exist, and for a number that is
    not finite.
    """
    missing = [name for name in BOX_ARRAYS if name not in predictions]
    if missing:
        raise DataError(f"these predictions of boxes lack {', '.join(missing)}.")
    boxes, confidences, truth = (np.asarray(predictions[name], np.float64) for name in ("boxes", "confidences", "truth"))
    found = np.asarray(predictions["found"], np.int64)
    shapes = {name: np.shape(predictions[name]) for name in BOX_ARRAYS}
    if boxes.shape != (*found.shape, 4) or confidences.shape != found.shape or truth.shape != (len(found), *truth.shape[1:2], 6):
        raise DataError(f"predictions of boxes have shapes that do not fit together: {shapes}.")
    is_box, is_true = found >= 0, truth[..., 0] >= 0
    named = [*np.unique(found[is_box]).tolist(), *np.unique(truth[..., 0][is_true]).tolist()]
    if named and max(named) >= classes:
        raise DataError(f"predictions of boxes name class {int(max(named))}, but there are {classes}, counted from 0.")
    if not all(np.isfinite(one).all() for one in (boxes[is_box], confidences[is_box], truth[is_true])):
        raise DataError("predictions of boxes hold a number that is not finite.")
    return boxes, confidences, found, truth


def _largest_overlaps(boxes: Floats, classes: NDArray[np.int64], truth: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return, of each detection (N, K), the true box of its class that it overlaps most, the first of equals, and how much."""
    taken, most = np.zeros(classes.shape, dtype=np.int64), np.zeros(classes.shape)
    if not truth.shape[1]:
        return taken, most
    step = max(1, AT_ONCE // max(1, classes.shape[1] * truth.shape[1]))
    for first in range(0, len(boxes), step):
        some = slice(first, first + step)
        found, real = boxes[some, :, None], truth[some, None, :, 1:5]
        same = classes[some, :, None] == truth[some, None, :, 0]
        sides = np.minimum(found[..., 2:], real[..., 2:]) - np.maximum(found[..., :2], real[..., :2])
        shared = np.where((sides > 0).all(axis=-1) & same, sides.prod(axis=-1), 0.0)
        union = _areas(found) + _areas(real) - shared
        overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        taken[some], most[some] = overlaps.argmax(axis=2), overlaps.max(axis=2)
    return taken, most


def _areas(boxes: Floats) -> Floats:
    """Return the areas (...,) of boxes (..., 4); 0 for one whose edges are in the wrong order."""
    sides: Floats = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0).prod(axis=-1)
    return sides


class _Annotations:
    """Boxes as COCOeval asks for them: all of one side, the true ones or the detections, with ids from 1 up."""

    def __init__(self, boxes: Sequence[dict[str, Any]], images: int, classes: Sequence[int]) -> None:
        self._boxes, self._images, self._classes = boxes, images, classes

    def getImgIds(self) -> list[int]:
        return list(range(self._images))

    def getCatIds(self) -> list[int]:
        return list(self._classes)

    def getAnnIds(self, imgIds: Sequence[int], catIds: Sequence[int]) -> Sequence[int]:
        return range(len(self._boxes))

    def loadAnns(self, ids: Sequence[int]) -> Sequence[dict[str, Any]]:
        return self._boxes


def _evaluate(predictions: Predictions, judged: Judged) -> Any:
    """Return a COCOeval that has matched the detections of each judged class in each image."""
    from pycocotools.cocoeval import COCOeval  # here, because other metrics need none of it

    boxes, confidences, found, truth = arrays(predictions, len(judged))
    classes = np.nonzero(judged)[0].tolist()
    real = _listed(truth[..., 1:5], truth[..., 0].astype(np.int64), judged, flag=truth[..., 5])
    for one in real:
        one["iscrowd"] = int(one["flag"] == CROWD)
        one["area"] = one["area"] if one["flag"] != DIFFICULT else _OUTSIDE
    detected = _listed(boxes, found, judged, score=confidences)
    evaluation = COCOeval(*(_Annotations(side, len(found), classes) for side in (real, detected)), iouType="bbox")
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(_ALL_AREAS)], ["all"]
    evaluation.params.maxDets = [MOST_COCO]
    with _quiet():
        evaluation.evaluate()
    return evaluation


def _listed(boxes: Floats, classes: NDArray[np.int64], judged: Judged, **more: Floats) -> list[dict[str, Any]]:
    """Return COCO's annotations of the boxes (N, K, 4) of judged classes (N, K), with `more` (N, K) under its name."""
    images, rows = np.nonzero((classes >= 0) & judged[np.maximum(classes, 0)])
    chosen = boxes[images, rows]
    sides = np.concatenate([chosen[:, :2], np.maximum(chosen[:, 2:] - chosen[:, :2], 0.0)], axis=1)
    columns = {
        "image_id": images.tolist(), "category_id": classes[images, rows].tolist(), "bbox": sides.tolist(),
        "area": sides[:, 2:].prod(axis=1).tolist(), "id": range(1, len(images) + 1),
        **{name: values[images, rows].tolist() for name, values in more.items()},
    }  # fmt: skip
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what COCOeval prints, without taking stdout away from other threads."""
    from pycocotools import cocoeval

    cocoeval.print = lambda *_: None
    try:
        yield
    finally:
        vars(cocoeval).pop("print", None)
