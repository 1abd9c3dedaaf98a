"""A command's whole grid: every job in turn, tuned when asked, failures counted, one session for all."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.cli.screen import Screen
from bench.errors import TRACEBACK, BenchError, Interrupted, explained
from bench.experiment.finetuning import find, is_busy, run
from bench.experiment.pretraining import pretrain
from bench.experiment.resolve import Grid, Request, resolve
from bench.experiment.session import Session, commit
from bench.experiment.tuning import PRETEXT, Search, find_tuning, study_of, tune, tuned
from bench.job import Job
from bench.record import Record, Tuning
from bench.storage.locks import Busy
from bench.training import cpu_load, loggers, machine
from bench.training.feature_cache import Cache
from bench.training.throughput import images_per_second

SOME_FAILED = 5
"""The exit code of a command some of whose runs failed."""


@dataclass(frozen=True)
class Options:
    """How a command computes; none of it changes what a row means."""

    device: str = "auto"
    threads: int | None = None
    workers: int | None = None
    checkpoint_seconds: float = 30.0
    precision: str = "auto"
    compiled: bool = False
    log: tuple[str, ...] = ()


def open_session(request: Request, options: Options, out: Path, screen: Screen) -> Session:
    """Resolve the request and put it on a session; the machine is made first, since it is the quicker to refuse."""
    machine.check_device(options.device)
    loggers.check(options.log)
    grid = resolve(request, screen.echo)
    for note in grid.notes:
        screen.echo(note)
    return make_session(grid, options, out, screen)


def make_session(grid: Grid, options: Options, out: Path, screen: Screen) -> Session:
    """Make the machine and the session for a grid."""
    commit()
    around = cpu_load.Neighbours()
    size, trunk = max((max(job.size, job.pretrain.size), job.pretrain.trunk) for job in grid.jobs)
    made = machine.make_machine(
        options.device,
        options.threads,
        options.workers,
        options.checkpoint_seconds,
        options.precision,
        options.compiled,
        trunk,
        size,
    )
    if made.device.type == "cpu":

        def speed(threads: int) -> float:
            return images_per_second(trunk, size, threads, made.precision)

        made = replace(made, notice=cpu_load.Notice(made.describe()["threads"], screen.echo, speed, around))
        made.notice()

    def packing(done: int, total: int) -> None:
        made.stop.check()
        screen.packing(done, total)

    return Session(out, made, grid, screen.echo, screen, packing, Cache(made, out / "work"), options.log)


def run_grid(session: Session, screen: Screen, search: Search | None = None) -> list[Record]:
    """Run every job, with tuned rates when there is a search, and return the records.

    What another process is making is left for last, so that several processes share a grid. BenchError with exit code 5 tells
    which jobs failed.
    """
    jobs = session.grid.jobs
    budget = f", {search.trials} trials each" if search else ""
    runs = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
    screen.echo(f"{runs} on {session.grid.data.title}, {session.machine}{budget}")

    made: list[Record] = []

    def searched(job: Job, search: Search, wait: bool) -> tuple[Job, Tuning]:
        """Tune a job; when other processes are at it, its trunk is trained here meanwhile, and Busy raised."""
        try:
            study = study_of(job, search, jobs)
            if not wait and find_tuning(study, search, session.out) is None and is_busy(study.cell, session.out):
                raise Busy
            return tuned(job, search, session, wait)
        except Busy:
            if PRETEXT not in search.space:
                pretrain(job.pretrain, session, wait=False)
            raise

    def one(job: Job, place: str, wait: bool) -> None:
        if not wait and is_busy(job, session.out):
            raise Busy
        chosen, tuning = searched(job, search, wait) if search else (job, None)
        if not wait and is_busy(chosen, session.out):
            raise Busy
        done = ": finished before" if find(chosen, session.out) is not None else ""
        screen.echo(f"{place} {chosen.id} ({about(chosen)}){done}")
        record = run(chosen, session, tuning, wait)
        screen.echo("  " + ", ".join(f"{name} {score(record.metrics[name])}" for name in record.metric_ids))
        made.append(record)

    _each(session, screen, jobs, one)
    return made


def tune_grid(session: Session, screen: Screen, search: Search) -> list[Tuning]:
    """Search every cell of the grid and return the searches; nothing is tested."""
    studies = {study.id: study for study in (study_of(job, search, session.grid.jobs) for job in session.grid.jobs)}
    found: list[Tuning] = []
    cells = [study.cell for study in studies.values()]
    by_cell = {study.cell.id: study for study in studies.values()}

    def one(cell: Job, place: str, wait: bool) -> None:
        if not wait and is_busy(cell, session.out):
            raise Busy
        study = by_cell[cell.id]
        screen.echo(f"{place} {study.id} ({about(cell)}): {search.trials} trials")
        tuning = tune(study, search, session, wait)
        rates = ", ".join(f"{name} {rate:.3g}" for name, rate in tuning.best.items())
        screen.echo(f"  best {tuning.metric} {tuning.best_value:.4f} on val with {rates}")
        found.append(tuning)

    _each(session, screen, cells, one)
    return found


def about(job: Job) -> str:
    """Say what the id does not: seed, schedule, and what is unusual."""
    parts = [f"seed {job.seed}", job.schedule]
    if job.transfer != "all":
        parts.append(f"{job.transfer} only")
    if job.labels != 1:
        parts.append(f"{job.labels:.3g} of the labels")
    if job.rates:
        parts.append("rates " + " ".join(f"{rate:.3g}" for rate in job.rates))
    return ", ".join(parts)


def score(value: float | None) -> str:
    """Write a metric's value."""
    return "undefined" if value is None else f"{value:.4f}"


def _each(session: Session, screen: Screen, jobs: Sequence[Job], one: Callable[[Job, str, bool], None]) -> None:
    """Call `one` for each job with its place in the grid, and whether to wait for another process that is at it."""
    failed: list[str] = []
    waiting = deque(enumerate(jobs, start=1))
    passed = 0  # jobs since the last that could be done
    with machine.stoppable(session.machine.stop):
        while waiting:
            number, job = waiting.popleft()
            wait = passed > len(waiting)
            try:
                one(job, f"[{number}/{len(jobs)}]", wait)
                passed = 0
                continue
            except Busy:
                waiting.append((number, job))
                passed += 1
                continue
            except Interrupted:
                raise
            except Exception as error:
                if len(jobs) == 1 or os.environ.get(TRACEBACK):
                    raise
                told = str(explained(error))
            passed = 0
            failed.append(f"{job.pretrain.pretext} on {job.downstream} ({about(job)}): {told}")
            screen.echo(f"  failed: {told}")
            machine.give_memory_back()  # after the except block, which holds on to the error, its frames and what they computed
    if failed:
        summary = BenchError(f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}")
        summary.exit_code = SOME_FAILED
        raise summary
