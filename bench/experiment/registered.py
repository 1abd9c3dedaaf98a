"""What a preregistration asks before anything is computed: comparisons that can be made, in an output folder of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import metrics
from bench.errors import DataError, UsageError
from bench.experiment.resolve import Grid
from bench.job import Job
from bench.preregistration import SHOWN, Comparison, Preregistration
from bench.storage import files

FILE = "preregistration.sha256"
"""The file in an output folder that names the preregistration under which all work in it began."""
WORK = ("work", "pretrained", "studies", "runs")
"""The folders of an output folder in which work lies."""


def claim(registered: Preregistration, out: Path) -> None:
    """Note in an output folder, before any work, that all of it is made under a preregistration.

    UsageError for a folder that holds work from before, or belongs to another: a checkpoint, a trunk or a search of it would be
    taken over, and nobody could tell.
    """
    path = out / FILE
    if path.is_file():
        known = path.read_text(errors="replace").strip()
        if known != registered.sha256:
            raise UsageError(
                f"{out} holds work under another preregistration, {known[:SHOWN]}; give another --out, since a changed "
                "preregistration begins anew."
            )
        return
    before = next((folder for folder in WORK if any((out / folder).glob("[!.]*"))), "")
    if before:
        raise UsageError(f"{out / before} holds work from before the preregistration; give another --out.")
    files.publish_file(path, registered.sha256 + "\n")


def check(registered: Preregistration, grids: Mapping[str, Grid]) -> None:
    """Raise DataError for a comparison that its parts' jobs cannot answer; one whose parts are not all here is passed over."""
    for one in registered.comparisons:
        if set(one.parts) <= grids.keys():
            problem = _problem(registered, one, [(grids[part], job) for part in one.parts for job in grids[part].jobs])
            if problem:
                raise DataError(f"the preregistration cannot be kept: {one.said}: {problem}.")


def _problem(registered: Preregistration, asked: Comparison, jobs: Sequence[tuple[Grid, Job]]) -> str:
    fits = [(grid, job) for grid, job in jobs if (job.downstream, job.evaluation) == (asked.task, asked.evaluation)]
    if not fits:
        known = sorted({f"{job.downstream}, {job.evaluation}" for _, job in jobs})
        return f"its parts have {'; '.join(known)}"
    if metrics.get(asked.metric).id not in fits[0][1].settings.metrics:
        return f"the metrics are {', '.join(fits[0][1].settings.metrics)}"
    sides = [[job for grid, job in fits if name in _names(grid, job)] for name in (asked.row, asked.against)]
    for name, side in zip((asked.row, asked.against), sides, strict=True):
        rows = {(job.schedule, job.transfer, job.labels, str(job.pretrain.recipe)) for job in side}
        if not side:
            return f"no row is {name}; there are {', '.join(sorted({name for one in fits for name in _names(*one)}))}"
        if len(rows) > 1:
            return f"{name} names {len(rows)} rows; PRETEXT:SCHEDULE tells schedules apart"
        if len({job.seed for job in side}) < 2:
            return "one seed gives no test"
    if {job.id for job in sides[0]} & {job.id for job in sides[1]}:
        return "both sides are the same runs"
    for job in (job for side in sides for job in side):
        problem = registered.foreign(job)
        if problem:
            return problem
    return ""


def _names(grid: Grid, job: Job) -> tuple[str, str]:
    """Return the names by which a comparison may name a job's row."""
    label = grid.label_of(job.pretrain)
    return label, f"{label}:{job.schedule if job.probe is None else 'probed'}"
