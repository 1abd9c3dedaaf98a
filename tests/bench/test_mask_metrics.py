"""Metrics of binary and medical masks against MONAI, torchmetrics, and slow formulas."""

import doctest
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from bench import metrics, segmentation_metrics
from bench.errors import UsageError
from bench.surface import surface_distances

CLASSES = ("a", "b")
MONAI_NEEDED = "monai.metrics"


def drawn(seed: int = 0, images: int = 12, void: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw true and found masks of two classes as discs, the second class in some images alone."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:17, :23]
    truth, found = np.zeros((2, images, 17, 23), np.uint8)
    for image in range(images):
        for c in (1, 2) if image % 3 else (1,):
            middle, radius = rng.integers(3, 14, 2), rng.integers(2, 6)
            for masks, shift in ((truth, 0), (found, rng.integers(-3, 4))):
                masks[image][(down - middle[0] - shift) ** 2 + (right - middle[1]) ** 2 <= radius**2] = c
    found[1] = 0
    truth[rng.uniform(size=truth.shape) < void] = metrics.VOID
    return truth, found


def confusion(truth: np.ndarray, found: np.ndarray) -> dict[str, np.ndarray]:
    matrices = np.zeros((len(truth), 4, 3), np.int64)
    rows = np.where(truth == metrics.VOID, 3, truth)
    for image in range(len(truth)):
        np.add.at(matrices[image], (rows[image], found[image]), 1)
    return {"confusion": matrices}


def slow_distance(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the larger 95th percentile of the distances from each edge's pixels to the nearest pixel of the other edge."""

    def edge(mask: np.ndarray) -> list[tuple[int, int]]:
        inside = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
        return [(y, x) for y, x in inside if not {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} <= inside]

    one, other = edge(found), edge(truth)
    ways = (one, other), (other, one)
    return max(float(np.percentile([min(math.dist(a, b) for b in to) for a in of], 95)) for of, to in ways)


def test_examples_in_the_docstrings_hold() -> None:
    named = {"compute": metrics.compute}
    assert doctest.testmod(segmentation_metrics, extraglobs=named).failed == 0


@pytest.mark.parametrize("void", [0.0, 0.2])
def test_dice_is_monais_mean_over_the_images_that_show_a_class(void: float) -> None:
    monai = pytest.importorskip(MONAI_NEEDED)
    truth, found = drawn(void=void)
    reference = monai.DiceMetric(include_background=False, reduction="mean_batch", ignore_empty=True)
    kept = truth != metrics.VOID
    one_hot = [torch.from_numpy(np.stack([(masks == c) & kept for c in range(3)], axis=1)).float() for masks in (found, truth)]
    reference(*one_hot)
    expected = reference.aggregate()
    values = metrics.per_class("dice", confusion(truth, found), CLASSES, CLASSES)
    assert list(values) == ["a", "b"] and list(values.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert min(expected) > 0.2 and max(expected) < 0.8 and abs(expected[0] - expected[1]) > 0.001
    assert metrics.compute("dice", confusion(truth, found), CLASSES, ("b",)) == pytest.approx(float(expected[1]), abs=1e-6)
    summed = confusion(truth, found)["confusion"].sum(axis=0, keepdims=True)
    assert metrics.compute("dice", {"confusion": summed}, CLASSES, CLASSES) != pytest.approx(expected.mean().item(), abs=0.01)


def test_iou_without_background_is_torchmetrics() -> None:
    truth, found = drawn(void=0.2)
    reference = MulticlassJaccardIndex(3, average="none", ignore_index=metrics.VOID)
    expected = reference(torch.from_numpy(found).int(), torch.from_numpy(truth).int())[1:]
    values = metrics.per_class("iou_fg", confusion(truth, found), CLASSES, CLASSES)
    assert list(values) == ["a", "b"] and list(values.values()) == pytest.approx(expected.tolist(), abs=1e-6)


def test_masks_that_are_right_score_all_and_those_of_other_images_little() -> None:
    truth, _ = drawn(void=0.1)
    right = np.where(truth == metrics.VOID, 1, truth)
    for metric in ("dice", "iou_fg"):
        assert metrics.compute(metric, confusion(truth, right), CLASSES, CLASSES) == 1
        assert metrics.compute(metric, confusion(truth, np.roll(right, 1, axis=0)), CLASSES, CLASSES) < 0.45
        assert metrics.compute(metric, confusion(truth, np.zeros_like(truth)), CLASSES, CLASSES) == 0


@pytest.mark.parametrize("void", [0.0, 0.1])
def test_surface_distances_are_those_of_the_definition(void: float) -> None:
    pytest.importorskip(MONAI_NEEDED)
    truth, found = drawn(1, 20, void)
    distances = surface_distances(found, truth, 2)
    assert distances.dtype == np.float32 and distances.shape == (20, 2)
    kinds = set()
    for image, c in np.ndindex(20, 2):
        ours, real = ((masks[image] == c + 1) & (truth[image] != metrics.VOID) for masks in (found, truth))
        if not real.any():
            kinds.add("not shown")
            assert np.isnan(distances[image, c])
        elif not ours.any():
            kinds.add("not found")
            assert distances[image, c] == 1
        else:
            kinds.add("both")
            assert distances[image, c] == pytest.approx(slow_distance(ours, real) / math.hypot(17, 23), abs=1e-6)
    assert kinds == {"not shown", "not found", "both"}
    shown = distances[~np.isnan(distances)]
    assert (shown[shown < 1] > 0.03).mean() > 0.5
    mean = np.nanmean(distances.astype(np.float64), axis=0).mean()
    assert metrics.compute("hd95", {"surface": distances}, CLASSES, CLASSES) == pytest.approx(mean, abs=1e-8)


def test_a_right_mask_has_distance_0_and_padding_is_no_part_of_the_diagonal() -> None:
    pytest.importorskip(MONAI_NEEDED)
    truth, found = drawn(1, 4)
    assert np.nanmax(surface_distances(truth, truth, 2)) == 0
    padded = [np.pad(masks, ((0, 0), (0, 9), (0, 0)), constant_values=fill) for masks, fill in ((found, 2), (truth, 254))]
    np.testing.assert_array_equal(surface_distances(*padded, 2), surface_distances(found, truth, 2))


def test_monai_gives_no_warning() -> None:
    pytest.importorskip(MONAI_NEEDED)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface_distances(*reversed(drawn(1, 4)), 2)


def test_a_missing_monai_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MONAI_NEEDED, None)
    with pytest.raises(UsageError, match=r"pip install 'pretext-bench\[medical\]'"):
        surface_distances(*drawn(1, 4), 2)


def test_lower_is_better_is_said_of_the_one_metric_of_which_it_is_true() -> None:
    assert [metric.id for metric in metrics.METRICS.values() if metric.lower] == ["hd95"]
    assert "LOWER is better" in metrics.explanation(metrics.get("hd95"))
