"""What every job of a command shares: configuration, machine, data, output folder, screen and cache."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from bench.config import RunConfig
from bench.experiment import leaks
from bench.experiment.resolve import Grid, resolve
from bench.training import cpu_load, loggers, machine
from bench.training.feature_cache import Cache
from bench.training.loop import Logger
from bench.training.machine import Machine
from bench.training.throughput import images_per_second


class Screen(Logger, Protocol):
    """The interface that shows the user a command's progress."""

    def echo(self, text: str) -> None:
        """Print a line."""

    def packing(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are packed."""


@dataclass(frozen=True)
class Session:
    """What every job of a command shares: what is run, where results go, the machine, the jobs with their data, the screen."""

    config: RunConfig
    out: Path
    machine: Machine
    grid: Grid
    screen: Screen
    cache: Cache
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv[1:]))

    def echo(self, text: str) -> None:
        """Print a line."""
        self.screen.echo(text)

    def packing(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are packed; Interrupted after a signal."""
        self.machine.stop.check()
        self.screen.packing(done, total)


def open_session(config: RunConfig, out: Path, screen: Screen) -> Session:
    """Return a session for the jobs of a configuration; UsageError first of all when the device or a logger is not available."""
    machine.check_device(config.device)
    loggers.check(config.log)
    grid = resolve(config, screen.echo)
    for note in grid.notes:
        screen.echo(note)
    if config.leaks == "refuse":
        leaks.check(grid, True, screen.echo)
    return make_session(config, grid, out, screen)


def make_session(config: RunConfig, grid: Grid, out: Path, screen: Screen) -> Session:
    """Return a session for a grid, on the machine that the configuration asks for."""
    commit()
    around = cpu_load.Neighbours()
    size, trunk = max((max(job.size, job.pretrain.size), job.pretrain.trunk) for job in grid.jobs)
    made = machine.make_machine(config, trunk, size)
    if made.device.type == "cpu":

        def speed(threads: int) -> float:
            return images_per_second(trunk, size, threads, made.precision)

        made = replace(made, notice=cpu_load.Notice(made.describe()["threads"], screen.echo, speed, around))
        made.notice()
    return Session(config, out, made, grid, screen, Cache(made, out / "work"))


@cache
def commit() -> dict[str, Any]:
    """Return the program's `commit`, and in `dirty` whether files outside results/studies differ from it; both None if unknown.

    Both are read once, before a process begins its work (`make_session`): the files may change later, but not the loaded code.
    """
    place = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", place, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # fails when git would tell of another project
        changed = git("status", "--porcelain", "--", ":/", ":(top,exclude)results/studies")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
