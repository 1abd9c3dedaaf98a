"""Metrics of detection against the VOC devkit's rules written down slowly, and against COCOeval called as its manual says."""

import doctest
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from bench import detection, metrics
from bench.errors import DataError

CLASSES = ("a", "b", "c", "d")
METRICS = ("ap50_voc", "ap50_voc07", "ap_coco")


def drawn(seed: int, images: int = 8, tied: bool = False, flags: tuple[int, ...] = (0, 0, 0, 1, 2)) -> dict[str, np.ndarray]:
    """Draw small integer boxes, half of the detections near a true box, some of them twice; class d is never true."""
    rng = np.random.default_rng(seed)
    rows, most = int(rng.integers(0, 12)), int(rng.integers(0, 6))

    def boxes(*shape: int) -> np.ndarray:
        corners = rng.integers(0, 12, (*shape, 2))
        return np.concatenate([corners, corners + rng.integers(1, 9, (*shape, 2))], axis=-1)

    truth = np.concatenate([rng.integers(-1, 3, (images, most, 1)), boxes(images, most), np.zeros((images, most, 1))], axis=2)
    truth[..., 5] = rng.choice(flags, (images, most))
    found, edges = rng.integers(-1, 4, (images, rows)), boxes(images, rows)
    for image, row in np.ndindex(images, rows):
        near = rng.integers(0, 3)
        if near and most:
            chosen = truth[image, rng.integers(most)]
            found[image, row], edges[image, row] = chosen[0], chosen[1:5]
            edges[image, row, 2:] += rng.integers(0, 3, 2) * (near - 1)
    confidences = rng.permutation(images * rows).reshape(images, rows) / max(1, images * rows)
    if tied:
        confidences = np.round(confidences, 1)
    sizes = np.full((images, 2), 24, np.int32)
    return {
        "boxes": edges.astype(np.float32), "confidences": confidences.astype(np.float32), "found": found.astype(np.int16),
        "truth": truth.astype(np.float32), "sizes": sizes,
    }  # fmt: skip


def slow_voc(predictions: metrics.Predictions, c: int, eleven: bool) -> float:
    """Compute the average precision of a class as VOCevaldet.m and VOCap.m do, with pixels counted and both ends included."""

    def pixels(edges: np.ndarray) -> tuple[int, ...]:
        left, top, right, bottom = (int(edge) for edge in edges)
        return left + 1, top + 1, right, bottom  # the first and the last pixel, counted from 1

    real: list[list[dict[str, Any]]] = []
    for rows in predictions["truth"]:
        of_class = [row for row in rows if row[0] == c]
        real.append([{"bb": pixels(row[1:5]), "diff": row[5] != 0, "det": False} for row in of_class])
    positives = sum(not one["diff"] for of_image in real for one in of_image)
    if not positives:
        return math.nan
    places = [place for place in np.ndindex(*predictions["found"].shape) if predictions["found"][place] == c]
    places.sort(key=lambda place: -predictions["confidences"][place])
    right = wrong = 0
    curve: list[tuple[Fraction, Fraction]] = []
    for number, place in enumerate(places):
        bb = pixels(predictions["boxes"][place])
        largest, match = -math.inf, None
        for one in real[place[0]]:
            gt = one["bb"]
            width, height = min(bb[2], gt[2]) - max(bb[0], gt[0]) + 1, min(bb[3], gt[3]) - max(bb[1], gt[1]) + 1
            if width > 0 and height > 0:
                own, theirs = ((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (bb, gt))
                overlap = Fraction(width * height, own + theirs - width * height)
                if overlap > largest:
                    largest, match = overlap, one
        if match is not None and largest >= Fraction(1, 2):
            if not match["diff"]:
                right, wrong = right + (not match["det"]), wrong + match["det"]
                match["det"] = True
        else:
            wrong += 1
        following = places[number + 1] if number + 1 < len(places) else None
        if following is None or predictions["confidences"][following] != predictions["confidences"][place]:
            curve.append((Fraction(right, positives), Fraction(right, max(1, right + wrong))))
    if eleven:
        return float(sum(max((p for r, p in curve if r >= Fraction(t, 10)), default=0) for t in range(11)) / Fraction(11))
    recall, precision = [Fraction(0), *(r for r, _ in curve), Fraction(1)], [Fraction(0), *(p for _, p in curve), Fraction(0)]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return float(sum((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall))))


def plain_coco(predictions: metrics.Predictions, folder: Path, classes: int) -> COCOeval:
    """Return pycocotools' evaluation of two JSON files with all its defaults; no box may be difficult."""
    images = [{"id": n} for n in range(len(predictions["found"]))]
    real, found = [], []
    for n, row in np.ndindex(*predictions["truth"].shape[:2]):
        c, left, top, right, bottom, flag = predictions["truth"][n, row].tolist()
        if c >= 0:
            box, area = [left, top, right - left, bottom - top], (right - left) * (bottom - top)
            one = {"id": len(real) + 1, "image_id": n, "category_id": int(c), "bbox": box, "area": area}
            real.append({**one, "iscrowd": int(flag == 2)})
    for place in np.ndindex(*predictions["found"].shape):
        left, top, right, bottom = predictions["boxes"][place].tolist()
        if predictions["found"][place] >= 0:
            box, score = [left, top, right - left, bottom - top], float(predictions["confidences"][place])
            found.append({"image_id": place[0], "category_id": int(predictions["found"][place]), "bbox": box, "score": score})
    categories = [{"id": c} for c in range(classes)]
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": real, "categories": categories}))
    (folder / "found.json").write_text(json.dumps(found))
    coco = COCO(str(folder / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(folder / "found.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def test_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(detection, extraglobs={"compute": metrics.compute}).failed == 0


@pytest.mark.parametrize("tied", [False, True])
def test_ap50_is_that_of_the_voc_devkit(tied: bool) -> None:
    values = []
    for seed in range(250):
        predictions = drawn(seed, tied=tied)
        for metric, eleven in (("ap50_voc", False), ("ap50_voc07", True)):
            found = metrics.per_class(metric, predictions, CLASSES, CLASSES)
            slow = {name: slow_voc(predictions, c, eleven) for c, name in enumerate(CLASSES)}
            assert {name: math.nan if value is None else value for name, value in found.items()} == pytest.approx(
                slow, abs=1e-12, nan_ok=True
            ), seed
            assert found["d"] is None
            values += [value for value in slow.values() if not math.isnan(value)]
    inside = np.mean([0.01 < value < 0.99 for value in values])
    assert inside > 0.5, "the drawn cases say little"


def test_classes_that_are_not_scored_stay_out_of_the_mean() -> None:
    predictions = drawn(0)
    for metric in METRICS:
        values = metrics.per_class(metric, predictions, CLASSES, ("a", "c"))
        every = metrics.per_class(metric, predictions, CLASSES, CLASSES)
        assert values == {name: every[name] for name in ("a", "c")}
        assert metrics.compute(metric, predictions, CLASSES, ("a", "c")) == pytest.approx(np.mean(list(values.values())))


@pytest.mark.parametrize("tied", [False, True])
def test_ap_coco_is_that_of_cocoeval_called_as_its_manual_says(tied: bool, tmp_path: Path) -> None:
    compared = 0
    for seed in range(25):
        predictions = drawn(seed, images=20, tied=tied, flags=(0, 0, 0, 2))
        if not (predictions["found"] >= 0).any():
            continue  # loadRes takes no empty list
        evaluation = plain_coco(predictions, tmp_path, len(CLASSES))
        value = metrics.compute("ap_coco", predictions, CLASSES, CLASSES)
        assert (-1.0 if math.isnan(value) else value) == pytest.approx(evaluation.stats[0], abs=1e-12)
        plain = evaluation.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))
        by_class = metrics.per_class("ap_coco", predictions, CLASSES, CLASSES)
        assert [-1.0 if one is None else one for one in by_class.values()] == pytest.approx(plain.tolist(), abs=1e-12)
        compared += 0.01 < value < 0.99
    assert compared > 10


def test_coco_scores_a_hundred_detections_of_a_class_in_an_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 200, (1, 130, 2))
    boxes = np.concatenate([corners, corners + 20], axis=2).astype(np.float32)
    truth = np.concatenate([np.zeros((1, 130, 1)), boxes, np.zeros((1, 130, 1))], axis=2).astype(np.float32)
    confidences = rng.permutation(130)[None].astype(np.float32) / 130
    predictions = {"boxes": boxes, "confidences": confidences, "found": np.zeros((1, 130), np.int16), "truth": truth}
    value = metrics.compute("ap_coco", predictions, ("a",), ("a",))
    assert value == pytest.approx(plain_coco(predictions, tmp_path, 1).stats[0], abs=1e-12) and value < 0.8
    assert metrics.compute("ap50_voc", predictions, ("a",), ("a",)) > 0.95  # VOC takes all of them


def test_coco_ignores_a_difficult_box_with_the_one_detection_that_takes_it() -> None:
    edges = np.array([[[0, 0, 9, 9], [0, 0, 9, 9], [20, 20, 29, 29]]], np.float32)
    truth = np.array([[[0, 0, 0, 9, 9, 1], [0, 20, 20, 29, 29, 0]]], np.float32)
    found = {"boxes": edges, "confidences": np.array([[0.9, 0.8, 0.7]], np.float32), "found": np.zeros((1, 3), np.int16)}
    once = {name: values[:, [0, 2]] for name, values in found.items()}
    assert metrics.compute("ap_coco", {**once, "truth": truth}, ("a",), ("a",)) == pytest.approx(1)
    assert metrics.compute("ap_coco", {**found, "truth": truth}, ("a",), ("a",)) == pytest.approx(0.5)  # the second is wrong
    assert metrics.compute("ap50_voc", {**found, "truth": truth}, ("a",), ("a",)) == 1  # VOC leaves both out
    crowd = truth.copy()
    crowd[0, 0, 5] = detection.CROWD
    assert metrics.compute("ap_coco", {**found, "truth": crowd}, ("a",), ("a",)) == pytest.approx(1)
    judged = truth.copy()
    judged[0, 0, 5] = detection.JUDGED
    assert metrics.compute("ap_coco", {**found, "truth": judged}, ("a",), ("a",)) == pytest.approx((51 + 50 * 2 / 3) / 101)


@pytest.mark.parametrize("metric", METRICS)
def test_the_truth_scores_all_and_that_of_other_images_next_to_nothing(metric: str) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 400, (60, 3, 2))
    edges = np.concatenate([corners, corners + rng.uniform(20, 90, (60, 3, 2))], axis=2).astype(np.float32)
    classes = rng.integers(0, 4, (60, 3))
    truth = np.concatenate([classes[..., None], edges, np.zeros((60, 3, 1))], axis=2).astype(np.float32)
    confidences = rng.uniform(size=(60, 3)).astype(np.float32)
    found = {"boxes": edges, "confidences": confidences, "found": classes.astype(np.int16)}
    assert metrics.compute(metric, {**found, "truth": truth}, CLASSES, CLASSES) == pytest.approx(1, abs=1e-9)
    assert metrics.compute(metric, {**found, "truth": np.roll(truth, 1, axis=0)}, CLASSES, CLASSES) < 0.02


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_found_scores_0_and_nothing_true_scores_nothing(metric: str) -> None:
    truth = np.array([[[0, 0, 0, 9, 9, 0], [1, 0, 0, 9, 9, 1]]], np.float32)
    for rows in (0, 2):
        none = {"boxes": np.zeros((1, rows, 4)), "confidences": np.zeros((1, rows)), "found": np.full((1, rows), -1, np.int16)}
        assert metrics.per_class(metric, {**none, "truth": truth}, ("a", "b"), ("a", "b")) == {"a": 0.0, "b": None}
        for empty in (truth[:, :0], np.full_like(truth, -1)):
            assert math.isnan(metrics.compute(metric, {**none, "truth": empty}, ("a", "b"), ("a", "b")))


def test_what_cocoeval_prints_is_silenced_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    metrics.compute("ap_coco", drawn(0), CLASSES, CLASSES)
    print("said")
    assert capsys.readouterr().out == "said\n"
    from pycocotools import cocoeval

    assert "print" not in vars(cocoeval)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"found": np.full((8, 3), 4, np.int16)}, "class 4, but there are 4"),
        ({"found": np.zeros((8, 2), np.int16)}, "do not fit together"),
        ({"truth": np.zeros((7, 1, 6))}, "do not fit together"),
        ({"truth": np.full((8, 1, 6), 7.0)}, "class 7, but there are 4"),
        ({"boxes": np.full((8, 3, 4), np.nan)}, "not finite"),
        ({"confidences": np.full((8, 3), np.inf)}, "not finite"),
    ],
)
@pytest.mark.parametrize("metric", METRICS)
def test_predictions_that_cannot_be_are_refused(metric: str, change: dict[str, np.ndarray], said: str) -> None:
    whole = {"boxes": np.zeros((8, 3, 4)), "confidences": np.zeros((8, 3)), "found": np.zeros((8, 3), np.int16)}
    truth = np.full((8, 1, 6), -1.0)
    with pytest.raises(DataError, match=said):
        metrics.compute(metric, {**whole, "truth": truth, **change}, CLASSES, CLASSES)
    with pytest.raises(DataError, match="lack truth"):
        metrics.compute(metric, whole, CLASSES, CLASSES)
