"""Sources of variation: shares of factors beside least squares, what a factor that does nothing has, and incomplete grids."""

from itertools import combinations, product

import numpy as np
import pytest

from bench.record import Record
from results import variation
from results.cache import Cache
from results.variation import LEFT, decompose
from tests.results.made import make, reader, tuning


def by_least_squares(values: np.ndarray) -> list[float]:
    """The drop of the residual sum of squares when indicators of a factor, or of two, join a model, by numpy's solver."""
    places = np.array(list(np.ndindex(values.shape)))
    outcome, model = values.ravel(), np.ones((values.size, 1))

    def residual(columns: np.ndarray) -> float:
        return float(np.sum((outcome - columns @ np.linalg.lstsq(columns, outcome, rcond=None)[0]) ** 2))

    whole, found = residual(model), []
    alone = [np.eye(levels)[places[:, factor]] for factor, levels in enumerate(values.shape)]
    both = [np.stack([a * b for a in one.T for b in other.T], axis=1) for one, other in combinations(alone, 2)]
    for columns in alone + both:
        larger = np.hstack([model, columns])
        found.append((residual(model) - residual(larger)) / whole)
        model = larger
    return [*found, residual(model) / whole]


def test_shares_are_those_of_least_squares() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 4))
    values[1] += 2
    assert decompose(values[None])[0] == pytest.approx(by_least_squares(values), abs=1e-12)


def test_a_factor_that_does_nothing_has_its_share_by_chance() -> None:
    drawn = np.random.default_rng(1).normal(size=(20_000, 2, 3, 4))
    free = np.array([1, 2, 3, 2, 3, 6, 6])
    assert decompose(drawn).mean(axis=0) == pytest.approx(free / 23, abs=2e-3)
    assert np.isnan(decompose(np.ones((1, 2, 2)))).all()
    assert decompose(drawn[:, 0]).mean(axis=0) == pytest.approx([2 / 11, 3 / 11, 6 / 11], abs=4e-3)  # two factors have no pair


def grid(effect: dict[str, float]) -> list[Record]:
    """Runs of two initialisations on two schedules with three seeds, whose predictions are the better the higher the effects."""
    return [
        make(
            name,
            seed,
            0.3 + sum(effect.get(key, 0) for key in (name, schedule, str(seed), f"{name} {schedule}")),
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


def test_what_two_factors_do_together_only_has_a_share_of_its_own() -> None:
    """An effect that turns round with the schedule leaves nothing to the factors alone; it must not be called chance."""
    crossed = {"cgan_color one-phase": 0.4, "random_init two-phase": 0.4}
    found, _ = variation.variation(grid(crossed), reader, Cache())
    assert found[0].factor == "initialisation x schedule" and found[0].share > 0.7 and found[0].levels == ()
    assert max(one.share for one in found if one.factor in ("initialisation", "schedule", LEFT)) < 0.1
    assert sum(one.share for one in found) == pytest.approx(1) == sum(one.by_chance for one in found)


def test_runs_of_one_value_have_no_shares_and_the_reason_is_said() -> None:
    found, (problem,) = variation.variation(grid({}), lambda record: reader(grid({})[0]), Cache())
    assert not found and problem.startswith("Classification: some of its runs have no value by acc_keras@1, or all")


def test_runs_with_the_same_predictions_are_counted() -> None:
    runs = grid({"cgan_color": 0.1, "two-phase": 0.2})
    found, problems = variation.variation(runs, reader, Cache())
    assert found[0].same == 0 and variation.table(found, problems).notes == variation.NOTES
    runs = [run.model_copy(update={"predictions": "the same"}) if run.job.seed == 1 else run for run in runs]
    found, problems = variation.variation(runs, reader, Cache())
    assert found[0].same == 3
    assert "Classification: 3 of 12 runs have exactly the predictions of another" in variation.table(found, problems).notes[-1]


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
