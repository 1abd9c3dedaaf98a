"""`bench status`: counts, what is at work, what failed and when it will be done, from files that a launch leaves."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.config import PRETEXT, RunConfig
from bench.experiment import failures
from bench.experiment.grid import named_in_full
from bench.experiment.plan import plan
from bench.experiment.resolve import resolve
from bench.experiment.schedule import Task, wall_time
from bench.experiment.search import chosen_by, search_of
from bench.experiment.session import open_session
from bench.experiment.step_times import StepTimes
from bench.launch import launch as launches
from bench.launch import planned as plans
from bench.launch.local import Local, began
from bench.launch.planned import Planned, PlannedRun, PlannedSearch, Progress, seconds_left
from bench.launch.planning import planned
from bench.record import Cost, Tuning
from bench.storage import launched, locks
from tests.benchmarks.step import Silent


def runs(count: int, search: str = "") -> tuple[PlannedRun, ...]:
    return tuple(
        PlannedRun(id=f"row-task-{number}", trunk=f"row-{number % 2}", search=search, title=f"row {number}", seed=0, trunk_seed=0)
        for number in range(count)
    )


def launch_in(out: Path, parts: list[Planned], facts: dict[str, object] | None = None) -> launches.Launch:
    made = launches.Launch(
        id="one", launcher="local", out=str(out), cwd="/", words=("run",), workers=2, created=launches.now(), facts=facts or {}
    ).keep()
    plans.keep(parts, made.folder)
    return made


@contextmanager
def sleeping(code: str = "import time; time.sleep(60)") -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_is_done_at_work_waiting_and_failed(bench: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of six runs two are finished, one is at work, one failed and two wait."""
    seconds = {**{f"row-task-{number}": 100.0 for number in range(6)}, "row-0": 50.0, "row-1": 50.0}
    with sleeping() as process:
        launch_in(
            tmp_path,
            [Planned(runs=runs(6), seconds=seconds)],
            {"processes": {"0": {"pid": process.pid, "began": began(process.pid)}}},
        )
        for number in (0, 1):
            (tmp_path / "runs" / f"row-task-{number}").mkdir(parents=True)
            (tmp_path / "pretrained" / f"row-{number}").mkdir(parents=True)
        monkeypatch.setenv(launched.LAUNCH, str(tmp_path / "launches" / "one"))
        monkeypatch.setenv(launched.WORKER, "0")
        failures.note("row-task-5", tmp_path, ValueError("too large"))
        with locks.lock(tmp_path / "locks" / "row-task-2.lock", print):
            told = json.loads(bench("status", "--out", tmp_path, "--json").out)
            said = bench("status", "--out", tmp_path).out
            (found,) = json.loads(bench("status", "row-task-2", "--out", tmp_path, "--json").out)
    counts = {name: told[name] for name in ("total", "finished", "begun", "waiting", "failed")}
    assert counts == {"total": 6, "finished": 2, "begun": 1, "waiting": 2, "failed": 1}
    assert told["seconds_of_work_left"] == pytest.approx(300, abs=3) and told["seconds_left"] == pytest.approx(300, abs=3)
    (work,) = told["at_work"]
    assert work["id"] == "row-task-2" and "worker 0 of one" in work["by"] and f"process {os.getpid()}" in work["by"]
    assert "too large" in told["failures"][0]["reason"] and "failed: row-task-5" in said and "about 5 min left" in said
    assert told["workers"] == [
        {"number": 0, "state": "runs", "code": None, "where": "", "log": str(tmp_path / "launches/one/worker-0.log")}
    ]
    assert "at work" in found["state"] and "worker 0 of one" in found["state"]
    told = json.loads(bench("status", "--out", tmp_path, "--json").out)
    assert (told["begun"], told["workers"][0]["state"]) == (0, "ended"), "the lock and the worker are gone"
    assert "no worker is left" in bench("status", "--out", tmp_path).out


def test_a_process_that_got_a_dead_workers_id_is_not_taken_for_it(tmp_path: Path) -> None:
    with sleeping() as process:
        ticks = began(process.pid)
        assert ticks is not None
        for told, state in ((ticks, "runs"), (ticks - 100, "ended")):
            made = launch_in(tmp_path, [], {"processes": {"0": {"pid": process.pid, "began": told}}})
            assert [one.state for one in Local.states(made)] == [state]


def test_the_text_of_a_dead_holder_is_no_sign_of_work(bench: Callable, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bench.storage import locks\n"
        "with locks.lock(Path(sys.argv[1]), print): print('held', flush=True); time.sleep(60)"
    )
    path = tmp_path / "locks" / "row-task-1.lock"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert [one["id"] for one in json.loads(bench("status", "--out", tmp_path, "--json").out)["at_work"]] == ["row-task-1"]
        process.kill()
    assert path.read_text() and json.loads(bench("status", "--out", tmp_path, "--json").out)["at_work"] == []


def test_without_a_launch_and_for_unknown_ids(bench: Callable, tmp_path: Path) -> None:
    failures.note("row-task-5", tmp_path, ValueError("too large"))
    done = bench("status", "--out", tmp_path)
    assert done.code == 0 and "nothing was launched" in done.out and "0 runs are finished, 1 failed" in done.out
    unknown = bench("status", "nobody", "--out", tmp_path)
    assert unknown.code == 2 and "begins with 'nobody'" in unknown.err
    damaged = launch_in(tmp_path, []).folder / "launch.json"
    damaged.write_bytes(damaged.read_bytes().replace(b'"workers": 2', b'"workers": 3'))
    broken = bench("status", "--out", tmp_path)
    assert broken.code == 3 and "damaged" in broken.err


def test_trials_and_runs_of_a_search_wait_for_each_other(tmp_path: Path) -> None:
    """A trunk of 10 s, four trials of 5 s, two runs of 20 s: 70 s of work; on two workers 10 + 2 x 5 + 20."""
    search = PlannedSearch(job={}, trials=4, lr=0.1)
    both = tuple(run.model_copy(update={"trunk": "row-0", "search": "s"}) for run in runs(2))
    seconds = {"row-0": 10.0, "s": 20.0, "row-task-0": 20.0, "row-task-1": 20.0}
    part = Progress(Planned(runs=both, searches={"s": search}, seconds=seconds), tmp_path, "one")
    part.look()
    assert seconds_left([part], 1) == (70.0, 70.0) and seconds_left([part], 2) == (70.0, 40.0)
    assert seconds_left([part], 2, factor=2.0)[1] == 80.0
    journal = tmp_path / "studies" / "s" / "journal.log"
    journal.parent.mkdir(parents=True)
    journal.write_text(
        '{"op_code":6,"trial_id":0,"state":1,"values":[0.1]}\n{"op_code":6,"trial_id":1,"state":0,"values":null}\n'
    )
    (tmp_path / "pretrained" / "row-0").mkdir(parents=True)
    part.look()
    assert part.trials_of("s") == 1 and seconds_left([part], 1)[0] == 55.0


def test_the_wall_time_is_that_of_a_simple_simulation() -> None:
    """By hand: t, then a and b, then d beside c."""
    tasks = {"t": Task(3.0), "a": Task(2.0, ["t"]), "b": Task(2.0, ["t"]), "c": Task(6.0), "d": Task(1.0, ["a", "b"])}
    assert wall_time(tasks, 1) == sum(task.seconds for task in tasks.values())
    assert wall_time(tasks, 2) == 8.0 and wall_time(tasks, 100) == 6.0 and wall_time({}, 3) == 0.0


@pytest.mark.parametrize("space", ["", "head=1e-4:1e-2,all=1e-5:1e-3,pretext=1e-4:1e-1"])
def test_the_id_of_a_searched_run_is_the_one_that_the_run_gets(drawn: dict[str, Path], tmp_path: Path, space: str) -> None:
    """Also where the search chose the very rate that the task has by default, which ids leave out."""
    config = RunConfig.model_validate({
        "pretext": "rotation", "downstream": "voc_cls", "schedule": "two-phase", "protocol": "demo", "tune": 3, "seeds": 2,
        "data": str(drawn["demo"]), "pretrain_data": str(drawn["demo_unlabelled"]), "trunk": "unet:depth=5,width=8", "size": 32,
        "space": space, "device": "cpu", "threads": 1,
    })  # fmt: skip
    session = open_session(config, tmp_path, Silent(), planning=True)  # type: ignore[arg-type]
    made = planned(session, plan(session, StepTimes(session.machine, time.monotonic()), others=False))
    jobs = resolve(config, print).jobs
    search = search_of(jobs[0], config, jobs)
    assert [run.search for run in made.runs] == [search.id] * 2 and made.searches[search.id].trials == 3
    assert [run.title for run in made.runs] == [named_in_full(job, session) for job in jobs]
    for rate in (0.05, made.searches[search.id].lr):
        best = {name: rate if name == PRETEXT else 0.003 for name in search.space}
        assert (PRETEXT in best) == bool(space)
        cost = Cost(seconds=1.0, images=1, peak_memory=1)
        tuning = Tuning(
            study=search.id, budget=3, space=search.space, sampler="", pruner="", metric="", seed=0, trials=(), best=best,
            best_value=0.5, cost=cost,
        )  # fmt: skip
        for run, job in zip(made.runs, jobs, strict=True):
            assert made.run_id(run, best) == chosen_by(tuning, job).id != job.id
    assert Planned.model_validate_json(made.model_dump_json()) == made
