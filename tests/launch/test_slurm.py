"""`--launcher slurm` on a real SLURM of two nodes: equal tables, a killed worker, the time limit, Ctrl-C, plain commands."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.errors import MachineError, UsageError
from bench.launch import launch as launches
from bench.launch import supervisor
from bench.launch.slurm import Slurm, jobs_of, parameters_of
from tests.docs.test_docs import ROOT, shown
from tests.launch import grids, slurm_here
from tests.stress.launchers import workers

GRID = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls", "--schedule", "two-phase", "--seeds", "2")
SLURM = ("--launcher", "slurm", "--slurm", "partition=gpu,time=30")
WITH_SLURM = pytest.mark.skipif(bool(slurm_here.missing()), reason=slurm_here.missing())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Start SLURM once for the tests of this file."""
    with slurm_here.slurm(tmp_path_factory.mktemp("slurm") / "here") as environment:
        yield environment


@pytest.fixture
def slurm(running: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands find the SLURM."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, running[name])


def launch(out: Path, **options: str) -> launches.Launch:
    """Return a launch of two workers that is not begun."""
    return launches.Launch(
        id="a", launcher="slurm", out=str(out), cwd=str(out), words=("list",), workers=2, created=launches.now(), options=options
    )


def ask(*words: str) -> str:
    """Return what a program of SLURM prints."""
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [("60", 60), ("1:30", 2), ("2:00:00", 120), ("1-0", 1440), ("1-2:30", 1590), ("0-00:01:00", 1), ("90:00", 90)],
)
def test_a_time_limit_is_read_as_sbatch_reads_it(limit: str, minutes: int) -> None:
    assert parameters_of({"time": limit, "signal_delay_s": "30"})["time"] == minutes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": "an hour"}, "time takes minutes"),
        ({"time": "0"}, "at least 1 minute"),
        ({"time": "1"}, "90 s before its limit"),
        ({"time": "10", "signal_delay_s": "600"}, "600 s before its limit"),
        ({"partition": ""}, "takes a value"),
        ({"cpus_per_task": "many"}, "a whole number, but got 'many'"),
        ({"nodes": "2"}, "one task on one node"),
        ({"array": "0-9"}, "set by the launcher"),
    ],
)
def test_an_option_with_a_wrong_value_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parameters_of(options)


def test_without_slurm_a_sentence_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="needs sbatch, which is not here"):
        Slurm().check(launch(tmp_path))


@WITH_SLURM
def test_an_unknown_option_is_named_with_the_nearest_and_a_known_one_is_passed_on(slurm: None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown option of --slurm 'partitoin'; did you mean 'partition'"):
        parameters_of({"partitoin": "gpu"})
    script = Slurm().preview(
        launch(tmp_path, reservation="mine", gpus_per_node="a100:2", cpus_per_task="4", **{"mem-per-cpu": "2G"})
    )
    assert re.search(r"^srun .* --cpus-per-task=4 ", script, re.MULTILINE), "srun does not take it over from sbatch"
    assert {
        "#SBATCH --reservation=mine",
        "#SBATCH --gpus-per-node=a100:2",
        "#SBATCH --mem-per-cpu=2G",
        "#SBATCH --requeue",
    } <= set(script.splitlines())


EXAMPLES = [line for line in shown((ROOT / "docs" / "clusters.md").read_text()) if "--launcher slurm" in line]


@WITH_SLURM
@pytest.mark.parametrize("line", EXAMPLES)
def test_the_script_of_an_example_of_the_documentation_is_what_sbatch_takes(
    slurm: None, bench: Callable, drawn: dict[str, Path], tmp_path: Path, line: str
) -> None:
    words = [word.replace("cpus_per_task=8", "cpus_per_task=1") for word in shlex.split(line)[1:] if word != "--detach"]
    planned = bench(*words, *grids.words(drawn, tmp_path / "runs", *GRID)[1:], *([] if "--plan" in words else ["--plan"]))
    assert planned.code == 0, planned.err
    (tmp_path / "script").write_text(planned.out[planned.out.index("#!/bin/bash") :])
    asked = subprocess.run(["sbatch", "--test-only", tmp_path / "script"], capture_output=True, text=True, timeout=60)
    assert asked.returncode == 0 and "to start at" in asked.stderr, asked.stderr


def test_the_documentation_has_examples() -> None:
    assert len(EXAMPLES) == 3


@WITH_SLURM
def test_what_sbatch_refuses_is_said(slurm: None, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"SLURM refused the job: .*invalid partition"):
        Slurm().start(launch(tmp_path, partition="elsewhere"))


@WITH_SLURM
@pytest.mark.integration
def test_two_tasks_of_which_one_worker_is_killed_give_the_table_of_one_process(
    slurm: None, bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    plain, shared, log = tmp_path / "plain", tmp_path / "shared", tmp_path / "log"
    assert bench(*grids.words(drawn, plain, *GRID)).code == 0
    planned = bench(*grids.words(drawn, shared, *GRID, *SLURM, "--launch-workers", "2", "--plan"))
    assert planned.code == 0 and "#SBATCH --array=0-1%2" in planned.out and "#SBATCH --time=30" in planned.out
    assert not shared.joinpath("launches").exists() and not ask("squeue", "-h"), "--plan submits nothing"
    head = grids.start(grids.words(drawn, shared, *GRID, *SLURM, "--launch-workers", "2"), log)
    os.kill(grids.until(lambda: workers(shared), head)[0], signal.SIGKILL)
    assert head.wait(200) == 0, log.read_text()
    (folder,) = (shared / "launches").iterdir()
    ended = [supervisor.kept(folder, number) for number in (0, 1)]
    assert sorted(one.starts for one in ended if one) == [1, 2] and {one.code for one in ended if one} == {0}
    assert len({one.where for one in ended if one}) == 2 and all("SLURM job" in one.where for one in ended if one)
    (script,) = folder.glob("slurm/*_submission.sh")
    assert script.read_text() == Slurm().preview(launches.read(folder))
    for out in (plain, shared):
        assert bench("report", "--out", out).code == 0
    assert grids.tables(plain) == grids.tables(shared)


@WITH_SLURM
@pytest.mark.integration
def test_before_its_time_limit_a_task_makes_a_checkpoint_and_is_requeued(
    slurm: None, bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    out, log = tmp_path / "runs", tmp_path / "log"
    long = ("--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "two-phase", "--set", "recipe.epochs=120")
    head = grids.start(grids.words(drawn, out, *long, *SLURM), log)
    grids.until(lambda: "pretrain l1_color: epoch" in grids.text_of(out, 0), head)
    (job,) = launches.all_in(out)[0].facts["jobs"].values()
    assert ask("squeue", "-h", "-o", "%T", "-j", job).strip() == "RUNNING"
    ask("scancel", "--signal=USR2", job)  # as SLURM does 90 s before the limit
    grids.until(lambda: "bench: stopped" in grids.text_of(out, 0), head)
    assert head.wait(200) == 0, log.read_text()
    told = grids.text_of(out, 0)
    assert "Restarts=1" in ask("scontrol", "show", "job", job)
    assert told.count("epoch 1/120") == 1 and told.count("epoch 120/120") == 1, "the second time it goes on from the checkpoint"


@WITH_SLURM
@pytest.mark.integration
def test_ctrl_c_stops_the_workers_and_a_detached_launch_goes_on(
    slurm: None, bench: Callable, drawn: dict[str, Path], tmp_path: Path
) -> None:
    out, log = tmp_path / "runs", tmp_path / "log"
    words = grids.words(drawn, out, "--pretext", "l1_color", "--downstream", "voc_cls", "--schedule", "two-phase", *SLURM)
    words += ["--set", "recipe.epochs=60"]
    head = grids.start(words, log)
    grids.until(lambda: "pretrain l1_color: epoch" in grids.text_of(out, 0), head)
    head.send_signal(signal.SIGINT)
    assert head.wait(60) == 130, log.read_text()
    first = launches.all_in(out)[0]
    assert [(one.state, one.code) for one in Slurm.states(first)] == [("ended", 143)] and not workers(out)
    assert bench(*words, "--detach").code == 0
    second = launches.all_in(out)[1]
    deadline = time.monotonic() + 60
    while Slurm.states(second)[0].state != "ended" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert [(one.state, one.code) for one in Slurm.states(second)] == [("ended", 0)] and len(list(out.glob("runs/*"))) == 1
    assert grids.text_of(out, 0).count("epoch 1/60") == 1


@WITH_SLURM
@pytest.mark.integration
def test_plain_commands_under_srun_share_a_grid(slurm: None, drawn: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "runs"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "KUBERNETES_PORT": "tcp://10.0.0.1:443",
    }
    command = launches.Launch.command(launch(out).model_copy(update={"words": tuple(grids.words(drawn, out, *GRID))}), 0)
    done = subprocess.run(
        ["srun", "-N", "2", "-n", "2", "-l", *command], capture_output=True, text=True, env=environment, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("runs/*"))) == 4
    trained = [line.partition(":")[0] for line in done.stdout.splitlines() if "phase 2 (everything): epoch 1/1" in line]
    assert len(trained) == 4 and set(trained) == {"0", "1"}, "both work, and no run is made twice"


def test_a_scheduler_that_does_not_answer_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.launch.slurm._ask", lambda *words: (1, "", "squeue: error: Unable to contact slurm controller"))
    assert jobs_of(["7_0"], {"7_0": "RUNNING"}) == {"7_0": "RUNNING"}
    monkeypatch.setattr("bench.launch.slurm._ask", lambda *words: (1, "", "slurm_load_jobs error: Invalid job id specified"))
    assert jobs_of(["7_0"], {"7_0": "RUNNING"}) == {}


def test_a_job_that_slurm_could_not_start_and_holds_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = "7 0 8 PENDING launch failed requeued held\n7 1 7 PENDING Resources\n"
    monkeypatch.setattr("bench.launch.slurm._ask", lambda *words: (0, told, ""))
    begun = launch(tmp_path).model_copy(update={"facts": {"jobs": {"0": "7_0", "1": "7_1"}}})
    assert [(one.state, one.code) for one in Slurm.states(begun)] == [("ended", supervisor.KILLED), ("waits", None)]
