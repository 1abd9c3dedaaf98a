"""`--plan --json`: the plan as one document, with what the screen says, as numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.experiment import plan_data
from bench.experiment.plan import DAY, Line, Plan
from bench.experiment.step_times import StepTimes
from bench.text import duration

Bench = Callable[..., Any]
ASKED = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls", "--schedule", "frozen", "--seeds", 2)


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step take a second, so that two plans say the same."""
    monkeypatch.setattr(StepTimes, "step", lambda *_: 1.0)


def read(done: Any) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_plan_has_what_the_screen_says(tiny: Bench, drawn: dict[str, Path]) -> None:
    found, shown = read(tiny(*ASKED, "--plan", "--json")), tiny(*ASKED, "--plan").out
    chosen = {one["name"]: one for one in found["chosen"]}
    assert (chosen["size"]["value"], chosen["threads"]["value"], chosen["trunk"]["value"]) == ([32], 1, "unet:depth=5,width=8")
    assert chosen["protocol"]["why"] == "asked for" and chosen["data"]["value"]["images"] == 40
    assert (
        list(chosen["data"]["value"]) == ["name", "images", "fingerprint"] and chosen["pretraining data"]["value"]["images"] == 48
    )
    for line in found["lines"]:
        time = duration(line["seconds"]) if line["seconds"] else "-"
        assert any(row.split() == f"{line['name']} {line['state']} {time}".split() for row in shown.splitlines()), line
    kinds = [(line["kind"], line["pieces"], line["left"]) for line in found["lines"]]
    assert kinds == [("trunk", 2, 0), ("run", 2, 2), ("trunk", 2, 2), ("run", 2, 2)]  # random_init has nothing to pretrain
    assert found["seconds"] == pytest.approx(sum(line["seconds"] for line in found["lines"])) and found["seconds"] > 0
    assert f"about {duration(found['seconds'])} in all on this machine" in shown
    assert found["warnings"] == [] and isinstance(found["step_times"], dict)


def test_what_is_finished_is_not_left(tiny: Bench) -> None:
    assert tiny("--pretext", "random_init", *ASKED[2:], "--seeds", 1).code == 0
    lines = read(tiny(*ASKED, "--plan", "--json"))["lines"]
    assert [(line["state"], line["left"]) for line in lines if line["kind"] == "run"] == [
        ("1 finished, 1 to do", 1),
        ("2 to do", 2),
    ]
    assert tiny(*ASKED).code == 0
    done = read(tiny(*ASKED, "--plan", "--json"))
    assert done["seconds"] == 0 and done["offers"] == [] and {line["left"] for line in done["lines"]} == {0}


def test_searches_count_as_pieces_of_their_own(tiny: Bench) -> None:
    lines = read(tiny(*ASKED, "--tune", 3, "--plan", "--json"))["lines"]
    assert [line["kind"] for line in lines] == ["trunk", "search", "run"] * 2
    assert all(line["pieces"] == line["left"] == 1 and "3 trials" in line["state"] for line in lines if line["kind"] == "search")


def test_notes_go_to_standard_error(tiny: Bench) -> None:
    done = tiny(*ASKED, "--plan", "--json")
    assert read(done) and "made the official splits" in done.err


def test_other_protocols_are_offered_with_their_command(bench: Bench, drawn: dict[str, Path], tmp_path: Path) -> None:
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", tmp_path / "a b")
    words = ("run", "--pretext", "l1_color", "--downstream", "voc_cls", *data, "--device", "cpu", "--threads", 1)
    found = read(bench(*words, "--plan", "--json"))
    assert {one["protocol"] for one in found["offers"]} == {"standard", "paper"}
    for one in found["offers"]:
        assert one["seconds"] > 0 and one["command"].endswith(f"--protocol {one['protocol']}")
        assert "--json" not in one["command"] and "--plan" not in one["command"] and f"'{tmp_path}/a b'" in one["command"]


def test_a_plan_of_days_and_a_step_that_cannot_be_timed_are_warned_of(tiny: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepTimes, "problems", ["l1_color: no luck"], raising=False)
    made: list[Plan] = []
    monkeypatch.setattr("bench.experiment.plan_data.chosen", lambda session: made.append(session) or [])
    assert tiny(*ASKED, "--plan", "--json").code == 0
    times = StepTimes(made[0].machine, 0.0, problems=["l1_color: no luck"])  # type: ignore[attr-defined]
    planned = Plan(made[0], times, None, lines=[Line("a", (("to do", 1),), 10 * DAY)])  # type: ignore[arg-type]
    planned.others = {"small": 3600.0}
    found = plan_data.plan_data(planned)
    assert found["warnings"] == [
        "a step could not be timed: l1_color: no luck",
        "this takes about 10 days on this machine; with the protocol small it takes about 60 min",
    ]
    assert [one["protocol"] for one in found["offers"]] == ["small"]


def test_a_study_has_the_plan_of_each_part(bench: Bench, folder: Path, tmp_path: Path) -> None:
    asked = ("study", folder, "--out", tmp_path / "runs", "--plan")
    found = read(bench(*asked, "--json"))
    shown = bench(*asked).out
    assert [one["part"] for one in found["parts"]] == [line[:-1] for line in shown.splitlines() if line.endswith(":")]
    assert found["finished"] == [] and found["seconds"] == pytest.approx(sum(one["seconds"] for one in found["parts"]))
    assert all(one["lines"] and one["chosen"] and one["warnings"] == [] for one in found["parts"])
    assert bench("study", folder, "--out", tmp_path / "runs", "--only", "main").code == 0
    found = read(bench(*asked, "--json"))
    assert found["finished"] == ["main"] and "main" not in {one["part"] for one in found["parts"]}
