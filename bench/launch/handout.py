"""Runs handed out by the command that launches, where a file system's locks do not serve: each worker gets a list of its own.

Jobs that need the same trunk or the same search go to the same worker. The groups that take longest are dealt out first, each to
the worker with the least to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.launch import planned, sharing
from bench.launch.launch import Launch
from bench.storage import files, locks


def reason(launch: Launch) -> str:
    """Return why the runs of a launch must be handed out: locks do not work here, or a worker found so; "" where they serve."""
    for folder in (launch.folder, files.home()):
        fault = locks.fault(files.make_folder(folder))
        if fault:
            return f"locks do not work in {folder} ({fault})"
    return sharing.found(launch.folder)


def hand_out(launch: Launch) -> list[int]:
    """Divide the planned runs of a launch among its workers, write each worker's list, and return how many runs each has."""
    parts = planned.read(launch.folder)
    needs = {run.id: [one for one in (run.trunk, run.search, run.id) if one] for part in parts for run in part.runs}
    seconds = {name: time for part in parts for name, time in part.seconds.items()}
    dealt = divide(groups(needs), needs, seconds, launch.workers)
    for number, jobs in enumerate(dealt):
        files.publish_json(launch.handed(number), {"jobs": sorted(jobs)})
    return [len(jobs) for jobs in dealt]


def groups(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the jobs in groups, such that jobs of two groups need nothing in common.

    >>> groups({"a": ["trunk 1", "a"], "b": ["trunk 2", "b"], "c": ["trunk 1", "c"]})
    [['a', 'c'], ['b']]
    """
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = name = above[above[name]]
        return name

    for pieces in needs.values():
        for piece in pieces:
            above[top(piece)] = top(pieces[0])
    found: dict[str, list[str]] = {}
    for job, pieces in needs.items():
        found.setdefault(top(pieces[0]), []).append(job)
    return list(found.values())


def divide(
    groups: Sequence[Sequence[str]], needs: Mapping[str, Sequence[str]], seconds: Mapping[str, float], workers: int
) -> list[list[str]]:
    """Return the jobs of each worker: the groups, the longest first, each to the worker that has the least to do so far.

    What several jobs of a group need takes its time once.

    >>> divide([["a"], ["b"], ["c"]], {"a": ["a"], "b": ["b"], "c": ["c"]}, {"a": 1, "b": 3, "c": 1}, 2)
    [['b'], ['a', 'c']]
    """
    taken = [
        (sum(seconds.get(piece, 0.0) for piece in {piece for job in group for piece in needs[job]}), group) for group in groups
    ]
    dealt: list[list[str]] = [[] for _ in range(workers)]
    loads = [(0.0, 0)] * workers  # equal seconds are told apart by how many jobs there are
    for time, group in sorted(taken, key=lambda pair: -pair[0]):
        least = loads.index(min(loads))
        dealt[least] += group
        loads[least] = (loads[least][0] + time, loads[least][1] + len(group))
    return dealt
