"""What the command that launches does when workers end: with an engine that only pretends to start any."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.errors import Interrupted, SomeFailed
from bench.experiment import failures
from bench.launch import head as heads
from bench.launch import launch as launches
from bench.launch.engine import Engine, WorkerState
from bench.launch.head import Head
from bench.launch.planned import Planned, PlannedRun, Progress
from bench.training.machine import Stop


class Pretended(Engine):
    """Workers that end at once with the codes of a script; `runs` are finished when a worker is started for the nth time."""

    def __init__(self, codes: dict[int, list[int]], out: Path, runs: Sequence[str] = ()) -> None:
        self.codes, self.out, self.runs = codes, out, list(runs)
        self.now: dict[int, int | None] = {}
        self.restarted: list[int] = []
        self.stopped = 0

    def start(self, launch: launches.Launch) -> dict[str, Any]:
        for number in range(launch.workers):
            self._begin(number)
        return {}

    def _begin(self, number: int) -> None:
        codes = self.codes[number]
        self.now[number] = codes.pop(0) if len(codes) > 1 else codes[0]
        if self.runs:
            (self.out / "runs" / self.runs.pop(0)).mkdir(parents=True)

    def poll(self) -> list[WorkerState]:
        return [WorkerState(number, "ended", code) for number, code in self.now.items()]

    def restart(self, number: int) -> None:
        self.restarted.append(number)
        self._begin(number)

    def stop(self) -> None:
        self.stopped += 1

    @classmethod
    def states(cls, launch: launches.Launch) -> list[WorkerState]:
        return []


Made = Callable[..., tuple[Head, Pretended, Progress]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Give a head of two runs, a and b, whose workers end with the codes of a script."""
    monkeypatch.setattr(heads, "LOOK", 0.0)

    def call(codes: dict[int, list[int]], runs: Sequence[str] = ()) -> tuple[Head, Pretended, Progress]:
        engine = Pretended(codes, tmp_path, runs)
        planned = Planned(
            runs=tuple(PlannedRun(id=name, trunk=f"trunk {name}", title=f"row {name}", seed=0, trunk_seed=0) for name in "ab")
        )
        launch = launches.Launch(
            id="one", launcher="local", out=str(tmp_path), cwd="/", words=("run",), workers=len(codes), created=launches.now()
        )
        progress = Progress(planned, tmp_path, "one")
        said: list[str] = []
        found = Head(engine, launch, [progress], said.append, lambda part, run: None, lambda text: None)
        found.start()
        return found, engine, progress

    return call


def test_a_worker_that_is_killed_again_and_again_is_given_up(made: Made) -> None:
    found, engine, progress = made({0: [137]})
    found.watch(Stop())
    assert engine.restarted == [0, 0, 0]
    with pytest.raises(SomeFailed, match=r"2 of 2 runs were not made; worker 0 was ended by signal 9"):
        found.check(progress)


def test_progress_gives_a_worker_its_chances_again(made: Made) -> None:
    found, engine, progress = made({0: [137, 137, 137, 137, 137, 0]}, runs=["c", "c1", "c2", "a", "c3", "b"])
    found.watch(Stop())
    assert len(engine.restarted) == 5 and not progress.left
    found.check(progress)


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_an_error_of_a_worker_is_told_and_not_tried_again(made: Made, code: int, tmp_path: Path) -> None:
    found, engine, progress = made({0: [code], 1: [code]})
    found.launch.log(1).write_text("bench: the disk is full.\n")
    found.watch(Stop())
    assert engine.restarted == []
    with pytest.raises(SomeFailed, match=rf"worker 1 ended with exit code {code} \(bench: the disk is full\)"):
        found.check(progress)


def test_workers_are_started_again_for_work_that_is_left(made: Made) -> None:
    found, engine, progress = made({0: [0], 1: [0]}, runs=["a", "x", "b"])
    found.watch(Stop())
    assert engine.restarted == [0], "one run is left, so one worker is enough"
    assert not progress.left


def test_work_that_nobody_makes_is_not_waited_for_without_end(made: Made) -> None:
    found, engine, progress = made({0: [0]})
    found.watch(Stop())
    assert engine.restarted == [0, 0, 0]
    with pytest.raises(SomeFailed, match="were not made"):
        found.check(progress)


def test_a_failure_of_this_launch_ends_the_wait_and_names_the_run(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRETEXT_BENCH_LAUNCH", str(tmp_path / "launches" / "one"))
    monkeypatch.setenv("PRETEXT_BENCH_WORKER", "0")
    failures.note("trunk b", tmp_path, ValueError("no such thing"))
    found, engine, progress = made({0: [5]}, runs=["a"])
    found.watch(Stop())
    assert engine.restarted == []
    with pytest.raises(SomeFailed, match=r"1 of 2 runs failed: row b: .*no such thing"):
        found.check(progress)
    monkeypatch.setenv("PRETEXT_BENCH_LAUNCH", str(tmp_path / "launches" / "another"))
    failures.note("trunk b", tmp_path, ValueError("no such thing"))
    progress.look()
    assert [run.id for run in progress.left] == ["b"], "what failed in another launch is tried in this one"


def test_a_signal_stops_the_workers(made: Made) -> None:
    found, engine, _ = made({0: [137]})
    engine.poll = lambda: [WorkerState(0, "runs")] if not engine.stopped else [WorkerState(0, "ended", 143)]  # type: ignore[method-assign]
    with pytest.raises(Interrupted) as told:
        found.watch(Stop(2))
    assert told.value.exit_code == 130 and engine.stopped == 1 and engine.restarted == []
