"""How many seeds would be needed: against simulated runs, whose test is the one that the tables use."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import record
from results import board, power
from results.statistics import Estimate, half_width
from tests.results import operating
from tests.results.made import make, publish, reader

Bench = Callable[..., Any]


def found(deviation: float, common: float = 0.0, own: float = 1.0) -> Estimate:
    return Estimate(0.0, 0.0, 0.0, 3, deviation, 1.0, (), common, own, operating.IMAGES)


@pytest.mark.parametrize(
    ("seeds", "seed_variance", "common", "difference"),
    [(3, 5.0, 0.0, 5.0), (5, 1.0, 1.0, 3.0), (10, 20.0, 0.0, 4.0), (4, 0.0, 5.0, 7.0), (3, 5.0, 0.0, 0.0), (5, 20.0, 0.0, -5.0)],
)
def test_the_power_is_that_of_simulated_runs(seeds: int, seed_variance: float, common: float, difference: float) -> None:
    rng = np.random.default_rng(0)
    told = 0
    for scores in operating.drawn(rng, operating.DRAWS, seeds, seed_variance, common):
        values, spread, shared, own = operating.parts(scores + difference)
        half = half_width(0.05, spread, shared, own, seeds, operating.IMAGES)
        told += int((np.abs(values.mean(axis=-1)) >= half).sum())
    expected = power.power(difference, seeds, found(math.sqrt(seed_variance + 1), common, common + 1))
    assert told / operating.DRAWS == pytest.approx(expected, abs=0.035)


def test_the_number_of_seeds_is_the_least_that_has_the_power() -> None:
    one = found(2.0, 0.3, 1.3)
    needed = power.seeds_needed(3.0, one)
    assert power.power(3.0, int(needed), one) >= 0.8 > power.power(3.0, int(needed) - 1, one)
    assert power.seeds_needed(6.0, one) < needed


def test_images_that_limit_a_difference_are_said_to_whatever_the_seeds() -> None:
    wide = found(0.1, common=1.0, own=1.01)
    assert power.seeds_needed(2.5, wide) == math.inf and power.power(2.5, 10_000, wide) < 0.8
    assert power.seeds_needed(3.5, wide) < 10 and math.isnan(power.seeds_needed(0.001, found(1.0)))


def test_a_folder_tells_how_many_seeds_its_rows_need(bench: Bench, tmp_path: Path) -> None:
    for seed, (ours, theirs) in enumerate(((0.30, 0.20), (0.38, 0.22), (0.31, 0.24))):
        publish(tmp_path, make("cgan_color", seed, ours))
        publish(tmp_path, make("random_init", seed, theirs))
    shown = bench("plan-seeds", "--out", tmp_path, "--points", "1,50")
    assert shown.code == 0, shown.err
    (row,) = (line for line in shown.out.splitlines() if line.startswith("  cgan_color"))
    assert row.split()[:2] == ["cgan_color", "random_init"] and int(row.split()[-1]) <= 4
    (one,) = board.boards(record.read(tmp_path), reader, resamples=300)
    alone_at_5, of_ten = power.table(one, [1.0]), power.table(one, [1.0], comparisons=10)
    assert alone_at_5 is not None and of_ten is not None
    assert "5 % in a single comparison" in alone_at_5.notes[0] and "5 % divided by 10 comparisons" in of_ten.notes[0]
    assert int(of_ten.rows[-1].cells[-1]) > int(alone_at_5.rows[-1].cells[-1])
    assert "above 0 and at most 100" in bench("plan-seeds", "--out", tmp_path, "--points", "0").err
    (alone,) = board.boards([make("cgan_color"), make("random_init", value=0.2)], reader, resamples=300)
    assert power.table(alone, [1.0]) is None
    assert bench("plan-seeds", "--out", tmp_path / "empty").code == 2
