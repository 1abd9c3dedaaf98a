"""How far the work in an output folder is: from the plan of its launch, records, locks, failures and the scheduler.

Nothing here loads torch, so that the answer comes at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.errors import BenchError, DataError, UsageError
from bench.experiment import failures
from bench.experiment.remaining import WEIGHT
from bench.launch import planned
from bench.launch.engine import WorkerState
from bench.launch.engines import engine_class
from bench.launch.launch import Launch, all_in, read
from bench.launch.planned import Progress, seconds_left
from bench.storage import locks, seal

SAMPLE = 100
"""The most records from which it is learned how much longer work takes than its plan says."""


@dataclass(frozen=True)
class AtWork:
    """A trunk, search or run that a process works on now: its id, whom the lock names, and for how many seconds."""

    id: str
    kind: str
    by: str
    seconds: float


@dataclass
class Status:
    """The state of an output folder: of its newest launch, if it has one, and of what is worked on now."""

    out: Path
    launch: Launch | None
    workers: list[WorkerState] = field(default_factory=list)
    problem: str = ""
    """Why the scheduler could not be asked."""
    parts: list[Progress] = field(default_factory=list)
    at_work: list[AtWork] = field(default_factory=list)
    factor: float = 1.0
    """How many times as long as planned the finished work took."""
    finished: int = 0
    """The records in the folder, where there is no launch."""
    failed: list[failures.Failure] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many runs (or searches' runs) were planned."""
        return sum(len(part.planned.runs) for part in self.parts)

    @property
    def left(self) -> tuple[float, float]:
        """The seconds of work that is left, and until it is finished by the workers that have not ended."""
        alive = sum(worker.state != "ended" for worker in self.workers) or len(self.workers)
        return seconds_left(self.parts, alive, self.factor, {one.id: one.seconds for one in self.at_work})


def of(out: Path) -> Status:
    """Return the status of an output folder; DataError where the record of a launch cannot be read."""
    launches = all_in(out)
    launch = launches[-1] if launches else None
    found = Status(out, launch)
    if launch is not None:
        try:
            found.workers = engine_class(launch.launcher).states(launch)
        except BenchError as error:
            found.problem = str(error)
        found.parts = [Progress(part, out, launch.id) for part in planned.read(launch.folder)]
        for part in found.parts:
            part.look()
        found.factor = _factor(found.parts)
        known = {failed.id: failed for part in found.parts for failed in part.failed.values()}
        found.failed = list(known.values())
    else:
        found.finished = sum(1 for _ in (out / "runs").glob("[!.]*/record.json"))
        names = sorted(path.stem for path in (out / "failures").glob("[!.]*.json"))
        found.failed = [one for one in (failures.find(name, out) for name in names) if one is not None]
    found.at_work = list(_at_work(out, found.parts))
    return found


def is_at_work(launch: Launch) -> bool:
    """Tell whether a launch has workers that run or wait, or a command that watches over them; True where nobody can tell."""
    if any(locks.is_held(path) for path in launch.folder.glob("*.lock")):
        return True
    try:
        return any(one.state != "ended" for one in engine_class(launch.launcher).states(launch))
    except BenchError:
        return True


def at_work(out: Path) -> list[Launch]:
    """Return the launches of an output folder that are at work, without those whose end is on record or that cannot be read."""
    found = []
    for path in sorted((out / "launches").glob("[!.]*/launch.json")):
        with contextlib.suppress(DataError):
            found.append(read(path.parent))
    return [launch for launch in found if not launch.measured and is_at_work(launch)]


def data(status: Status) -> dict[str, Any]:
    """Return a status as JSON values: the launch and its workers, counts of runs, what is at work, what failed, and the end."""
    work, wall = status.left if status.parts else (0.0, 0.0)
    launch, done = status.launch, sum(len(part.finished) for part in status.parts)
    broken = sum(len(part.failed) for part in status.parts)
    busy = {one.id for one in status.at_work}
    runs = [(part, run) for part in status.parts for run in part.left]
    begun = sum((part.id_of(run) or run.search) in busy for part, run in runs)
    until = datetime.now(UTC) + timedelta(seconds=wall)
    return {
        "out": str(status.out),
        "launch": None if launch is None else {"id": launch.id, "launcher": launch.launcher, "created": launch.created},
        "workers": [
            {"number": one.number, "state": one.state, "code": one.code, "where": one.where, "log": str(launch.log(one.number))}
            for one in status.workers
            if launch is not None
        ],
        "problem": status.problem,
        "total": status.total if launch is not None else None,
        "finished": done if launch is not None else status.finished,
        "begun": begun,
        "waiting": len(runs) - begun,
        "failed": broken if launch is not None else len(status.failed),
        "at_work": [{"id": one.id, "kind": one.kind, "by": one.by, "seconds": round(one.seconds)} for one in status.at_work],
        "failures": [one.model_dump(mode="json") for one in status.failed],
        "seconds_of_work_left": round(work, 1),
        "seconds_left": round(wall, 1),
        "until": until.isoformat(timespec="seconds") if runs else None,
        "planned_to_measured": round(status.factor, 3),
    }


def _at_work(out: Path, parts: Sequence[Progress]) -> Iterator[AtWork]:
    """Yield what is worked on now; a lock file that names nobody is not looked at, nor are finished searches."""
    now, trunks = time.time(), {run.trunk for part in parts for run in part.planned.runs}
    for path in sorted((out / "locks").glob("[!.]*.lock")):
        with contextlib.suppress(OSError):
            facts = path.stat()
            by = locks.held_by(path) if facts.st_size else ""
            if by:
                yield AtWork(path.stem, "trunk" if path.stem in trunks else "run", by, now - facts.st_mtime)
    searched = {name for part in parts for name in part.rates}
    for path in sorted((out / "studies").glob("[!.]*/workers/[!.]*")):
        search = path.parents[1].name
        with contextlib.suppress(OSError):
            since = path.stat().st_mtime
            by = locks.held_by(path) if search not in searched else ""
            if by:
                yield AtWork(search, "search", by, now - since)


def _factor(parts: Sequence[Progress]) -> float:
    """Return how many times as long as planned finished work took, from some of its records."""
    taken = expected = 0.0
    for part in parts:
        seconds, out = part.planned.seconds, part.out
        paths = [(run, out / "runs" / made / "record.json") for run, made in [*part.made.items()][-SAMPLE:]]
        paths += [(name, out / "pretrained" / name / "pretrain.json") for name in [*(part.trunks & seconds.keys())][-SAMPLE:]]
        tuned = [(name, part.planned.searches[name].trials) for name in [*part.rates][-SAMPLE:]]
        paths += [(name, out / "studies" / name / f"tuning-{trials}.json") for name, trials in tuned]
        for name, path in paths:
            if name in seconds:
                with contextlib.suppress(DataError, KeyError, TypeError):
                    taken += seal.load(path, "a record", "-")["cost"]["seconds"]
                    expected += seconds[name]
    return (taken + WEIGHT) / (expected + WEIGHT)


@dataclass(frozen=True)
class Found:
    """What is known of a run, a trunk or a search: its whole id, its state, and the logs of the workers that worked on it."""

    id: str
    state: str
    logs: list[str]


def find(out: Path, wanted: str) -> list[Found]:
    """Return what is known of the runs, trunks and searches whose ids begin with `wanted`; UsageError where there are none."""
    status = of(out)
    known: dict[str, str] = {}
    for folder, state in (("pretrained", "trained"), ("studies", "searched"), ("runs", "finished")):
        known |= {path.name: state for path in (out / folder).glob(f"{wanted}*")}
    runs = [(part.id_of(run), run.id) for part in status.parts for run in part.left]
    left = {final or before: "waits" if final else "waits for its search" for final, before in runs}
    known = {name: state for name, state in left.items() if name.startswith(wanted)} | known
    names = (path.stem for path in (out / "failures").glob("*.json") if path.name.startswith(wanted))
    failed = {name: failure for name in names if (failure := failures.find(name, out)) is not None}
    known |= {name: f"failed: {failure.reason}" for name, failure in failed.items() if known.get(name, "") != "finished"}
    known |= {one.id: f"at work for {one.seconds:.0f} s by {one.by}" for one in status.at_work if one.id.startswith(wanted)}
    if not known:
        raise UsageError(f"nothing in {out} has an id that begins with {wanted!r}; bench list runs and bench status name some.")
    logs = sorted((out / "launches").glob("[!.]*/worker-*.log"))
    found: dict[str, list[str]] = {name: [] for name in known}
    for log in logs:
        text = log.read_text(errors="replace")
        lines = "\n".join(line for line in text.splitlines() if not line.endswith(": finished before")) if wanted in text else ""
        for name in found:
            if name in lines or (name in failed and failed[name].log == str(log)):
                found[name].append(str(log))
    return [Found(name, state, found[name]) for name, state in sorted(known.items())]
