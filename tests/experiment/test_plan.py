"""`--plan`: the seconds are the steps of every phase, times the seconds that a step takes on this machine."""

import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli.screen import Screen
from bench.config import RunConfig
from bench.experiment import estimate, plan, plan_words, step_times
from bench.experiment.session import chosen, open_session
from bench.experiment.step_times import Kind, StepTimes
from bench.text import duration
from bench.training import machine
from tests.conftest import TINY


@pytest.fixture
def planned(drawn: dict[str, Path], tmp_path: Path) -> Callable[..., plan.Plan]:
    def call(others: bool = False, **options: Any) -> plan.Plan:
        given = {"pretext": "random_init", "downstream": "voc_cls", "protocol": "demo", "device": "cpu", "threads": 1}
        given |= {"trunk": "unet:depth=5,width=8", "size": 32, "data": str(drawn["demo"]), "set": ("protocol.head_width=16",)}
        config = RunConfig.model_validate({**given, "pretrain_data": str(drawn["demo_unlabelled"]), **options})
        session = open_session(config, tmp_path / "runs", Screen(), planning=True)
        return plan.plan(session, StepTimes(session.machine, time.monotonic() + 60), others=others)

    return call


def seconds_of(made: plan.Plan, name: str) -> float:
    (found,) = [line.seconds for line in made.lines if name in line.name]
    return found


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Give a pretext task's step 100 seconds, others 10, and one of a head on kept features 1; return the asked kinds."""
    asked: list[tuple[str, int]] = []

    def step(self: object, kind: Kind, batch: int) -> float:
        asked.append((kind.name, batch))
        return 100.0 if "," not in kind.name else 1.0 if "kept features" in kind.name else 10.0

    monkeypatch.setattr(StepTimes, "step", step)
    return asked


PHASES = '{"two-phase": [{"train": "head", "epochs": 5, "lr": 0.01}, {"train": "all", "epochs": 3, "lr": 0.001}]}'
SETTINGS = ("protocol.head_width=16", f"protocol.schedules={PHASES}", "protocol.batch_size=8", "recipe.epochs=2")
ASKED = {"schedule": "two-phase", "pretext": "l1_color", "downstream": "voc_cls"}


def test_the_seconds_are_the_steps_of_every_phase(planned: Callable[..., plan.Plan], steps: list[tuple[str, int]]) -> None:
    """24 images in batches of 8, and 16 to score; ten seconds a step, and one where only a head is trained on kept features."""
    made = planned(set=SETTINGS, **ASKED)
    scored = 10 * 16 / 8  # a forward pass costs what a step of the head does
    assert seconds_of(made, "voc_cls") == 10 * 3 + 4 * 3 + 3 * 10 * 3 + scored  # features are computed in the first epoch
    pretraining = next(line.seconds for line in made.lines if "voc" not in line.name)
    assert pretraining > 2 * 100 and any(batch == 8 for _, batch in steps)
    augmented = planned(set=(*SETTINGS, "protocol.augmentation=flip"), **ASKED)
    assert seconds_of(augmented, "voc_cls") == 8 * 10 * 3 + scored
    half = planned(set=SETTINGS, labels="0.5", **ASKED)
    assert seconds_of(half, "voc_cls") - scored == (seconds_of(made, "voc_cls") - scored) * 2 / 3  # 12 images
    untrained = planned(set=SETTINGS, **{**ASKED, "pretext": "random_init"})
    assert seconds_of(untrained, "voc_cls") == seconds_of(made, "voc_cls") + 3 * 10  # its statistics are measured
    encoder = planned(set=SETTINGS, transfer="encoder", **ASKED)
    assert seconds_of(encoder, "voc_cls") == seconds_of(made, "voc_cls") + 3 * 10  # a new decoder's statistics are measured


def test_a_search_takes_its_trials_with_their_scores(planned: Callable[..., plan.Plan], steps: list[tuple[str, int]]) -> None:
    made, once = planned(set=SETTINGS, tune=4, **ASKED), planned(set=SETTINGS, **ASKED)
    (search,) = [line for line in made.lines if "trials" in line.state]
    validated = 8 * 10 * 1 / 8  # one image, after each of 8 epochs
    assert search.seconds == 4 * (seconds_of(once, "voc_cls") - 10 * 16 / 8 + validated)
    pretraining = next(line.seconds for line in once.lines if "voc" not in line.name)
    with_pretext = planned(set=SETTINGS, tune=4, space="pretext=1e-4:1e-3", **ASKED)
    (longer,) = [line for line in with_pretext.lines if "trials" in line.state]
    assert longer.seconds == search.seconds + 4 * pretraining


def test_seeds_share_a_line_with_a_count_of_each_state(
    planned: Callable[..., plan.Plan], steps: list[tuple[str, int]], tmp_path: Path
) -> None:
    made = planned(set=SETTINGS, seeds=3, **ASKED)
    assert [(line.name, line.state) for line in made.lines] == [
        ("l1_color, 3 seeds", "3 to do"),
        ("  l1_color-voc_cls (3 seeds, two-phase)", "3 to do"),
    ]
    assert seconds_of(made, "l1_color-voc_cls") == 3 * seconds_of(planned(set=SETTINGS, **ASKED), "voc_cls")
    assert len(made.pieces) == 6 and sum(made.pieces.values()) == made.seconds
    one = made.session.grid.jobs[1]
    (tmp_path / "runs" / "work" / one.id).mkdir(parents=True)
    assert planned(set=SETTINGS, seeds=3, **ASKED).lines[1].state == "2 to do, 1 interrupted, goes on"


def test_thousands_of_runs_are_planned(planned: Callable[..., plan.Plan], steps: list[tuple[str, int]]) -> None:
    """`python -m tests.benchmarks launches` has the seconds that it takes."""
    shares = tuple(place / 10 for place in range(1, 11))
    made = planned(seeds="1000", pretext="random_init", schedule="one-phase,two-phase", labels=shares, tune=8)
    assert sum(count for line in made.lines for _, count in line.states) > 20_000 and len(made.lines) == 1 + 20 + 20


def test_the_other_protocols_have_their_cost(planned: Callable[..., plan.Plan]) -> None:
    made = planned(others=True, trunk=None, size=None, protocol="small", set=(), pretext="l1_color")
    assert set(made.others) == {"standard", "paper"} and min(made.others.values()) > 20 * made.seconds > 0
    assert plan_words.offered(made)[0].startswith("with another protocol: standard about ")
    more = planned(others=True, trunk=None, size=None, protocol="small", set=(), pretext="l1_color", seeds=4)
    assert more.others["paper"] == pytest.approx(4 * made.others["paper"])
    assert set(planned(others=True, trunk=None, size=None, protocol="paper", set=()).others) == {"small", "standard"}


def test_a_plan_of_days_offers_the_protocol_that_takes_less(planned: Callable[..., plan.Plan]) -> None:
    made = planned(set=SETTINGS, **ASKED)
    made.session = SimpleNamespace(command=("run", "--protocol", "paper", "--data", "a b", "--plan"))  # type: ignore[assignment]
    made.others = {"small": 3 * 3600.0, "standard": 1e8}
    assert plan_words.warning(made) == []
    made.lines = [plan.Line("a", (("to do", 1),), 975_656.0)]
    said, command = plan_words.warning(made)
    assert said == "warning: this takes about 11 days on this machine; with the protocol small it takes about 3 h 0 min:"
    assert command == "  bench run --data 'a b' --protocol small"
    (in_study,) = plan_words.warning(made, of_study=True)
    assert in_study.endswith('(protocol = "small" in the study\'s file)')
    made.others = {"standard": 1e8}
    assert "fewer seeds, tasks or trials take less" in plan_words.warning(made)[0]
    made.others = {"small": 3e5}
    assert "about 3 days, and fewer seeds, tasks or trials less than that" in plan_words.warning(made)[0]


def test_a_plan_says_what_was_chosen_and_why(
    bench: Callable, drawn: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "ANSWER", 120.0)  # also on a machine that is busy
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", tmp_path / "runs")
    asked = ("run", "--pretext", "l1_color", "--downstream", "voc_seg", "--device", "cpu", *data, "--plan")
    shown = bench(*asked).out
    lines = [re.split(r"  +", line.strip()) for line in shown[shown.index("Chosen") :].splitlines()]
    assert lines[0] == ["Chosen", "Why"]
    assert ["protocol", "small", "the default for photographs"] in lines and ["size", "64 px", "the protocol's"] in lines
    assert ["trunk", "unet:depth=6,width=16", "the protocol's"] in lines and ["device", "cpu", "asked for"] in lines
    assert " s of training" not in shown and "about " in shown and "steps timed now: " in shown
    asked_for = bench(*asked, "--threads", "1", "--protocol", "demo", "--size", "32").out
    assert len(re.findall(r"^(?:protocol +demo|size +32 px|threads +1) +asked for", asked_for, re.MULTILINE)) == 3
    assert "steps from a plan of " in bench(*asked).out  # nothing is timed twice


@pytest.mark.parametrize(
    "asked",
    [
        ("--set", "protocol.batch_size=100000", "--set", "recipe.batch_size=100000"),
        ("--trunk", "unet:width=1024", "--size", "4096"),
        ("--trunk", "timm:convnext_xxlarge", "--size", "1024"),
        ("--protocol", "standard", "--pretext", "all", "--downstream", "all", "--seeds", "20", "--tune", "50"),
        ("--pretext", "all", "--downstream", "all", "--seeds", "20", "--leaks", "drop"),
    ],
)
def test_a_plan_answers_soon_whatever_is_asked(asked: tuple[str, ...], drawn: dict[str, Path], tmp_path: Path) -> None:
    """15 seconds are promised where nothing else runs; the processor time of a process does not depend on others.

    The process is a new one, which imports torch, and it has folders that were never read.
    """
    words = [sys.executable, "-m", "bench", "run", *TINY, "--pretext", "l1_color", "--downstream", "voc_seg", *asked, "--plan"]
    data = ["--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", tmp_path / "runs"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*words, *data], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and "in all on this machine" in done.stdout, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15


def test_a_plan_takes_the_time_of_a_run(tiny: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "ENOUGH", 1)
    asked = ("--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "frozen")
    assert tiny(*asked).code == 0
    shown = tiny(*asked, "--seed", 1, "--plan").out
    assert re.search(r"^steps from a run of 20\d\d-\d\d-\d\d: l1_color$", shown, re.MULTILINE)
    monkeypatch.setattr(step_times, "_now", lambda: datetime(2100, 1, 1, tzinfo=UTC))
    assert "steps from a run of" in tiny(*asked, "--seed", 1, "--plan").out


def test_a_finished_plan_leaves_nothing_out(tiny: Callable) -> None:
    asked = ("--pretext", "random_init", "--downstream", "voc_cls", "--schedule", "frozen")
    assert "in all on this machine, without packing and files" in tiny(*asked, "--plan").out
    assert tiny(*asked).code == 0
    assert tiny(*asked, "--plan").out.splitlines()[-1] == "nothing is left to do"


@pytest.mark.parametrize("kept", [{}, {"bf16": 20.0, "fp32": 10.0}, {"bf16": 10.0, "fp32": 10.0}])
def test_a_plan_names_no_precision_that_the_run_may_not_take(
    planned: Callable[..., plan.Plan], steps: list[tuple[str, int]], kept: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_amx", lambda: True)
    monkeypatch.setattr(machine, "seal", SimpleNamespace(load=lambda *_: kept))
    monkeypatch.setattr(machine, "images_per_second", lambda *_, **__: pytest.fail("a plan times no precision"))
    rows = {one.name: (one.text, one.why) for one in chosen(planned(size=machine.BF16_SIZE).session)}
    expected = "bf16" if kept and kept["bf16"] > kept["fp32"] else "fp32"
    assert rows["precision"] == (expected, "the device's" if kept else "not timed yet: the run takes bf16 where that is faster")
    asked = chosen(planned(size=machine.BF16_SIZE, precision="fp32").session)
    assert ("precision", "fp32", "asked for") in [(one.name, one.text, one.why) for one in asked]


@pytest.mark.parametrize(("seconds", "words"), [(0, "1 s"), (99, "99 s"), (100, "2 min"), (7_200, "2 h 0 min"), (86_400, "24 h")])
def test_a_duration_is_told_in_units_that_a_person_counts_in(seconds: float, words: str) -> None:
    assert duration(seconds) == words
