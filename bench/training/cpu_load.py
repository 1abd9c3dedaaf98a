"""Other programs on the same processors: how much time they take, and how fast training would be with fewer threads.

A training step ends when its last thread ends, so one busy program beside it delays all threads. The load never changes the
number of threads, because that number decides how sums are rounded, and a run is reproduced with the number in its record. The
user is told of the load once.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
CROWDED = 0.5
"""The user is told once other programs take this many processors, and the command has this many fewer processors than threads."""
FIRST, NEXT = 0.2, 5.0
"""The least seconds before the first measurement and between later ones: the kernel counts in hundredths of a second."""


def cores() -> int:
    """Return the number of processors that this process can use: those it may run on, at most its container's quota."""
    found = len(allowed())
    for folder in control_groups("cpu"):
        quota, _, period = read(folder / "cpu.max").partition(" ")
        quota, period = quota or read(folder / "cpu.cfs_quota_us"), period or read(folder / "cpu.cfs_period_us")
        if quota.strip().isdigit() and period.strip().isdigit():
            found = min(found, max(1, int(quota) // int(period)))
    return found


def allowed() -> set[int]:
    """Return the numbers of the processors that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def control_groups(controller: str) -> Iterator[Path]:
    """Yield the folder of each control group (version 1 or 2) that this process is in, the innermost first."""
    for line in read(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            folder = (GROUPS / controller if controllers else GROUPS) / path.lstrip("/")
            yield from (place for place in (folder, *folder.parents) if place == GROUPS or GROUPS in place.parents)


def read(path: Path) -> str:
    """Return the text of one of the kernel's files; "" when it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@dataclass
class Neighbours:
    """Measures how much other programs use the processors that this process may run on, from its creation on."""

    since: tuple[float, float, float] | None = field(default_factory=lambda: _taken())

    def taken(self, least: float = FIRST) -> float | None:
        """Return how many processors other programs took on average since the last measurement, or at first since the creation.

        None, and no new measurement, while less than `least` seconds have passed, and where the system does not tell.
        """
        now = _taken()
        if self.since is None or now is None or now[0] - self.since[0] < least:
            return None
        before, self.since = self.since, now
        seconds, busy, own = (later - then for later, then in zip(now, before, strict=True))
        return max(0.0, busy - own) / seconds


@dataclass
class Notice:
    """Tells the user once that other programs share the processors, and how fast fewer threads would be.

    `speed` measures a training step's images/s for a number of threads.
    """

    threads: int
    echo: Callable[[str], object]
    speed: Callable[[int], float]
    neighbours: Neighbours = field(default_factory=Neighbours)
    wait: float = FIRST
    said: bool = False

    def __call__(self) -> None:
        """Measure the load and tell the user when it slows training.

        Nothing is done with one thread, within `NEXT` seconds of the last measurement, or when the user has been told.
        """
        if self.said or self.threads == 1:
            return
        taken, there = self.neighbours.taken(self.wait), cores()
        self.wait = NEXT
        if taken is None or taken < CROWDED or self.threads <= there - taken + CROWDED:
            return
        self.said = True
        fewer = max(1, min(self.threads - 1, round(there - taken)))
        text = f"other programs take about {taken:.1f} of {there} processors, and a step waits for the last of its threads"
        with contextlib.suppress(RuntimeError, MemoryError):  # there may be no memory to time a step while a network trains
            now, then = self.speed(self.threads), self.speed(fewer)
            text += f": {now:.3g} images/s on {self.threads} now, {then:.3g} with --threads {fewer} (which rounds differently)"
        self.echo(text)


def _taken() -> tuple[float, float, float] | None:
    """Return three numbers of seconds: the time, how long the allowed processors were busy, and how long this process and its
    children used them; None if unknown."""
    ours = {f"cpu{number}" for number in allowed()}
    lines = [line.split() for line in read(PROC / "stat").splitlines() if line.partition(" ")[0] in ours]
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        busy = sum(sum(map(int, (*fields[1:4], *fields[6:9]))) for fields in lines)  # all but idle time and waiting for disks
        return (time.monotonic(), busy / ticks, _own("self") / ticks) if lines else None
    except (OSError, ValueError):
        return None


def _own(process: str) -> int:
    """Return the clock ticks used by a process and by its children, ended or alive; 0 when the process has ended."""
    number = str((PROC / "self").readlink()) if process == "self" else process
    fields = read(PROC / number / "stat").rpartition(")")[2].split()
    children = read(PROC / number / "task" / number / "children").split()  # not every kernel tells
    return sum(map(int, fields[11:15])) + sum(map(_own, children))
