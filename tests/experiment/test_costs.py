"""What a run and a search cost: all of it is counted, once, and waiting is not."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import record
from bench.experiment import trial
from bench.experiment.trial import TrialProgress, _Attempt
from bench.models import batch_norm
from bench.storage.files import publish_json
from bench.training import loop
from bench.training.loop import History

Bench = Callable[..., Any]
HEAD = ("--downstream", "voc_cls", "--schedule", "frozen")


class Metered:
    """A meter of energy that always says the same."""

    def __init__(self, *_: object) -> None:
        pass

    def joules(self) -> float:
        return 5.0


def test_a_run_counts_every_image_of_every_epoch(tiny: Bench, tmp_path: Path) -> None:
    assert tiny("--pretext", "l1_color", "--downstream", "voc_seg", "--schedule", "two-phase").code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.cost.images == 24 * sum(phase.epochs for phase in one.job.phases) and one.cost.seconds > 0
    assert one.pretrain.cost.images == 2 * one.pretrain.data.counts["train"] and one.pretrain.cost.seconds > 0  # type: ignore[union-attr]
    assert one.cost.peak_memory > 1 << 20


def test_measuring_statistics_is_part_of_the_cost(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = batch_norm.measure
    monkeypatch.setattr(batch_norm, "measure", lambda *given: time.sleep(1.5) or measure(*given))
    assert tiny("--pretext", "random_init", *HEAD).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.cost.seconds > 1.5


def test_a_search_costs_what_its_pruned_trials_cost_too(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_seg", "--schedule", "two-phase", "--tune", 8)
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    tuning = one.tuning
    assert tuning is not None and any(found.state == "pruned" for found in tuning.trials)
    assert {found.images / len(found.epochs) for found in tuning.trials} == {23}  # of 24, one validates
    assert all(found.seconds > 0 for found in tuning.trials)
    assert tuning.cost.images == sum(found.images for found in tuning.trials)
    assert tuning.cost.seconds == pytest.approx(sum(found.seconds for found in tuning.trials), abs=0.01)


def test_a_trial_that_diverges_costs_the_images_that_it_was_trained_on(tiny: Bench, tmp_path: Path) -> None:
    asked = ("--pretext", "l1_color", *HEAD, "--tune", 3, "--space", "pretext=1e-3:1e38", "--set", "recipe.lr=1e-3")
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.tuning is not None
    diverged = [found for found in one.tuning.trials if found.state == "diverged"]
    assert diverged and all(found.seconds > 0 and 0 < found.images < one.tuning.trials[0].images for found in diverged)
    assert all(found.images % 8 == 0 and not found.epochs for found in diverged)  # pretraining's batches, and no fine-tuning


def test_a_fine_tuning_that_diverges_costs_the_images_of_its_broken_epoch_too(tiny: Bench, tmp_path: Path) -> None:
    asked = (
        "--pretext",
        "random_init",
        "--downstream",
        "voc_seg",
        "--schedule",
        "two-phase",
        "--tune",
        3,
        "--space",
        "all=1e-3:1e38",
    )
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.tuning is not None
    diverged = [found for found in one.tuning.trials if found.state == "diverged"]
    assert diverged and all(found.images > 23 * len(found.epochs) for found in diverged)


def test_waiting_for_a_trunk_costs_a_trial_nothing(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain = trial.pretrain
    monkeypatch.setattr(trial, "pretrain", lambda *given: time.sleep(3) or pretrain(*given))
    assert tiny("--pretext", "random_init", *HEAD, "--tune", 1).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.tuning is not None and one.tuning.cost.seconds < 3


def test_what_a_trial_cost_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "Meter", Metered)
    before = TrialProgress(values={1: 0.5}, seconds=100, images=9, joules=7)
    publish_json(tmp_path / "trial.json", before.model_dump(mode="json"))
    study = SimpleNamespace(session=SimpleNamespace(machine=SimpleNamespace(device=None)))
    attempt = _Attempt(study, SimpleNamespace(report=lambda *_: None), tmp_path)  # type: ignore[arg-type]
    attempt.begin()
    assert 100 <= attempt.seconds() < 160 and attempt.joules() == 12


def test_joules_add_up_over_phases_and_where_one_does_not_tell() -> None:
    total = History()
    total.add(History(joules=2.0))
    total.add(History(joules=None))
    total.add(History(seconds=1.0, images=4, joules=3.0))
    assert (total.joules, total.seconds, total.images) == (5.0, 1.0, 4)


def test_joules_reach_the_records(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Meter", Metered)
    monkeypatch.setattr("bench.experiment.finetuning.Meter", Metered)
    assert tiny("--pretext", "l1_color", *HEAD).code == 0
    (one,) = record.read(tmp_path / "runs")
    assert one.pretrain.cost.joules == 5  # one stage
    assert one.cost.joules == 5 + 5 + 5  # measuring statistics, looking features up, one phase
