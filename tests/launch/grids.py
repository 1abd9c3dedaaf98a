"""Small grids for launches: commands in processes of their own, and tables compared but for time, cost and machine."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import QUICK, TINY

COSTS = {"seconds", "points_per_hour", "peak_memory", "finetune_seconds", "pretrain_seconds", "tune_seconds", "joules"}
"""The columns of the tables that tell of time and cost."""
FEW = ("--set", "recipe.epochs=1", "--set", "recipe.images=16", "--set", "recipe.evaluation_images=8", "--epochs", "2")


def words(drawn: dict[str, Path], out: Path, *more: object) -> list[str]:
    """Return the words of `bench run` on the drawn data, with a tiny trunk and few epochs."""
    data = ("--data", drawn["demo"], "--pretrain-data", drawn["demo_unlabelled"], "--out", out)
    return [str(word) for word in ("run", *TINY, *QUICK, *FEW, *data, *more)]


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `bench` as a process; what it prints goes into a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with log.open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *arguments], stdout=printed, stderr=subprocess.STDOUT, env=environment
        )


def until(happened: Callable[[], Any], process: subprocess.Popen[bytes], seconds: float = 120) -> Any:
    """Wait until something happened and return it; AssertionError when the process ends, or time is up, before."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert process.poll() is None and time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return found


def launch_of(out: Path) -> dict[str, Any]:
    """Return the newest record of a launch in an output folder; empty where there is none."""
    found = sorted(out.glob("launches/*/launch.json"))
    return json.loads(found[-1].read_bytes()) if found else {}


def pid_of(out: Path, number: int) -> int:
    """Return the process id of a local worker; 0 before it has one."""
    return int(launch_of(out).get("facts", {}).get("processes", {}).get(str(number), {}).get("pid", 0))


def child_of(process: int) -> int:
    """Return the process id of the one child that a process has; 0 before it has one."""
    try:
        return int(Path(f"/proc/{process}/task/{process}/children").read_text() or 0)
    except OSError:
        return 0


def text_of(out: Path, number: int) -> str:
    """Return what a worker printed."""
    return "".join(path.read_text(errors="replace") for path in sorted(out.glob(f"launches/*/worker-{number}.log")))


def tables(out: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of the CSV files that `bench report` wrote, without the columns of time and cost."""
    found = {}
    for path in sorted(out.glob("*.csv")):
        with path.open(newline="") as file:
            found[path.name] = [{name: cell for name, cell in row.items() if name not in COSTS} for row in csv.DictReader(file)]
    assert {"leaderboard.csv", "per_run.csv"} <= set(found)
    return found
