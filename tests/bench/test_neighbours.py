"""Other programs on the same processors are seen, told of once, and never change what is computed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import neighbours, openmp, probe
from results import record

Bench = Callable[..., Any]


def test_waiting_threads_sleep_sooner_unless_the_user_says_how_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, left in (
        ({}, {"GOMP_SPINCOUNT": openmp.SPINS}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ):
        for name in openmp.VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        openmp.spin_less()
        assert {name: os.environ[name] for name in openmp.VARIABLES if name in os.environ} == left
        assert all(f"{name}={value}" in openmp.waiting() for name, value in left.items())


def test_the_spin_count_is_set_before_torch_is_imported() -> None:
    """The program as a user starts it: libgomp reads its variables when torch loads it."""
    script = """
import sys
sys.argv = ["bench", "--version"]
import importlib.abc
class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            import os
            print("torch", os.environ.get("GOMP_SPINCOUNT"))
sys.meta_path.insert(0, Watch())
from bench.__main__ import main
try:
    main()
except SystemExit:
    pass
import torch
"""
    plain = {name: value for name, value in os.environ.items() if name not in openmp.VARIABLES}
    done = subprocess.run([sys.executable, "-c", script], env=plain, capture_output=True, text=True, check=True)
    assert f"torch {openmp.SPINS}" in done.stdout and "torch None" not in done.stdout


def stat(folder: Path, user: int, idle: int, own: int, child: int = 0) -> None:
    """Write what the kernel says of all processors, of this process (its name has a space and a bracket), and of a child."""
    (folder / "self").unlink(missing_ok=True)
    (folder / "self").symlink_to("10")
    for process, ticks, children in ((10, own, "11 12"), (11, child, "")):
        place = folder / str(process) / "task" / str(process)
        place.mkdir(parents=True, exist_ok=True)
        (place / "children").write_text(children)
        head = f"{process} (a) b) S 1 1 1 0 -1 4194304 100 0 0 0"
        (folder / str(process) / "stat").write_text(f"{head} {ticks} 0 0 0 20 0 1 0 100 0 0\n")
    (folder / "stat").write_text(f"cpu  {user} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n")


def test_what_others_take_is_what_is_busy_without_this_process_and_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "PROC", tmp_path)
    clock = iter((100.0, 102.0, 102.0, 104.0, 104.0))
    monkeypatch.setattr(neighbours.time, "monotonic", lambda: next(clock))
    ticks = os.sysconf("SC_CLK_TCK")
    stat(tmp_path, 0, 0, 0)
    watched = neighbours.Neighbours()
    stat(tmp_path, 4 * ticks, 0, 1 * ticks, 1 * ticks)  # two processors busy for two seconds: half of it is ours
    assert watched.taken() == pytest.approx(1.0)
    stat(tmp_path, 5 * ticks, 3 * ticks, 2 * ticks, 1 * ticks)
    assert watched.taken() == pytest.approx(0.0)
    (tmp_path / "stat").unlink()
    assert neighbours.Neighbours().taken() == 0.0


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="no such system")
def test_a_busy_program_is_seen() -> None:
    """A real one, of which this process is not the parent: it is left by a process in between."""
    script = "import os, sys\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\nos.close(1)\nwhile True: pass"
    started = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    try:
        watched = neighbours.Neighbours()
        monotonic = neighbours.time.monotonic()
        while neighbours.time.monotonic() - monotonic < 1:
            pass  # our own work is not others'
        assert watched.taken() > 0.3
    finally:
        os.kill(int(started.stdout), 9)


class Around:
    """Neighbours that take what a test says."""

    def __init__(self, *taken: float) -> None:
        self.rest = list(taken)

    def taken(self) -> float:
        return self.rest.pop(0)


def test_who_shares_the_processors_is_told_once_what_fewer_threads_would_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "cores", lambda: 4)
    said: list[str] = []
    notice = neighbours.Notice(4, said.append, lambda threads: 100.0 / threads, Around(0.1, 0.4, 2.1, 3.0))  # type: ignore[arg-type]
    for _ in range(5):
        notice()
    assert len(said) == 1 and "take about 2.1 of 4 processors" in said[0] and "25 images/s now, 50 with --threads 2" in said[0]
    alone = neighbours.Notice(1, said.append, lambda threads: 1.0, Around())  # type: ignore[arg-type]
    alone()
    few = neighbours.Notice(2, said.append, lambda threads: 1.0, Around(2.0))  # type: ignore[arg-type]
    few()
    assert len(said) == 1


def test_being_told_in_the_middle_changes_no_bit(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_seg", "--threads", 2)
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    monkeypatch.setattr(neighbours.Neighbours, "taken", lambda self: 1.9)
    monkeypatch.setattr(neighbours, "cores", lambda: 2)
    monkeypatch.setattr(neighbours.Notice, "said", property(lambda self: False, lambda self, value: None), raising=False)
    monkeypatch.setattr(probe, "SECONDS", 0.0)
    done = tiny(*asked, "--out", tmp_path / "again")
    assert done.out.count("other programs take about 1.9 of 2 processors") > 2, done.out
    (other,) = record.read(tmp_path / "again")
    assert (other.weights, other.predictions, other.pretrain.weights) == (one.weights, one.predictions, one.pretrain.weights)


def test_a_probe_leaves_threads_and_chance_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert probe.images_per_second("unet:depth=3,width=4", 16, threads=2) > 0
    assert probe.images_per_second("unet:depth=3,width=4", 16, precision="bf16") > 0
    assert torch.get_num_threads() == 1 and torch.equal(torch.rand(3), expected)
