"""Detections and surfaces from saved predictions to tables: resamples, trivial predictors, and which direction is better."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import metrics
from bench.detection import MOST
from bench.errors import DataError
from bench.record import Record
from bench.storage.arrays import pack_predictions
from results import against, agreement, board, predictions, resampling, scores
from results.scores import Answers
from results.trivial import trivial
from tests.bench.test_detection import CLASSES, METRICS, drawn
from tests.results import made

IMAGES = 40


def repeated(known: metrics.Predictions, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return a set that holds each image as often as its weight says."""
    return {name: np.repeat(values, weights.astype(int), axis=0) for name, values in known.items()}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scored", [CLASSES, ("a", "c")])
@pytest.mark.parametrize("seed", [0, 4, 7])
def test_a_resample_is_the_metric_of_a_set_that_holds_the_drawn_images(metric: str, scored: tuple[str, ...], seed: int) -> None:
    known = drawn(seed, IMAGES)
    weights = next(resampling.counts(IMAGES, 25, "test"))
    weights[0] = 1
    weights[1] = 2
    weights[2] = 0
    weights[2, 5] = 7
    found = resampling.resampler(metric, known, CLASSES, scored)(weights)
    slow = [metrics.compute(metric, repeated(known, row), CLASSES, scored) for row in weights]
    np.testing.assert_allclose(found, slow, rtol=0, atol=1e-12)
    assert found[0] == pytest.approx(metrics.compute(metric, known, CLASSES, scored), abs=1e-12)
    assert np.std(found[3:]) > 0.01


@pytest.mark.parametrize("metric", METRICS)
def test_with_equal_confidences_the_weights_of_the_set_itself_give_its_value(metric: str) -> None:
    for seed in range(30):
        known = drawn(seed, IMAGES, tied=True)
        (found,) = resampling.resampler(metric, known, CLASSES, CLASSES)(np.ones((1, IMAGES)))
        assert found == pytest.approx(metrics.compute(metric, known, CLASSES, CLASSES), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("metric", ["ap50_voc", "ap50_voc07"])
def test_equal_confidences_are_one_operating_point_of_every_resample(metric: str) -> None:
    known = drawn(7, IMAGES, tied=True)
    weights = next(resampling.counts(IMAGES, 10, "test"))
    found = resampling.resampler(metric, known, CLASSES, CLASSES)(weights)
    backwards = {
        name: values[::-1, ::-1] if name in ("boxes", "confidences", "found") else values[::-1] for name, values in known.items()
    }
    other = resampling.resampler(metric, backwards, CLASSES, CLASSES)(weights[:, ::-1])
    np.testing.assert_allclose(found, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_box_that_is_never_found_lowers_recall_in_the_resamples_that_draw_its_image(metric: str) -> None:
    edges, far = [0, 0, 9, 9], [50, 50, 59, 59]
    truth = np.array([[[0, *edges, 0]], [[0, *far, 0]]], np.float32)
    known = {
        "boxes": np.array([[edges], [edges]], np.float32), "confidences": np.array([[0.9], [0.1]], np.float32),
        "found": np.zeros((2, 1), np.int16), "truth": truth,
    }  # fmt: skip
    found = resampling.resampler(metric, known, ("a",), ("a",))(np.array([[1.0, 0], [1, 1], [1, 3], [0, 2]]))
    shares = {"ap50_voc": (1, 1 / 2, 1 / 4, 0), "ap50_voc07": (1, 6 / 11, 3 / 11, 0), "ap_coco": (1, 51 / 101, 26 / 101, 0)}
    assert found == pytest.approx(shares[metric], abs=1e-12)
    nothing = {**known, "truth": np.full_like(truth, -1)}
    assert np.isnan(resampling.resampler(metric, nothing, ("a",), ("a",))(np.ones((2, 2)))).all()


def test_a_ranking_that_is_too_long_for_memory_is_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = next(resampling.counts(IMAGES, 50, "test"))
    function = resampling.resampler("ap_coco", drawn(7, IMAGES), CLASSES, CLASSES)
    whole = function(weights)
    monkeypatch.setattr(resampling, "AT_ONCE", 100)
    np.testing.assert_allclose(function(weights), whole, rtol=0, atol=1e-12)


def test_surfaces_and_masks_of_a_resample_are_those_of_the_drawn_images() -> None:
    rng = np.random.default_rng(0)
    surface = np.where(rng.uniform(size=(IMAGES, 4)) < 0.3, np.nan, rng.uniform(size=(IMAGES, 4))).astype(np.float32)
    surface[:, 3] = np.nan
    confusion = rng.integers(0, 50, (IMAGES, 6, 5)).astype(np.int32)
    confusion[rng.uniform(size=IMAGES) < 0.4, 2] = 0
    known = {"surface": surface, "confusion": confusion}
    weights = next(resampling.counts(IMAGES, 25, "test"))
    for metric in ("hd95", "dice", "iou_fg"):
        found = resampling.resampler(metric, known, CLASSES, CLASSES)(weights)
        slow = [metrics.compute(metric, repeated(known, row), CLASSES, CLASSES) for row in weights]
        np.testing.assert_allclose(found, slow, rtol=0, atol=1e-12)
        assert np.std(found) > 0.001
        backwards = resampling.resampler(metric, {name: values[::-1] for name, values in known.items()}, CLASSES, CLASSES)
        np.testing.assert_array_equal(found, backwards(weights[:, ::-1]))  # whatever the order of adding


def detections(strength: dict[str, float]) -> Any:
    """Return a reader of detections: three true boxes an image, of which each row finds as many as its strength says."""

    def read(record: Record) -> Answers:
        rng = np.random.default_rng(0)
        corners = rng.uniform(0, 60, (made.IMAGES, 3, 2))
        edges = np.concatenate([corners, corners + rng.uniform(10, 40, (made.IMAGES, 3, 2))], axis=2)
        classes = rng.integers(0, 3, (made.IMAGES, 3))
        truth = np.concatenate([classes[..., None], edges, np.zeros((made.IMAGES, 3, 1))], axis=2)
        own = np.random.default_rng(record.job.seed)
        missed = own.uniform(size=classes.shape) > strength[record.pretext]
        found = {
            "boxes": (edges + 50 * missed[..., None]).astype(np.float32),
            "confidences": own.uniform(size=classes.shape).astype(np.float32), "found": classes.astype(np.int16),
            "truth": truth.astype(np.float32), "sizes": np.full((made.IMAGES, 2), 100, np.int32),
        }  # fmt: skip
        return Answers(tuple(map(str, range(made.IMAGES))), found)

    return read


def of_metric(metric: str, strength: dict[str, float]) -> list[Record]:
    names = [(pretext, seed) for pretext in strength for seed in range(3)]
    return [
        made.make(pretext, seed, 0.5, "voc_det", metrics={f"{metric}@1": 0.5}, predictions=f"{pretext} {seed}")
        for pretext, seed in names
    ]


@pytest.mark.parametrize("metric", METRICS)
def test_a_board_of_detections_has_intervals_leaders_and_a_trivial_predictor(metric: str) -> None:
    strength = {"random_init": 0.3, "cgan_color": 0.9, "l1_color": 0.0}
    (one,) = board.boards(of_metric(metric, strength), detections(strength), resamples=200)
    cells = {row.pretext: row.cells[0] for row in one.rows}
    values = {label: cell.estimate.value for label, cell in cells.items() if cell.estimate is not None}
    assert values["cgan_color"] > 0.75 > 0.4 > values["random_init"] > 0.05 > values["l1_color"]
    assert all(cell.estimate is not None and cell.estimate.low < cell.estimate.high for cell in cells.values() if cell.leading)
    assert {label for label, cell in cells.items() if cell.leading} == {"cgan_color"}
    assert [row.label for row in one.trivial] == ["whole image"]
    assert cells["l1_color"].floor == "whole image" and not cells["cgan_color"].floor
    difference = cells["cgan_color"].difference
    assert difference is not None and difference.estimate.value > 0.3 and difference.distinguishable
    assert not any("lower is better" in note for note in one.notes)


def test_the_trivial_predictor_of_boxes_draws_one_around_the_whole_image_for_each_class() -> None:
    record = made.make()
    truth = np.full((2, 1, 6), -1, np.float32)
    truth[0, 0] = [1, 0, 0, 30, 20, 0]
    sizes = np.array([[20, 30], [40, 10]], np.int32)
    (predictor,) = trivial(record, "boxes").values()
    found = predictor({"truth": truth, "sizes": sizes})
    assert found["boxes"].tolist() == [[[0, 0, 30, 20]] * 3, [[0, 0, 10, 40]] * 3]
    assert found["confidences"].tolist() == [pytest.approx([0.5, 0.3, 0.2])] * 2 and found["found"].tolist() == [[0, 1, 2]] * 2
    assert {name: found[name].dtype for name in ("boxes", "confidences", "found")} == {
        "boxes": np.float32, "confidences": np.float32, "found": np.int16,
    }  # fmt: skip
    assert metrics.per_class("ap50_voc", found, made.CLASSES, made.CLASSES) == {"cat": None, "dog": 0.5, "cow": None}
    without = record.model_copy(update={"data": record.data.model_copy(update={"prior": ()})})
    (predictor,) = trivial(without, "boxes").values()
    assert len(np.unique(predictor({"truth": truth, "sizes": sizes})["confidences"])) == 1


def test_a_metric_of_many_rankings_is_resampled_less_often() -> None:
    strength = {"cgan_color": 0.5}
    for metric, count in (("ap_coco", scores.FEWER), ("ap50_voc", 1500)):
        records = of_metric(metric, strength)
        found = scores.Scores(f"{metric}@1", records, detections(strength), 1500, scores.Cache())
        assert found.replicates([records[0].id]).shape == (1, count)


def test_predictions_with_many_boxes_are_read_and_more_than_any_image_has_are_not(tmp_path: Path) -> None:
    def publish(seed: int, rows: int, **changes: Any) -> Record:
        found = {
            "boxes": np.zeros((100, rows, 4), np.float32), "confidences": np.zeros((100, rows), np.float32),
            "found": np.zeros((100, rows), np.int16), "truth": np.zeros((100, rows, 6), np.float32),
            "sizes": np.ones((100, 2), np.int32),
        }  # fmt: skip
        record = made.make(seed=seed, **changes)
        data = record.data.model_copy(update={"counts": {"test": 100}})
        return made.publish(tmp_path, record.model_copy(update={"data": data}), pack_predictions(found, map(str, range(100))))

    boxes: dict[str, Any] = {"metrics": {"ap50_voc@1": 0.5}, "downstream": "voc_det"}
    ids, found = predictions.read_answers(tmp_path, publish(0, MOST, **boxes))
    assert len(ids) == 100 and found["boxes"].shape == (100, MOST, 4)
    for refused in (publish(1, 2 * MOST, **boxes), publish(2, MOST)):
        with pytest.raises(DataError, match="it unpacks to"):
            predictions.read_answers(tmp_path, refused)


def surfaces(distance: dict[str, float]) -> Any:
    def read(record: Record) -> Answers:
        rng = np.random.default_rng(record.job.seed)
        near = np.clip(distance[record.pretext] + rng.normal(0, 0.02, (made.IMAGES, 3)), 0, 1)
        near[np.random.default_rng(9).uniform(size=near.shape) < 0.3] = np.nan
        return Answers(tuple(map(str, range(made.IMAGES))), {"surface": near.astype(np.float32)})

    return read


def test_where_lower_is_better_the_lowest_leads_and_the_trivial_predictor_has_to_be_passed_below() -> None:
    distance = {"random_init": 0.4, "cgan_color": 0.1, "l1_color": 1.5}
    (one,) = board.boards(of_metric("hd95", distance), surfaces(distance), resamples=200)
    cells = {row.pretext: row.cells[0] for row in one.rows}
    values = {label: cell.estimate.value for label, cell in cells.items() if cell.estimate is not None}
    assert values == pytest.approx({**distance, "l1_color": 1.0}, abs=0.02)
    assert {label for label, cell in cells.items() if cell.leading} == {"cgan_color"}
    assert [(row.label, row.cells[0].estimate.value) for row in one.trivial] == [("all background", 1.0)]  # type: ignore[union-attr]
    assert {label: cell.floor for label, cell in cells.items()} == {
        "random_init": "", "cgan_color": "", "l1_color": "all background",
    }  # fmt: skip
    difference = cells["cgan_color"].difference
    assert difference is not None and difference.estimate.value == pytest.approx(-0.3, abs=0.01)
    assert any(note.startswith("hd95@1: lower is better") for note in one.notes)


def test_where_lower_is_better_two_rows_that_cannot_be_told_apart_lead_together() -> None:
    distance = {"random_init": 0.4, "cgan_color": 0.1, "l1_color": 0.1}
    (one,) = board.boards(of_metric("hd95", distance), surfaces(distance), resamples=200)
    assert {row.label for row in one.rows if row.cells[0].leading} == {"cgan_color", "l1_color"}
    assert all(not math.isnan(row.cells[0].estimate.high) for row in one.rows)  # type: ignore[union-attr]


def test_a_column_of_surfaces_stands_beside_a_main_metric_and_orders_rows_the_other_way_round() -> None:
    distance = {"random_init": 0.4, "cgan_color": 0.1, "l1_color": 0.2}
    values = {"random_init": 0.2, "cgan_color": 0.6, "l1_color": 0.4}

    def read(record: Record) -> Answers:
        answers = made.read(record.model_copy(update={"metrics": {"miou_voc@1": record.metrics["miou_voc@1"]}}))
        return Answers(answers.ids, {**answers.predictions, **surfaces(distance)(record).predictions})

    records = [
        made.make(pretext, seed, metrics={"miou_voc@1": value, "hd95@1": distance[pretext]}, predictions=f"{pretext} {seed}")
        for pretext, value in values.items()
        for seed in range(3)
    ]
    (main,) = board.boards(records, read, resamples=200)
    (other,) = board.boards(records, read, ("hd95",), resamples=200)
    assert [column.metric for column in other.columns] == ["hd95@1"]
    (found,) = agreement.agreements([main])
    assert (found.order.alike, found.order.differently) == (3, 0)
    assert not any("another order" in line or "but not by" in line for line in against.against(main, [main, other]))
    (without,) = board.boards([made.make()], made.read, ("hd95",), resamples=50)
    assert not without.columns
