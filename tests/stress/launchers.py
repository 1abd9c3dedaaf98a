"""`python -m tests.stress.launchers FOLDER [WAY...]`: one grid by one process and by each launcher, also with a worker killed.

The grid has 3 initialisations, 2 tasks, 2 seeds and 4 trials of each search. What every way leaves (records, predictions,
weights, searches and tables) must be equal to what one process leaves, but for time, cost and machine. A way is plain, local,
slurm or ray, and with `-killed` behind it a worker is ended by SIGKILL in the middle. Leaves with 1 when there was a finding.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.data import demo
from tests.conftest import QUICK, TINY
from tests.launch import ray_here, slurm_here
from tests.stress.scenario import Scene, apart
from tests.stress.server import ROOT

GRID = ("--pretext", "random_init,l1_color,rotation", "--downstream", "voc_cls,voc_seg", "--seeds", "2", "--tune", "4")
GRID += ("--pruner", "none", "--epochs", "4")
LAUNCHES = {
    "plain": (),
    "local": ("--launcher", "local", "--devices", "cpu:2"),
    "slurm": ("--launcher", "slurm", "--launch-workers", "2", "--slurm", "partition=gpu,time=30"),
    "ray": ("--launcher", "ray", "--launch-workers", "2"),
}
WAYS = ("plain", *(f"{name}{killed}" for name in ("local", "slurm", "ray") for killed in ("", "-killed")))
PATIENCE = 1200.0


def main() -> int:
    """Go through the ways that are named, or all; return 1 when there was a finding."""
    folder, ways = Path(sys.argv[1]).resolve(), sys.argv[2:] or WAYS
    scene = demo.make(folder / "drawn", 48, 24, 16)
    data = ("--data", str(scene["demo"]), "--pretrain-data", str(scene["demo_unlabelled"]))
    expected, findings = None, 0
    for way in dict.fromkeys(("plain", *ways)):
        name, _, killed = way.partition("-")
        out, home, began = folder / way / "runs", {"PRETEXT_BENCH_HOME": str(folder / way / "home")}, time.monotonic()
        with cluster(name, folder / f"{way}-cluster") as (environment, more):
            words = ("run", *TINY, *QUICK, *GRID, *data, *LAUNCHES[name], *more, "--out", str(out))
            code = run(words, {**environment, **home}, folder / f"{way}.log", out, bool(killed))
        seconds = time.monotonic() - began
        told = [f"exit code {code}"] if code else []
        code = run(("report", "--out", str(out)), home, folder / f"{way}.log", out, False)
        told += [f"bench report: exit code {code}"] if code else []
        found = without_speed(Scene(scene, folder / way / "home", out).facts())
        expected = expected or found
        told += apart(expected, found)
        findings += len(told)
        print(f"{way:<14}{seconds:>6.0f} s {len(found):>5} facts {len(told):>4} findings", flush=True)
        for line in told[:10]:
            print(f"  FINDING {line[:600]}", flush=True)
    return 1 if findings else 0


def without_speed(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts without the columns of points per hour, which follow from the seconds."""

    def keep(row: Any) -> Any:
        return {name: value for name, value in row.items() if "per_hour" not in name} if isinstance(row, dict) else row

    return {name: [keep(row) for row in fact] if isinstance(fact, list) else fact for name, fact in facts.items()}


@contextlib.contextmanager
def cluster(name: str, folder: Path) -> Iterator[tuple[dict[str, str], tuple[str, ...]]]:
    """Start a cluster of two nodes where a launcher needs one; give its environment and more options of the command."""
    if name == "slurm":
        with slurm_here.slurm(folder) as environment:
            yield environment, ()
    elif name == "ray":
        with ray_here.cluster() as nodes:
            yield {}, ("--ray", nodes.address)
    else:
        yield {}, ()


def run(words: tuple[str, ...], environment: Mapping[str, str], log: Path, out: Path, kill: bool) -> int:
    """Run a command of `bench` and return its exit code; with `kill`, kill a worker once a run is finished."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    with log.open("ab") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *words],
            env={**os.environ, **single, **environment, "PYTHONPATH": str(ROOT)},
            stdout=printed, stderr=printed,
        )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if kill and any(out.glob("runs/[!.]*")):
            victim = next(iter(workers(out)), None)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                kill = False
        time.sleep(0.05)
    if process.poll() is None:
        process.terminate()
    code = process.wait(60)
    return -1 if kill else code  # nobody was killed, so nothing was tried


def workers(out: Path) -> list[int]:
    """Return the process ids of the workers of launches into an output folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (place / "environ").read_bytes().split(b"\0")
            of = f"PRETEXT_BENCH_LAUNCH={out / 'launches'}/".encode()
            words: list[Any] = (place / "cmdline").read_bytes().split(b"\0")
            if any(one.startswith(of) for one in variables) and words[1:4] == [b"-m", b"bench", b"run"]:
                found.append(int(place.name))
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
