"""The seconds of a training step: timed on few images, extrapolated, kept, and estimated where timing would take long."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.config import MachineConfig
from bench.contract import Batch
from bench.experiment import step_times
from bench.experiment.step_times import RUN, Kind, StepTimes, extrapolated, keep
from bench.storage.files import publish_json
from bench.training.loop import Stage
from bench.training.machine import Machine, make_machine
from bench.training.throughput import amount_of

TRUNK = "unet:depth=5,width=8"
Made = Callable[[int], tuple[Stage, Callable[[int], Batch]]]


@pytest.fixture
def machine() -> Machine:
    return make_machine(MachineConfig(device="cpu", threads=1))


@pytest.fixture
def times(machine: Machine) -> StepTimes:
    return StepTimes(machine, time.monotonic() + 30)


def sleeping(seen: list[int], each: float, once: float = 0.0) -> Made:
    """Return what makes a stage whose step takes `once` seconds, and `each` for every image."""

    def make(_: int) -> tuple[Stage, Callable[[int], Batch]]:
        layer = nn.Linear(1, 1)

        def training_step(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
            seen.append(len(batch["inputs"]))
            time.sleep(once + each * len(batch["inputs"]))
            yield "loss", layer(batch["inputs"]).sum()

        optimizers: dict[str, torch.optim.Optimizer] = {"loss": torch.optim.SGD(layer.parameters(), lr=0.1)}
        stage = Stage("sleep", "sleep", layer, optimizers, training_step, lambda batch, _: batch, 4, 1, 0)
        return stage, lambda count: {"inputs": torch.zeros(count, 1)}

    return make


def kind(make: Made, name: str = "sleep", trunk: str = TRUNK) -> Kind:
    return Kind(name, trunk, 32, 1.0, make)


@pytest.mark.parametrize(
    ("points", "batch", "seconds"),
    [
        ({2: 1.0}, 2, 1.0), ({2: 1.0}, 32, 16.0), ({2: 1.0, 10: 3.0}, 10, 3.0), ({2: 1.0, 10: 3.0}, 100, 25.5),
        ({2: 1.0, 10: 0.9}, 100, 1.0), ({4: 1.0, 16: 2.0}, 2, 0.8333333333333334),
    ],
)  # fmt: skip
def test_a_batch_lies_on_the_line_through_what_was_timed(points: dict[int, float], batch: int, seconds: float) -> None:
    assert extrapolated(points, batch) == pytest.approx(seconds)


def test_a_step_is_what_it_was_timed_to_be_and_many_images_are_extrapolated(times: StepTimes) -> None:
    seen: list[int] = []
    found = times.step(kind(sleeping(seen, each=0.01, once=0.1)), 100_000)
    assert max(seen) < 60 and found == pytest.approx(1000, rel=0.2)
    assert times.step(kind(sleeping(seen, each=0.01, once=0.1)), 4) == pytest.approx(0.14, rel=0.2)
    assert times.origins["sleep"] == "timed now" and len(seen) < 20


def test_a_batch_that_is_quick_is_timed_itself(times: StepTimes) -> None:
    seen: list[int] = []
    times.step(kind(sleeping(seen, each=0.001)), 32)
    assert sorted({*seen}) == [2, 32]


def test_what_was_timed_is_kept_for_a_day_and_what_ran_for_ever(machine: Machine, times: StepTimes, home: Path) -> None:
    seen: list[int] = []
    first = times.step(kind(sleeping(seen, each=0.001)), 4)
    again = StepTimes(machine, times.until)
    assert again.step(kind(sleeping(seen, each=0.5)), 4) == first and again.origins["sleep"].startswith("from a plan of 20")
    path = step_times._path(machine, kind(sleeping(seen, each=0.001)))
    assert path.parent == home / "steps"
    content = {**json.loads(path.read_text()), "when": "2020-01-01T00:00:00+00:00"}
    publish_json(path, {name: content[name] for name in ("seconds", "by", "when")})
    assert StepTimes(machine, times.until).step(kind(sleeping(seen, each=0.02)), 4) > 2 * first
    keep(machine, kind(sleeping(seen, each=0.5)), {4: 7.0}, RUN)
    ran = StepTimes(machine, times.until)
    assert ran.step(kind(sleeping(seen, each=0.5)), 4) == 7.0 and ran.origins["sleep"].startswith("from a run of 20")


def test_a_kept_time_is_that_of_its_machine_and_its_facts_alone(machine: Machine, times: StepTimes) -> None:
    seen: list[int] = []
    keep(machine, kind(sleeping(seen, each=0.5)), {4: 7.0}, RUN)
    for other in (kind(sleeping(seen, 0.0), name="other"), Kind("sleep", TRUNK, 64, 1.0, sleeping(seen, 0.0)),
                  Kind("sleep", TRUNK, 32, 1.0, sleeping(seen, 0.0), {"version": 2})):  # fmt: skip
        assert times.step(other, 4) < 1
    torch.set_num_threads(2)
    assert StepTimes(machine, times.until).step(kind(sleeping(seen, 0.0)), 4) < 1


def test_a_damaged_time_is_timed_again(machine: Machine, times: StepTimes, home: Path) -> None:
    seen: list[int] = []
    times.step(kind(sleeping(seen, each=0.001)), 4)
    for path in (home / "steps").glob("*.json"):
        path.write_text("{")
    fresh = StepTimes(machine, times.until)
    fresh.step(kind(sleeping(seen, each=0.001)), 4)
    assert fresh.origins["sleep"] == "timed now"


def test_where_no_time_is_left_a_step_follows_from_the_trunk(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    late = StepTimes(machine, time.monotonic() - 1, origins={"another": "timed now"})
    monkeypatch.setattr(StepTimes, "_timed", lambda *_: pytest.fail("there is no time"))
    found = late.step(Kind("sleep", TRUNK, 32, 2.5, sleeping([], 0.0)), 10)
    operations, _ = amount_of(TRUNK, 32)
    assert found == pytest.approx(10 * 2.5 * 3 * operations / late._speed(), rel=1e-6)
    assert late.origins["sleep"] == "from the speed of the trunk"


def test_a_pass_at_a_large_size_follows_from_half_the_size(times: StepTimes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepTimes, "_affords", lambda self, kind: kind.size <= 64)
    assert times.one_pass(TRUNK, 512) == pytest.approx(8**2 * times.one_pass(TRUNK, 64), rel=0.01)
    monkeypatch.setattr(StepTimes, "_affords", lambda self, kind: False)
    operations, _ = amount_of("unet:depth=5,width=4", 32)
    assert times.one_pass("unet:depth=5,width=4", 128) == pytest.approx(16 * 3 * operations / times._speed(), rel=0.01)


def test_a_network_that_does_not_fit_the_memory_is_not_made(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    times = StepTimes(machine, time.monotonic() + 1e6)
    monkeypatch.setattr(step_times, "free_memory", lambda: 1 << 20)
    monkeypatch.setattr(StepTimes, "_timed", lambda *_: pytest.fail("the network was made"))
    assert times.step(kind(sleeping([], 0.0)), 10) > 0


def test_a_step_that_fails_is_told_and_estimated(times: StepTimes) -> None:
    def fail(_: int) -> tuple[Stage, Callable[[int], Batch]]:
        raise ValueError("no such\nthing")

    assert times.step(kind(fail), 10) > 0 and times.problems == ["sleep: no such thing"]


def test_timing_leaves_the_random_state_alone(times: StepTimes) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    times.step(kind(partial(step_times._trunk_alone, times.machine, TRUNK)), 4)
    assert torch.equal(before, torch.get_rng_state())


def test_what_one_protocol_teaches_serves_another(machine: Machine) -> None:
    """A step of a kind that was timed at one size costs as many passes of the trunk at another, which is not timed."""
    times = StepTimes(machine, time.monotonic() + 30)
    times.step(kind(sleeping([], each=0.1)), 4)
    other = times.of_trunks()
    seconds = other.step(Kind("sleep", TRUNK, 64, 1.0, lambda _: pytest.fail("only trunks are timed")), 8)
    assert seconds == pytest.approx(8 * other.one_pass(TRUNK, 64) * times.passes["sleep"], rel=1e-6)
    assert times.passes["sleep"] == pytest.approx(0.1 / times.one_pass(TRUNK, 32), rel=0.2)


def test_the_extra_seconds_are_of_one_plan_and_not_of_each_protocol(machine: Machine) -> None:
    times = StepTimes(machine, time.monotonic() - 1, at_least=3.0)
    assert times._left() == 3.0 and times.of_trunks()._left() == 0.0
    assert StepTimes(machine, time.monotonic() + 60, at_least=3.0).of_trunks()._left() > 50
