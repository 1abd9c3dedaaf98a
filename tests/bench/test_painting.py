"""Boxes painted as class ids."""

import numpy as np

from bench.experiment.examples import image_iou
from bench.metrics import VOID
from bench.painting import confusion, painted


def test_small_boxes_lie_over_large_ones_and_boxes_that_are_not_judged_under_all() -> None:
    boxes = np.array([[2.0, 2, 4, 4], [0, 0, 8, 6], [0, 0, 10, 8], [0, 0, 3, 3]])
    found = painted(boxes, np.array([0, 1, 2, -1]), np.array([True, True, False, True]), (8, 10))
    expected = np.full((8, 10), VOID)
    expected[:6, :8] = 2
    expected[2:4, 2:4] = 1
    np.testing.assert_array_equal(found, expected)
    assert painted(np.array([[-3.0, -3, 20, 20]]), np.array([1]), np.array([True]), (4, 4)).tolist() == [[2] * 4] * 4


def test_the_truth_as_prediction_is_right_everywhere_and_unsure_detections_are_not_painted() -> None:
    truth = np.array([[[0, 10, 10, 60, 50, 0], [2, 0, 60, 40, 90, 0], [-1, 0, 0, 0, 0, 0]]], dtype=np.float32)
    found = {
        "boxes": truth[..., 1:5], "found": truth[..., 0].astype(np.int16), "truth": truth, "sizes": np.array([[100, 80]]),
        "confidences": np.array([[0.9, 0.6, 0.9]], dtype=np.float32),
    }  # fmt: skip
    counts = confusion(found, 3, 32)
    assert counts.sum() == 32 * 32 and image_iou(counts)[0] == 1
    assert image_iou(confusion({**found, "confidences": np.full((1, 3), 0.2)}, 3, 32))[0] < 0.5
