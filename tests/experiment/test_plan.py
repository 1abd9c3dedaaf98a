"""`--plan`: the seconds are the steps of every phase, times the seconds that a step was measured to take."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli.screen import Screen
from bench.config import RunConfig
from bench.experiment import plan
from bench.experiment.session import open_session


@pytest.fixture
def planned(drawn: dict[str, Path], tmp_path: Path) -> Callable[..., plan.Plan]:
    def call(**options: Any) -> plan.Plan:
        given = {"pretext": "random_init", "downstream": "voc_cls", "protocol": "demo", "device": "cpu", "threads": 1}
        given |= {"trunk": "unet:depth=5,width=8", "size": 32, "data": str(drawn["demo"]), "set": ("protocol.head_width=16",)}
        config = RunConfig.model_validate({**given, "pretrain_data": str(drawn["demo_unlabelled"]), **options})
        return plan.plan(open_session(config, tmp_path / "runs", Screen()))

    return call


def test_a_step_takes_what_it_was_measured_to_take(planned: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "take_step", lambda *_: time.sleep(0.05))
    made = planned(schedule="one-phase")
    assert made.measured and all(0.05 <= seconds < 0.2 for seconds in made.measured.values())


def test_the_seconds_are_the_steps_of_every_phase(planned: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 images in batches of 8; ten seconds a step, and one where only a head is trained on features that are kept."""

    def step(*_: object, from_features: bool = False) -> float:
        return 1.0 if from_features else 10.0

    monkeypatch.setattr(plan, "_finetuning_step", step)
    monkeypatch.setattr(plan, "_pretraining_step", lambda *_: 100.0)
    phases = '{"two-phase": [{"train": "head", "epochs": 5, "lr": 0.01}, {"train": "all", "epochs": 3, "lr": 0.001}]}'
    asked = {"schedule": "two-phase", "pretext": "l1_color", "downstream": "voc_cls"}
    settings = ("protocol.head_width=16", f"protocol.schedules={phases}", "protocol.batch_size=8", "recipe.epochs=2")
    made = planned(set=settings, **asked)
    pretraining = [line.seconds for name, line in made.lines.items() if name.startswith("l1_color-") and "voc" not in name]
    steps = 3
    (finetuning,) = [line.seconds for name, line in made.lines.items() if "voc_cls" in name]
    assert finetuning == 10 * steps + 4 * steps + 3 * 10 * steps  # features are computed in the first epoch
    assert pretraining and pretraining[0] % 200 == 0 and pretraining[0] >= 200
    augmented = planned(set=(*settings, "protocol.augmentation=flip"), **asked)
    assert max(line.seconds for name, line in augmented.lines.items() if "voc_cls" in name) == 8 * 10 * steps
    half = planned(set=settings, labels="0.5", **asked)
    (fewer,) = [line.seconds for name, line in half.lines.items() if "voc_cls" in name]
    assert fewer == finetuning * 2 / 3  # 12 images
