"""The time left is the estimate of what is left, corrected by how long the finished work took."""

import pytest

from bench.experiment import remaining
from bench.experiment.remaining import WEIGHT, Remaining


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(remaining.time, "monotonic", lambda: now[0])
    return now


def test_without_a_plan_the_stage_alone_is_left() -> None:
    assert Remaining().seconds(12.0) == 12.0


def test_work_that_is_done_is_left_no_more(clock: list[float]) -> None:
    left = Remaining({"trunk": 100.0, "run": 50.0, "other": 50.0})
    assert left.seconds() == 200
    left.begin(["trunk", "run"])
    clock[0] += 60
    assert left.seconds() == 140 and left.seconds(stage=120.0) == 120 + 50  # the stage knows better
    clock[0] += 200
    assert left.seconds(stage=3.0) == 3 + 50  # more than was expected
    left.leave()
    assert left.seconds() == 200 and left.pieces.keys() == {"trunk", "run", "other"}


def test_slow_work_lengthens_what_is_left(clock: list[float]) -> None:
    left = Remaining({"a": 300.0, "b": 300.0, "c": 100.0})
    left.begin(["a"])
    clock[0] += 600
    left.end()
    assert left.seconds() == pytest.approx(400 * (600 + WEIGHT) / (300 + WEIGHT))
    left.begin(["b", "unknown"])
    left.end(failed=True)  # at once, which says nothing of the others
    assert left.seconds() == pytest.approx(100 * (600 + WEIGHT) / (300 + WEIGHT))


def test_work_that_was_finished_before_changes_nothing(clock: list[float]) -> None:
    left = Remaining({"b": 300.0})
    left.begin(["a"])
    clock[0] += 600
    left.end()
    assert left.seconds() == 300
