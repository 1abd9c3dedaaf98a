"""Where locks do not work, or hold in one machine only, the command that launches hands out the runs, and each is made once."""

from __future__ import annotations

import csv
import itertools
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.launch import handout, sharing
from bench.storage import launched
from tests.conftest import QUICK, TINY

RUNS, TRAINED = 4, 2
TASKS = ("--pretext", "random_init,l1_color", "--downstream", "voc_cls", "--schedule", "frozen", "--seeds", "2", "--epochs", "4")


def command(drawn: dict[str, Path], out: Path, *more: str) -> list[str]:
    data = ("--data", str(drawn["demo"]), "--pretrain-data", str(drawn["demo_unlabelled"]), "--out", str(out))
    return [sys.executable, "-m", "bench", "run", *TINY, *QUICK, *TASKS, *data, *more]


def times(text: str, what: str) -> int:
    """Return how often something was begun, by what the first epoch of each says."""
    return sum(what in line and ": epoch 1/" in line for line in text.splitlines())


def figures(out: Path) -> list[dict[str, str]]:
    """Return the leaderboard without what tells of time, cost and machine."""
    said = subprocess.run([sys.executable, "-m", "bench", "report", "--out", str(out)], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    with (out / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    costs = ("second", "hour", "memory", "joule", "images_per", "cost", "device", "energy", "wh")
    return [{name: value for name, value in row.items() if not any(word in name for word in costs)} for row in rows]


@pytest.mark.integration
@pytest.mark.parametrize(("how", "said"), [("ENOSYS", "Function not implemented"), ("hosts", "are not shared between")])
def test_a_launch_divides_the_runs(how: str, said: str, flock_library: Path, drawn: dict[str, Path], tmp_path: Path) -> None:
    plain, out = tmp_path / "plain", tmp_path / "out"
    subprocess.run(command(drawn, plain), check=True, capture_output=True)
    faulty = {"LD_PRELOAD": str(flock_library), "FAULTS_FLOCK": how, "FAULTS_FLOCK_BELOW": str(out)}
    launch = command(drawn, out, "--launcher", "local", "--devices", "cpu:2")
    told = subprocess.run(launch, capture_output=True, text=True, env={**os.environ, **faulty})
    printed = told.stdout + told.stderr
    assert told.returncode == 0 and said in printed and "the runs are divided among the workers: 2, 2" in printed, printed
    logs = "".join(path.read_text() for path in out.glob("launches/*/worker-*.log"))
    assert len(list((out / "runs").iterdir())) == RUNS and figures(out) == figures(plain)
    if how == "ENOSYS":  # where the fault shows later, workers have begun
        assert (times(logs, "pretrain l1_color"), times(logs, "voc_cls phase 1")) == (TRAINED, RUNS)


@pytest.fixture
def two_mounts(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Give one folder at two places, by a mount."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    done = subprocess.run(["mount", "--bind", str(one), str(other)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    yield one, other
    subprocess.run(["umount", str(other)], check=True)


@pytest.mark.integration
def test_commands_on_two_mounts_of_a_folder_share_a_grid(two_mounts: tuple[Path, Path], drawn: dict[str, Path]) -> None:
    started = [
        subprocess.Popen(command(drawn, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for out in two_mounts
    ]
    logs = [one.communicate()[0] for one in started]
    assert [one.returncode for one in started] == [0, 0], logs
    assert (times("".join(logs), "pretrain l1_color"), times("".join(logs), "voc_cls phase 1")) == (TRAINED, RUNS)
    assert all(times(log, "voc_cls phase 1") for log in logs), "one command made all runs"


HOLD = """
import sys
from pathlib import Path
from bench.launch import sharing
with sharing.holding(Path(sys.argv[1]), "head"):
    sys.stdin.read()
"""


@pytest.fixture
def holder(flock_library: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process on machine 1 that holds the lock of a launch's command in `tmp_path`."""
    environment = {**os.environ, "LD_PRELOAD": str(flock_library), "FAULTS_FLOCK": "host:1"}
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 60
    while not (tmp_path / "head.alive").exists() or not (tmp_path / "head.alive").read_text():
        assert time.monotonic() < until and held.poll() is None
    yield held
    held.kill()
    held.wait()


JOIN = """
import os
from bench.errors import MachineError
from bench.launch import sharing
try:
    with sharing.member():
        print("well")
except MachineError as error:
    print(error)
"""


def joined(library: Path, folder: Path, how: str) -> str:
    """Return what a worker says that becomes a member of the launch."""
    environment = {"LD_PRELOAD": str(library), "FAULTS_FLOCK": how, launched.LAUNCH: str(folder), launched.WORKER: "0"}
    words = [sys.executable, "-c", JOIN]
    return subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, **environment}).stdout.strip()


@pytest.mark.integration
def test_a_worker_sees_whether_the_locks_of_others_keep_it_out(
    holder: subprocess.Popen[str], flock_library: Path, home: Path, tmp_path: Path
) -> None:
    home.mkdir()
    assert joined(flock_library, tmp_path, "host:1") == "well"
    assert not sharing.found(tmp_path)
    for how, said in (("host:2", "not shared between"), ("nobody", "two processes can hold one at once")):
        assert said in joined(flock_library, tmp_path, how)
        assert said in sharing.found(tmp_path)
    holder.kill()
    holder.wait()
    assert (tmp_path / "head.alive").read_text().split(" ")[0] == socket.gethostname()
    assert joined(flock_library, tmp_path, "host:1") == "well", "who is dead holds no lock"


def test_signs_of_life_of_another_who_took_a_dead_ones_place_prove_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when two killed workers are started again at once: the lock was free, and a moment later its file has new signs."""
    monkeypatch.setattr(sharing, "BEAT", 0.05)
    monkeypatch.setattr(sharing, "PATIENCE", 0.5)
    path, life = tmp_path / "worker-1.lock", tmp_path / "worker-1.alive"
    path.touch()

    def found_beside(names: list[str]) -> str:
        life.write_text("here dead 7")
        signs = iter(names)
        monkeypatch.setattr(time, "sleep", lambda seconds: life.write_text(next(signs, names[-1])) and None)
        return sharing.not_kept_out([path])

    assert not found_beside(["here new 1", "here new 2", "here new 3"])
    assert not found_beside(["here dead 8"]), "it may have died since"
    assert found_beside(["here dead 8", "here dead 9"]) == "here"


def test_who_shares_work_goes_to_one_worker() -> None:
    needs = {f"run {n}": [f"trunk {n % 4}", *([f"search {n}"] if n > 8 else []), f"run {n}"] for n in range(12)}
    needs["run 9"] = ["trunk 0", "search 10", "run 9"]  # run 10 has it, and trunk 2
    found = [set(group) for group in handout.groups(needs)]
    assert sorted(run for group in found for run in group) == sorted(needs)
    for one, other in itertools.combinations(found, 2):
        assert not {p for run in one for p in needs[run]} & {p for run in other for p in needs[run]}
    assert sorted(map(len, found)) == [2, 3, 7]


def test_work_is_divided_nearly_as_evenly_as_can_be() -> None:
    """Graham's bound: dealing out the longest first takes at most 4/3 of the least possible."""
    chance = random.Random(0)
    for _ in range(20):
        needs = {str(number): [str(number)] for number in range(7)}
        seconds = {name: chance.uniform(1, 10) for name in needs}
        dealt = handout.divide([[name] for name in needs], needs, seconds, 3)
        assert sorted(name for jobs in dealt for name in jobs) == sorted(needs)
        longest = max(sum(seconds[name] for name in jobs) for jobs in dealt)
        ways = itertools.product(range(3), repeat=len(needs))
        best = min(max(sum(s for s, w in zip(seconds.values(), way, strict=True) if w == k) for k in range(3)) for way in ways)
        assert longest <= 4 / 3 * best + 1e-9


def test_what_jobs_share_takes_its_time_once() -> None:
    needs = {"a": ["trunk", "a"], "b": ["trunk", "b"], "c": ["c"]}
    seconds = {"trunk": 10.0, "a": 1.0, "b": 1.0, "c": 12.5}
    assert handout.divide(handout.groups(needs), needs, seconds, 2) == [["c"], ["a", "b"]]
