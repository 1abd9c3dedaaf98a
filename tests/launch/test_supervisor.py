"""A supervisor of one worker: it starts a killed worker again a few times, keeps its state, and sends SIGTERM on once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bench.launch import launch as launches
from bench.launch import supervisor
from bench.storage import launched, parent

ENDS = "import os, sys; from pathlib import Path; Path(f'start-{os.getpid()}').touch(); "
WAITS = (
    ENDS
    + """
import signal, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
Path('ready').touch()
while not asked:
    time.sleep(0.01)
time.sleep(0.5)
sys.exit(143 if len(asked) == 1 else 1)
"""
)
"""A worker that takes a moment to stop, and ends with 1 where it is asked twice."""


def begun(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str, launcher: Any = "ray") -> supervisor.Supervisor:
    """Return the supervisor of a worker that runs a program instead of `bench`."""
    launch = launches.Launch(
        id="a", launcher=launcher, out=str(folder), cwd=str(folder), words=(), workers=1, created=launches.now()
    ).keep()
    monkeypatch.setattr(launches.Launch, "command", lambda self, number: [sys.executable, "-c", program])
    monkeypatch.setattr(supervisor.time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 0.05)))
    return supervisor.Supervisor(str(launch.folder), 0)


def starts(folder: Path) -> int:
    """Return how often the worker was started."""
    return len(list(folder.glob("start-*")))


@pytest.mark.parametrize(("launcher", "leaves"), [("ray", "1"), ("slurm", "1"), ("local", "None")])
def test_only_a_worker_of_a_cluster_leaves_when_others_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, leaves: str
) -> None:
    told = f"import os; from pathlib import Path; Path('leaves').write_text(str(os.environ.get('{launched.LEAVES}')))"
    assert begun(tmp_path, monkeypatch, told, launcher)() == 0
    assert (tmp_path / "leaves").read_text() == leaves


@pytest.mark.parametrize("code", [0, 3, 5, 130])
def test_a_worker_that_ends_by_itself_is_started_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    watch = begun(tmp_path, monkeypatch, ENDS + f"sys.exit({code})")
    assert watch() == code and starts(tmp_path) == 1
    now = supervisor.kept(Path(watch.folder), 0)
    assert now is not None and (now.state, now.code, now.starts) == ("ended", code, 1)


@pytest.mark.parametrize(("finishes", "count"), [(False, supervisor.TRIES + 1), (True, supervisor.TRIES + 3)])
def test_a_worker_that_is_killed_is_started_again_while_something_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finishes: bool, count: int
) -> None:
    made = "n = len(list(Path().glob('start-*'))); n == 3 and Path('runs/a').mkdir(parents=True); " if finishes else ""
    watch = begun(tmp_path, monkeypatch, ENDS + made + "os.kill(os.getpid(), 9)")
    assert watch() == supervisor.KILLED and starts(tmp_path) == count


def test_a_worker_is_asked_once_to_stop_and_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = begun(tmp_path, monkeypatch, WAITS)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(watch()))
    thread.start()
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    watch.stop()
    time.sleep(0.05)  # two signals at once would be one
    watch.stop()
    thread.join(20)
    assert codes == [143] and starts(tmp_path) == 1


def test_the_signal_before_a_time_limit_does_not_end_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = begun(tmp_path, monkeypatch, ENDS + "import signal; os.kill(os.getpid(), signal.SIGUSR2)")
    assert watch() == 0


def test_a_launch_that_was_stopped_starts_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = begun(tmp_path, monkeypatch, ENDS)
    (Path(watch.folder) / supervisor.MARKER).touch()
    assert watch() == 143 and starts(tmp_path) == 0


def test_a_supervisor_whose_worker_was_taken_over_keeps_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = begun(tmp_path, monkeypatch, ENDS)
    other = supervisor.Kept(state="runs", where="elsewhere", process=1)
    run = watch._run

    def taken_over(launch: launches.Launch) -> int:
        supervisor.files.publish_json(supervisor.state_file(Path(watch.folder), 0), other.model_dump(mode="json"))
        return run(launch)

    monkeypatch.setattr(watch, "_run", taken_over)
    watch()
    assert supervisor.kept(Path(watch.folder), 0) == other


def test_a_worker_ends_with_its_supervisor(tmp_path: Path) -> None:
    program = "import time; from bench.storage.parent import *; end_with_parent(); print('ready', flush=True); time.sleep(60)"
    between = (
        "import os, subprocess, sys, time; "
        f"own = {{**os.environ, {parent.FOLLOWS!r}: str(os.getpid())}}; "
        f"worker = subprocess.Popen([sys.executable, '-c', {program!r}], env=own); "
        "print(worker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", between], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        worker = int(started.stdout.readline())
        assert started.stdout.readline() == "ready\n"
        os.kill(worker, 0)
        started.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and "State:\tZ" not in Path(f"/proc/{worker}/status").read_text():
        assert time.monotonic() < deadline, "it goes on without its supervisor"
        time.sleep(0.05)
