"""How long work takes when several workers share it: each free worker takes the piece with the longest way still before it."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A piece of work: its seconds, and the names of the pieces that must be finished before."""

    seconds: float
    after: Sequence[str] = ()


def wall_time(tasks: Mapping[str, Task], workers: int) -> float:
    """Return the seconds until all tasks are finished by some workers, the task with the longest way before it first.

    A name in `after` that is no task is finished already; a task comes after those that it needs.

    >>> tasks = {"a": Task(2.0), "b": Task(3.0, ["a"]), "c": Task(4.0)}
    >>> wall_time(tasks, 1), wall_time(tasks, 2)
    (9.0, 5.0)
    """
    then: dict[str, list[str]] = {name: [] for name in tasks}
    waits = dict.fromkeys(tasks, 0)
    for name, task in tasks.items():
        for before in {*task.after} & tasks.keys():
            then[before].append(name)
            waits[name] += 1
    way: dict[str, float] = {}
    for name in reversed([*tasks]):
        way[name] = tasks[name].seconds + max((way[one] for one in then[name]), default=0.0)
    ready = [(-way[name], name) for name in tasks if not waits[name]]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    clock = 0.0
    while ready or running:
        while ready and len(running) < workers:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (clock + tasks[name].seconds, name))
        clock, ended = heapq.heappop(running)
        for name in then[ended]:
            waits[name] -= 1
            if not waits[name]:
                heapq.heappush(ready, (-way[name], name))
    return clock
