"""Sources of variation: shares of factors beside least squares, what a factor that does nothing has, and incomplete grids."""

from itertools import product

import numpy as np
import pytest

from bench.record import Record
from results import variation
from results.cache import Cache
from results.variation import LEFT, decompose
from tests.results.made import make, reader, tuning


def by_least_squares(values: np.ndarray) -> list[float]:
    """Each factor's drop of the residual sum of squares when its indicators join a model, by numpy's solver."""
    places = np.array(list(np.ndindex(values.shape)))
    outcome, model = values.ravel(), np.ones((values.size, 1))

    def residual(columns: np.ndarray) -> float:
        return float(np.sum((outcome - columns @ np.linalg.lstsq(columns, outcome, rcond=None)[0]) ** 2))

    whole, found = residual(model), []
    for factor, levels in enumerate(values.shape):
        larger = np.hstack([model, np.eye(levels)[places[:, factor]]])
        found.append((residual(model) - residual(larger)) / whole)
        model = larger
    return [*found, residual(model) / whole]


def test_shares_are_those_of_least_squares() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 4))
    values[1] += 2
    assert decompose(values[None])[0] == pytest.approx(by_least_squares(values), abs=1e-12)


def test_a_factor_that_does_nothing_has_its_share_by_chance() -> None:
    drawn = np.random.default_rng(1).normal(size=(20_000, 2, 3, 4))
    assert decompose(drawn).mean(axis=0) == pytest.approx([1 / 23, 2 / 23, 3 / 23, 17 / 23], abs=2e-3)
    assert np.isnan(decompose(np.ones((1, 2, 2)))).all()


def grid(effect: dict[str, float]) -> list[Record]:
    """Runs of two initialisations on two schedules with three seeds, whose predictions are the better the higher the effects."""
    return [
        make(
            name,
            seed,
            0.3 + effect.get(name, 0) + effect.get(schedule, 0) + effect.get(str(seed), 0),
            "voc_cls",
            schedule=schedule,
        )
        for name, schedule, seed in product(("random_init", "cgan_color"), ("one-phase", "two-phase"), range(3))
    ]


def test_variation_goes_to_the_factor_that_makes_it() -> None:
    for effect, factor in (({"cgan_color": 0.4}, "initialisation"), ({"two-phase": 0.4}, "schedule"), ({"2": 0.4}, "seed")):
        found, problems = variation.variation(grid(effect), reader, Cache())
        assert not problems and found[0].factor == factor and found[0].share > 0.7, found
        assert sum(one.share for one in found) == pytest.approx(1) and found[-1].factor == LEFT
        assert sum(one.by_chance for one in found) == pytest.approx(1)
        assert all(one.low <= one.high for one in found) and found[0].low > found[0].by_chance
        shown = variation.table(found, problems)
        assert shown.rows[0].heading and shown.rows[1].cells[0] == factor


def test_runs_that_are_no_complete_grid_are_left_out_with_the_reason() -> None:
    runs = grid({})
    found, (problem,) = variation.variation(runs[:-1], reader, Cache())
    assert not found and problem == "Classification: 11 runs are no complete grid of 2 initialisation x 3 seed x 2 schedule"
    searched = [make("cgan_color", seed, 0.4, "voc_cls", schedule="two-phase", tuning=tuning()) for seed in range(3)]
    found, problems = variation.variation([*runs, *searched], reader, Cache())
    assert not found and "x 2 trials" in problems[0]
    found, (problem,) = variation.variation(runs[:3], reader, Cache())
    assert not found and problem == "Classification: its runs differ in less than two factors"
    assert f"Left out: {problem}." in variation.table(found, [problem]).notes
