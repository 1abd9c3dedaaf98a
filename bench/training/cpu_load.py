"""Other programs on the same processors: how much they take, and what fewer threads would bring beside them.

A training step ends when the last of its threads does, so one busy neighbour holds up all of them. The number of threads is never
chosen by the load, since it decides how sums are rounded and so belongs to a row; the user is told, once.
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
"""Processors that others must take, and a command lack, before it says so."""
FIRST, NEXT = 0.2, 5.0
"""Seconds that are watched at least before the first look, and between looks: the kernel counts in hundredths."""


def cores() -> int:
    """Return the processors that this process can use: those that it may run on, and what a container's quota leaves of them."""
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
    """Yield the folder of each control group that this process is in, the innermost first, in either version of them."""
    for line in read(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            folder = (GROUPS / controller if controllers else GROUPS) / path.lstrip("/")
            yield from (place for place in (folder, *folder.parents) if place == GROUPS or GROUPS in place.parents)


def read(path: Path) -> str:
    """Return what the kernel says in a file; nothing where there is no such file."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@dataclass
class Neighbours:
    """Watches what others take of the processors that this process may run on, from when it is made."""

    since: tuple[float, float, float] | None = field(default_factory=lambda: _taken())

    def taken(self, least: float = FIRST) -> float | None:
        """Return how many processors others took on average since the last call.

        None while less than `least` seconds have passed, and where the system does not tell.
        """
        now = _taken()
        if self.since is None or now is None or now[0] - self.since[0] < least:
            return None
        before, self.since = self.since, now
        seconds, busy, own = (later - then for later, then in zip(now, before, strict=True))
        return max(0.0, busy - own) / seconds


@dataclass
class Notice:
    """Tells once, when a command begins or later, that it shares its processors, and what other numbers of threads would bring.

    `speed` measures a step's images/s on so many threads.
    """

    threads: int
    echo: Callable[[str], object]
    speed: Callable[[int], float]
    neighbours: Neighbours = field(default_factory=Neighbours)
    wait: float = FIRST
    said: bool = False

    def __call__(self) -> None:
        """Look around; nothing happens on one thread, soon after the last look, and after it was said."""
        if self.said or self.threads == 1:
            return
        taken, there = self.neighbours.taken(self.wait), cores()
        self.wait = NEXT
        if taken is None or taken < CROWDED or self.threads <= there - taken + CROWDED:
            return
        self.said = True
        fewer = max(1, min(self.threads - 1, round(there - taken)))
        text = f"other programs take about {taken:.1f} of {there} processors, and a step waits for the last of its threads"
        with contextlib.suppress(RuntimeError, MemoryError):  # no room to time a step beside what is trained
            now, then = self.speed(self.threads), self.speed(fewer)
            text += f": {now:.3g} images/s on {self.threads} now, {then:.3g} with --threads {fewer} (whose rows have other bits)"
        self.echo(text)


def _taken() -> tuple[float, float, float] | None:
    """Return the time, and the seconds that our processors and this process with its children were busy; None if unknown."""
    ours = {f"cpu{number}" for number in allowed()}
    lines = [line.split() for line in read(PROC / "stat").splitlines() if line.partition(" ")[0] in ours]
    try:
        ticks = os.sysconf("SC_CLK_TCK")
        busy = sum(sum(map(int, (*fields[1:4], *fields[6:9]))) for fields in lines)  # without idle and waiting for disks
        return (time.monotonic(), busy / ticks, _own("self") / ticks) if lines else None
    except (OSError, ValueError):
        return None


def _own(process: str) -> int:
    """Return the ticks of a process, its ended children, and those that live; 0 for one that is no more."""
    number = str((PROC / "self").readlink()) if process == "self" else process
    fields = read(PROC / number / "stat").rpartition(")")[2].split()
    children = read(PROC / number / "task" / number / "children").split()  # not every kernel tells
    return sum(map(int, fields[11:15])) + sum(map(_own, children))
