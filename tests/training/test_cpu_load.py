"""Other programs on the same processors are seen, told of once, and never change what is computed."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import record
from bench.training import cpu_load, openmp, throughput

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
        assert all(f"{name}={value}" in openmp.settings_text() for name, value in left.items())


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


def stat(folder: Path, busy: tuple[int, int], own: int, child: int = 0) -> None:
    """Write what the kernel says of two processors, of this process (its name has a space and a bracket), and of a child."""
    (folder / "self").unlink(missing_ok=True)
    (folder / "self").symlink_to("10")
    for process, ticks, children in ((10, own, "11 12"), (11, child, "")):
        place = folder / str(process) / "task" / str(process)
        place.mkdir(parents=True, exist_ok=True)
        (place / "children").write_text(children)
        head = f"{process} (a) b) S 1 1 1 0 -1 4194304 100 0 0 0"
        (folder / str(process) / "stat").write_text(f"{head} {ticks} 0 0 0 20 0 1 0 100 0 0\n")
    lines = [
        f"cpu  {sum(busy)} 0 0 7 0 0 0 0 0 0",
        *(f"cpu{n} {one} 0 0 7 5 0 0 0 0 0" for n, one in enumerate(busy)),
        "intr 1 2",
    ]
    (folder / "stat").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("allowed", "expected"), [({0, 1}, (1.0, 0.0)), ({0}, (0.5, 0.0)), ({7}, (None, None))])
def test_what_others_take_is_what_is_busy_of_our_processors_without_this_process_and_its_children(
    allowed: set[int], expected: tuple[float | None, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_load, "PROC", tmp_path)
    monkeypatch.setattr(cpu_load, "allowed", lambda: allowed)
    clock = iter((100.0, 100.1, 102.0, 104.0) if 0 in allowed else ())
    monkeypatch.setattr(cpu_load.time, "monotonic", lambda: next(clock))
    ticks = os.sysconf("SC_CLK_TCK")
    stat(tmp_path, (0, 0), 0)
    watched = cpu_load.Neighbours()
    assert watched.taken() is None, "too soon"
    own = ticks if len(allowed) == 2 else 0
    stat(tmp_path, (ticks, 3 * ticks), ticks if own else 0, ticks if own else 0)
    assert watched.taken() == (None if expected[0] is None else pytest.approx(expected[0]))
    stat(tmp_path, (ticks, 4 * ticks), 2 * ticks if own else 0, ticks if own else 0)
    assert watched.taken() == (None if expected[1] is None else pytest.approx(expected[1]))
    (tmp_path / "stat").unlink()
    assert cpu_load.Neighbours().taken() is None


def test_a_containers_quota_is_less_than_its_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_load, "allowed", lambda: set(range(8)))
    monkeypatch.setattr(cpu_load, "control_groups", lambda controller: iter([tmp_path]))
    assert cpu_load.cores() == 8
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert cpu_load.cores() == 2


class Around:
    """Neighbours that take what a test says, and note how long they were to be watched."""

    def __init__(self, *taken: float | None) -> None:
        self.rest, self.least = list(taken), []

    def taken(self, least: float) -> float | None:
        self.least.append(least)
        return self.rest.pop(0)


def test_who_shares_the_processors_is_told_once_what_fewer_threads_would_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_load, "cores", lambda: 4)
    said: list[str] = []
    around = Around(0.1, None, 0.4, 2.1, 3.0)
    notice = cpu_load.Notice(4, said.append, lambda threads: 100.0 / threads, around)  # type: ignore[arg-type]
    for _ in range(5):
        notice()
    assert around.least == [cpu_load.FIRST, *[cpu_load.NEXT] * 3]
    assert (
        len(said) == 1 and "take about 2.1 of 4 processors" in said[0] and "25 images/s on 4 now, 50 with --threads 2" in said[0]
    )
    for threads, taken in ((1, 3.0), (2, 2.0), (9, 0.1)):  # no step waits for another thread, all have room, nobody is there
        cpu_load.Notice(threads, said.append, lambda threads: 1.0, Around(taken))()  # type: ignore[arg-type]
    assert len(said) == 1

    def no_room(threads: int) -> float:
        raise RuntimeError("out of memory")

    cpu_load.Notice(4, said.append, no_room, Around(3.0))()  # type: ignore[arg-type]
    assert len(said) == 2 and said[1].endswith("waits for the last of its threads")


def test_being_told_in_the_middle_changes_no_bit(tiny: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--pretext", "l1_color", "--downstream", "voc_seg", "--threads", 2)
    assert tiny(*asked).code == 0
    (one,) = record.read(tmp_path / "runs")
    monkeypatch.setattr(cpu_load.Neighbours, "taken", lambda self, least=0.0: 1.9)
    monkeypatch.setattr(cpu_load, "cores", lambda: 2)
    monkeypatch.setattr(cpu_load.Notice, "said", property(lambda self: False, lambda self, value: None), raising=False)
    monkeypatch.setattr(throughput, "SECONDS", 0.0)
    done = tiny(*asked, "--out", tmp_path / "again")
    told = "other programs take about 1.9 of 2 processors"
    assert done.out.count(told) > 2 and done.out.index(told) < done.out.index("1 run on"), "when it begins, and later"
    (other,) = record.read(tmp_path / "again")
    assert (other.weights, other.predictions, other.pretrain.weights) == (one.weights, one.predictions, one.pretrain.weights)


def test_a_timing_leaves_threads_and_chance_as_they_were() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert throughput.images_per_second("unet:depth=3,width=4", 16, threads=2) > 0
    assert throughput.images_per_second("unet:depth=3,width=4", 16, precision="bf16") > 0
    assert torch.get_num_threads() == 1 and torch.equal(torch.rand(3), expected)
