"""What a launch costs, before and after: device-hours, wall time, bytes on the disk, and what is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench import registry
from bench.errors import BenchError
from bench.experiment.session import Session
from bench.job import Job, PretrainJob
from bench.launch.planned import Planned, Progress, seconds_left
from bench.record import paths, read_one, read_pretrained, read_tuning, record_path
from bench.storage.disk import amount, size
from bench.text import duration, hours
from bench.training.throughput import amount_of

RECORD, EXAMPLES = 20_000, 50_000
"""Bytes of a record with its splits and of a run's example images, about, where the output folder has no run of the task."""
SCORE, PIXEL = 8, 0.1
"""Bytes of a prediction for a class of an image, and for a pixel once it is compressed, about."""
STATE = 12
"""Bytes of a checkpoint for each weight: the weight, and Adam's two moments."""
LOOKED_AT = 20
"""The most runs of a task in the output folder whose size is looked up."""


@dataclass(frozen=True)
class Cost:
    """The cost of work by some workers: seconds of devices and of wall time, bytes by what they are for, and what is cached."""

    workers: int
    device_seconds: float
    wall_seconds: float
    bytes: dict[str, int]
    cached: dict[str, tuple[int, int]]
    """How many of how many trunks, searches and runs are there already."""

    def data(self) -> dict[str, Any]:
        """Return the cost as JSON values."""
        return {
            "workers": self.workers,
            "device_hours": round(self.device_seconds / 3600, 6),
            "wall_seconds": round(self.wall_seconds, 3),
            "bytes": self.bytes,
            "cached": {name: {"there": there, "of": of} for name, (there, of) in self.cached.items()},
        }

    def lines(self) -> list[str]:
        """Return the cost in sentences."""
        each = ", ".join(f"{name} {amount(taken)}" for name, taken in self.bytes.items() if taken)
        there = ", ".join(f"{there:,} of {of:,} {name}" for name, (there, of) in self.cached.items() if of)
        many = "1 worker" if self.workers == 1 else f"{self.workers:,} workers"
        return [
            f"with {many}: {hours(self.device_seconds)}, done after about {duration(self.wall_seconds)}"
            if self.device_seconds
            else f"with {many}: nothing is left to do",
            f"on the disk: about {each}" if each else "on the disk: nothing more",
            f"there already: {there}",
        ]

    def spent(self) -> list[str]:
        """Return a cost that was measured in sentences."""
        if not self.device_seconds:
            return []
        busy = self.device_seconds / max(self.wall_seconds * self.workers, 1e-9)
        each = ", ".join(f"{name} {amount(taken)}" for name, taken in self.bytes.items() if taken)
        return [f"measured: {hours(self.device_seconds)} of training, {busy:.0%} of the workers' time; on the disk {each}"]


def planned_cost(parts: Sequence[tuple[Session, Planned]], workers: int) -> Cost:
    """Return what is to be expected of the work of some sessions that is left."""
    progress = [Progress(planned, session.out, "") for session, planned in parts]
    for part in progress:
        part.look()
    work, wall = seconds_left(progress, workers)
    found = {"trunks": 0, "runs": 0, "checkpoints while at work": 0}
    largest, known, trunks = 0, set[str](), dict[str, int]()
    for (session, planned), part in zip(parts, progress, strict=True):
        of_run, jobs = _run_bytes(session), {job.id: job for job in session.grid.jobs}
        for run in part.left:
            job = jobs[run.id]
            kind = f"{session.grid.label_of(job.pretrain)} {job.pretrain.trunk}"
            if kind not in trunks:
                trunks[kind] = _trunk_bytes(job.pretrain, session.out)
                largest = max(largest, amount_of(job.pretrain.trunk, job.pretrain.size)[1])
            if run.trunk not in known | part.trunks and run.trunk in planned.seconds:
                known.add(run.trunk)
                found["trunks"] += trunks[kind]
            found["runs"] += of_run(job)
    found["checkpoints while at work"] = STATE * largest * min(workers, sum(len(part.left) for part in progress))
    return Cost(workers, work, wall, found, cached(progress))


def cached(parts: Sequence[Progress]) -> dict[str, tuple[int, int]]:
    """Return how many of how many trunks, searches and runs are there."""
    trunks = {run.trunk: run.trunk in part.trunks for part in parts for run in part.planned.runs}
    searches = {name: name in part.rates for part in parts for name in part.planned.searches}
    runs = [run.id in part.made for part in parts for run in part.planned.runs]
    return {
        name: (sum(one), len(one))
        for name, one in (("trunks", [*trunks.values()]), ("searches", [*searches.values()]), ("runs", runs))
    }


def _trunk_bytes(job: PretrainJob, out: Path) -> int:
    """Return the bytes of a pretrained trunk: of one of the same task that is there, or else of the trunk's weights alone."""
    there = next((path.parent for path in (out / "pretrained").glob(f"{job.id.rpartition('-')[0]}-*/pretrain.json")), None)
    return size(there) if there is not None else 4 * amount_of(job.trunk, job.size)[1]


def _run_bytes(session: Session) -> Callable[[Job], int]:
    """Return a function that tells the bytes of a job's run: those of the task's runs that are there, or about what it keeps."""
    folders: dict[str, list[Path]] = {}
    for path in paths(session.out):
        folders.setdefault(path.parent.name.rsplit("-", 2)[1], []).append(path.parent)

    @cache
    def of_task(downstream: str, count: int, classes: int, pixels: int) -> int:
        there = folders.get(downstream, [])[:LOOKED_AT]
        if there:
            return sum(map(size, there)) // len(there)
        return int(RECORD + EXAMPLES + count * (PIXEL * pixels if pixels else SCORE * classes))

    @cache
    def has_masks(downstream: str) -> bool:
        return bool(registry.load("downstreams", downstream).data == "masks")

    def of(job: Job) -> int:
        data = session.grid.data_of(job)
        pixels = job.size**2 if has_masks(job.downstream) else 0
        return of_task(job.downstream, len(data.images), len(data.classes), pixels)

    return of


@dataclass
class Meter:
    """Measures what the workers of a launch have made: everything that was not there when it was made."""

    parts: Sequence[Progress]

    def __post_init__(self) -> None:
        self.before = self._there()

    def cost(self, workers: int, wall: float) -> Cost:
        """Return the seconds that records tell, and the bytes of what was made."""
        new = self._there() - self.before
        return Cost(workers, sum(map(_seconds, new)), wall, _bytes(new), cached(self.parts))

    def _there(self) -> set[Path]:
        found: set[Path] = set()
        for part in self.parts:
            found |= {record_path(part.out, made) for made in part.made.values()}
            needed = {run.trunk for run in part.planned.runs} & part.trunks
            found |= {part.out / "pretrained" / name / "pretrain.json" for name in needed}
            searches = part.planned.searches
            found |= {part.out / "studies" / name / f"tuning-{searches[name].trials}.json" for name in part.rates}
        return found


def _seconds(path: Path) -> float:
    reader: Callable[[Path], Any] = {"record.json": read_one, "pretrain.json": read_pretrained}.get(path.name, read_tuning)
    try:
        return float(reader(path).cost.seconds)
    except BenchError:
        return 0.0


def _bytes(made: Iterable[Path]) -> dict[str, int]:
    found = {"trunks": 0, "searches": 0, "runs": 0}
    kinds = {"record.json": "runs", "pretrain.json": "trunks"}
    for path in made:
        found[kinds.get(path.name, "searches")] += size(path.parent)
    return found
