"""What every job of a command shares: configuration, machine, data, output folder, screen and cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from bench.config import RunConfig
from bench.data.dataset import Dataset
from bench.experiment import leaks
from bench.experiment.remaining import Remaining
from bench.experiment.resolve import DRAWN, PHOTOGRAPHS, Grid, resolve
from bench.training import cpu_load, machine, trackers
from bench.training.feature_cache import Cache
from bench.training.loop import Logger
from bench.training.machine import Machine
from bench.training.throughput import amount_of, images_per_second

LARGE = 2e10
"""The most floating-point operations of a forward pass of which a few are timed while the user waits."""


class Screen(Logger, Protocol):
    """The interface that shows the user a command's progress."""

    left: Callable[[float], float]
    """The seconds that the command still takes, given those of the present stage; it is set once they are known."""

    def echo(self, text: str) -> None:
        """Print a line."""

    def packing(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are packed."""

    def doing(self, what: str) -> None:
        """Note what is being done now, where no step and no image tells it."""


@dataclass(frozen=True)
class Session:
    """What every job of a command shares: what is run, where results go, the machine, the jobs with their data, the screen."""

    config: RunConfig
    out: Path
    machine: Machine
    grid: Grid
    screen: Screen
    cache: Cache
    remaining: Remaining = field(default_factory=Remaining)
    logged: set[str] = field(default_factory=set)
    """The tools of --log that have worked since the command began."""
    preregistration: str = ""
    """The SHA-256 of the preregistration of the study that the runs belong to."""
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv[1:]))

    def echo(self, text: str) -> None:
        """Print a line."""
        self.screen.echo(text)

    def doing(self, what: str) -> None:
        """Note what is being done now, where no step and no image tells it."""
        self.screen.doing(what)

    def packing(self, done: int, total: int) -> None:
        """Show that `done` of `total` images are packed; Interrupted after a signal."""
        self.machine.stop.check()
        self.screen.packing(done, total)


def open_session(
    config: RunConfig, out: Path, screen: Screen, planning: bool = False, command: tuple[str, ...] | None = None
) -> Session:
    """Return a session for the jobs of a configuration; UsageError first of all when the device or a logger is not available.

    A session for `planning` times nothing.
    """
    machine.check_device(config.device)
    trackers.check(config.log)
    grid = resolve(config, screen.echo)
    for note in grid.notes:
        screen.echo(note)
    if config.leaks == "refuse":
        leaks.check(grid, True, screen.echo)
    session = make_session(config, grid, out, screen, planning)
    return session if command is None else replace(session, command=command)


def make_session(config: RunConfig, grid: Grid, out: Path, screen: Screen, planning: bool = False) -> Session:
    """Return a session for a grid, on the machine that the configuration asks for."""
    commit()
    around = cpu_load.Neighbours()
    size, trunk = max({(max(job.size, job.pretrain.size), job.pretrain.trunk) for job in grid.jobs})
    made = machine.make_machine(config, trunk, size, timed=not planning)
    if made.device.type == "cpu":

        def speed(threads: int) -> float:
            if planning or amount_of(trunk, size)[0] > LARGE:
                raise RuntimeError("timing a step would take long")
            return images_per_second(trunk, size, threads, made.precision)

        made = replace(made, notice=cpu_load.Notice(made.describe()["threads"], screen.echo, speed, around))
        made.notice()
    made = replace(made, say=screen.echo)
    session = Session(config, out, made, grid, screen, Cache(made, out / "work"))
    screen.left = session.remaining.seconds
    return session


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


@dataclass(frozen=True)
class Choice:
    """Something that a session runs with, as a JSON value, and by whom it was chosen; `said` is how the screen says it."""

    name: str
    value: Any
    why: str
    said: str = ""

    @property
    def text(self) -> str:
        """The value as text."""
        return self.said or str(self.value)


def chosen(session: Session) -> list[Choice]:
    """Return what a session runs with, and why."""
    config, grid, made = session.config, session.grid, session.machine
    asked, job = "asked for", grid.jobs[0]
    sizes = sorted({size for job in grid.jobs for size in (job.size, job.pretrain.size)})
    threads, cores = made.describe()["threads"], cpu_load.cores()
    drawn = "the demo data" if grid.protocol == DRAWN else "photographs"
    default = grid.protocol in (DRAWN, PHOTOGRAPHS)
    seen = "a GPU is seen" if made.device.type == "cuda" else "no GPU is seen"
    ours = "the device's" if made.precision_known else "not timed yet: the run takes bf16 where that is faster"
    of_protocol = f"the default for {drawn}" if default else "the tasks' own"
    rows = [
        Choice("protocol", grid.protocol, asked if config.protocol else of_protocol),
        Choice("size", sizes, asked if config.size else "the protocol's", f"{' and '.join(map(str, sizes))} px"),
        Choice("trunk", job.pretrain.trunk, asked if config.trunk else "the protocol's"),
        Choice("device", str(made.device), asked if config.device != "auto" else seen),
        Choice("threads", threads, asked if config.threads else f"{cores} processors can be used"),
        Choice("precision", made.arithmetic, asked if config.precision != "auto" else ours),
        *(_data("data", data, asked if name in config.labelled_data else "the default") for name, data in grid.data.items()),
    ]
    if grid.pretrain_data is not None:
        rows.append(_data("pretraining data", grid.pretrain_data, asked if config.pretrain_data else "the default"))
    return rows


def _data(name: str, data: Dataset, why: str) -> Choice:
    value = {"name": data.name, "images": len(data.images), "fingerprint": data.fingerprint}
    return Choice(name, value, why, f"{data.title}, {len(data.images):,} images")
