"""Other programs on the same processors: how much they take, and what fewer threads would bring beside them.

A training step ends when the last of its threads does, so one busy neighbour holds up all of them. The number of threads is never
chosen by the load, since it decides how sums are rounded and so belongs to a row; the user is told, once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
CROWDED = 0.5
"""Processors that a command must lack before it says so."""
SHORTEST = 0.2
"""Seconds that are watched at least: the kernel counts in hundredths."""


def cores() -> int:
    """Return the processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Neighbours:
    """Watches what others take of the processors, from when it is made."""

    since: tuple[float, float, float] | None = field(default_factory=lambda: _taken())

    def taken(self) -> float:
        """Return how many processors others took on average since the last call; 0 where the system does not tell."""
        if self.since is None:
            return 0.0
        time.sleep(max(0.0, SHORTEST - (time.monotonic() - self.since[0])))
        before, self.since = self.since, _taken()
        if self.since is None:
            return 0.0
        seconds, busy, own = (now - then for now, then in zip(self.since, before, strict=True))
        return max(0.0, busy - own) / seconds


@dataclass
class Notice:
    """Tells once, when a command begins or later, that it shares its processors, and what other numbers of threads would bring.

    `speed` measures a step's images/s on so many threads.
    """

    threads: int
    say: Callable[[str], object]
    speed: Callable[[int], float]
    neighbours: Neighbours = field(default_factory=Neighbours)
    said: bool = False

    def __call__(self) -> None:
        """Look around; nothing happens on one thread, and after it was said."""
        if self.said or self.threads == 1:
            return
        taken, there = self.neighbours.taken(), cores()
        if self.threads <= there - taken + CROWDED:
            return
        self.said = True
        fewer = max(1, min(self.threads - 1, round(there - taken)))
        now, then = self.speed(self.threads), self.speed(fewer)
        self.say(
            f"other programs take about {taken:.1f} of {there} processors, and a step waits for the last of its {self.threads} "
            f"threads: {now:.3g} images/s now, {then:.3g} with --threads {fewer} (whose rows have other bits)"
        )


def _taken() -> tuple[float, float, float] | None:
    """Return the time, and the seconds that all processors and this process with its children were busy; None if unknown."""
    try:
        first = (PROC / "stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, *rest = map(int, first[1:9])
        ticks = os.sysconf("SC_CLK_TCK")
        return time.monotonic(), (user + nice + system + sum(rest)) / ticks, _own("self") / ticks
    except (OSError, ValueError):
        return None


def _own(process: str) -> int:
    """Return the ticks of a process, its ended children, and those that live; 0 for one that is no more."""
    number = str((PROC / "self").readlink()) if process == "self" else process
    try:
        fields = (PROC / number / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    try:
        children = (PROC / number / "task" / number / "children").read_text().split()
    except OSError:  # not every kernel tells
        children = []
    return sum(map(int, fields[11:15])) + sum(map(_own, children))
