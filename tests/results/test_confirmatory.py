"""Confirmatory comparisons: Holm's correction over all that were registered, false alarms, and what is refused."""

from typing import Any

import pytest

from bench.preregistration import KEY, Comparison, Preregistration
from bench.record import Record
from results import confirmatory, statistics
from results.cache import Cache
from results.scores import Scores
from tests.results.made import make, reader

SHA256 = "a" * 64
SEEDS = (0, 1, 2)


def runs(pretext: str, values: tuple[float, ...], sha256: str = SHA256, **changes: Any) -> list[Record]:
    """Runs of a row as a study makes them: their records and those of their trunks name the preregistration."""
    made = [make(pretext, seed, value, "voc_cls", **changes) for seed, value in enumerate(values)]
    origin = {**made[0].provenance, KEY: sha256}
    return [
        one.model_copy(update={"provenance": origin, "pretrain": one.pretrain.model_copy(update={"provenance": origin})})
        for one in made
    ]


def comparison(row: str, against: str = "random_init", **changes: Any) -> Comparison:
    facts = {"question": "q", "parts": ("main",), "task": "voc_cls", "row": row, "against": against, "metric": "acc_keras"}
    return Comparison(**{**facts, **changes})


def compare(records: list[Record], *asked: Comparison) -> list[confirmatory.Result]:
    registered = Preregistration(
        sha256=SHA256, parts=("main",), questions={"q": "?"}, power="-", budget="-", negative="-", comparisons=asked
    )
    return confirmatory.compare(registered, {"main": records}, {"main": SEEDS}, reader, Cache())


CONTROL = runs("random_init", (0.50, 0.51, 0.52))
BETTER = runs("cgan_color", (0.80, 0.81, 0.82))
LIKE = runs("rotation", (0.52, 0.50, 0.51))


def test_all_registered_comparisons_are_corrected_together_also_those_that_are_refused() -> None:
    asked = comparison("cgan_color"), comparison("rotation"), comparison("jigsaw")
    found = compare([*CONTROL, *BETTER, *LIKE], *asked)
    p_values = []
    for row in (BETTER, LIKE):
        difference = Scores("acc_keras", [*row, *CONTROL], reader, 10_000, Cache()).difference(row, CONTROL)
        assert difference is not None and difference.p is not None
        p_values.append(difference.p)
    assert [one.corrected for one in found] == [*statistics.holm([*p_values, 1.0])[:2], None]
    assert found[2].verdict == "refused: there are no runs of jigsaw"
    assert found[0].corrected == pytest.approx(min(1.0, 3 * p_values[0]))


def test_a_null_that_is_told_apart_is_a_false_alarm_and_one_between_other_schedules_is_none() -> None:
    twin = comparison("cgan_color", null=True), comparison("rotation", null=True)
    found = compare([*CONTROL, *BETTER, *LIKE], *twin)
    assert [one.verdict for one in found] == ["yes, a false alarm", "no, as it must be"], found
    (found,) = compare([*CONTROL, *runs("rotation", (0.5, 0.5, 0.5), schedule="one-phase")], comparison("rotation", null=True))
    assert "it is no null" in found.verdict


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (runs("rotation", (0.5, 0.5, 0.5), sha256="b" * 64), "was not made under this preregistration, but under another, bbbb"),
        (runs("rotation", (0.5, 0.5)), "rotation has the seeds 0, 1, and 0, 1, 2 were planned"),
        (runs("rotation", (0.5, 0.5, 0.5, 0.5)), "rotation has the seeds 0, 1, 2, 3, and 0, 1, 2 were planned"),
        (runs("rotation", (0.5, 0.5, 0.5), precision="bf16"), "the rows were not evaluated alike"),
        (runs("rotation", (0.5, 0.5, 0.5), labels=0.5), "the rows were not evaluated alike"),
        (runs("rotation", (0.5, 0.5, 0.5), pretrain_job={"source": "c" * 16}), "rotation is a plug-in's (SHA-256 cccccccc"),
        ([*LIKE, *runs("rotation", (0.6, 0.6, 0.6), lr=0.3)], "rotation names several rows"),
    ],
)
def test_what_is_not_the_registered_comparison_is_refused_with_the_reason(changed: list[Record], said: str) -> None:
    found, other = compare([*CONTROL, *BETTER, *changed], comparison("rotation"), comparison("cgan_color"))
    assert said in found.verdict and found.corrected is None and other.corrected is not None, found.verdict
    shown = confirmatory.lines([found, other]).plain()
    assert said in shown[0]["refused"] and shown[0]["delta"] is None and shown[1]["refused"] is None
