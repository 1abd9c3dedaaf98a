"""The grid of a command: every job is run in turn, with tuned rates when asked for; failed jobs are counted."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from bench.config import PRETEXT
from bench.errors import (
    TRACEBACK,
    BenchError,
    Interrupted,
    LostProcess,
    OutOfMemory,
    SomeFailed,
    StorageError,
    UsageError,
    explained,
)
from bench.experiment import failures, leaks
from bench.experiment.estimate import learn
from bench.experiment.failures import FailedBefore
from bench.experiment.pretraining import find_pretrained, lock_of, pretrain
from bench.experiment.runs import find, is_busy, run
from bench.experiment.search import chosen_by, is_searched, same_search, search_of
from bench.experiment.session import Session
from bench.experiment.tuning import find_tuning, tune
from bench.job import Job
from bench.record import Record, Tuning, record_path
from bench.storage import files, handed, launched, locks
from bench.storage.locks import Busy
from bench.training import machine

MOST_PAUSE = 10.0
"""The most seconds of a pause: a look may have taken long because it trained something."""
PAUSE = 0.5
"""Seconds after which a worker of a launch that finds nothing free looks again."""


def run_grid(session: Session, made: list[Record] | None = None) -> list[Record]:
    """Run every job, with tuned rates when the configuration asks for it; return the records, appended to `made` as they come.

    Jobs that another process is working on are left for last, so that several processes can share a grid. The others go on when a
    job fails, and at the end a SomeFailed names the jobs that failed. The error of a grid's only job is raised
    as it is.
    """
    jobs, trials = _own(session.grid.jobs), session.config.tune
    budget = f", {trials} trials each" if trials else ""
    titles = " and ".join(data.title for data in session.grid.data.values())
    runs = "1 run" if len(jobs) == 1 else f"{len(jobs)} runs"
    session.echo(f"{runs} on {titles}, {session.machine}{budget}")
    if session.config.leaks != "refuse" and not all(_is_finished(job, session) for job in jobs):
        leaks.check(session.grid, False, session.echo)
    made = [] if made is None else made

    def run_job(job: Job, place: str, wait: bool) -> None:
        if not wait and is_busy(job, session.out):
            raise Busy
        session.remaining.begin(_pieces(job, session))
        chosen, tuning = _tuned(job, session, wait) if is_searched(job, session.config) else (job, None)
        if not wait and is_busy(chosen, session.out):
            raise Busy
        trunk_is_new = find_pretrained(chosen.pretrain, session.out) is None
        found = find(chosen, session.out)
        _check_precision(found, session)
        done = ": finished before" if found is not None else ""
        session.echo(f"{place} {chosen.id} ({_named(chosen, session)}{about(chosen)}){done}")
        record = run(chosen, session, tuning, wait)
        session.echo("  " + ", ".join(f"{name} {score(record.metrics[name])}" for name in record.metric_ids))
        made.append(record)
        if trunk_is_new and session.grid.pretrain_data is not None:
            learn(record.pretrain, session.grid.pretrain_data, session.machine)

    _each(session, jobs, "runs", run_job)
    return made


def _tuned(job: Job, session: Session, wait: bool) -> tuple[Job, Tuning]:
    """Return a job with the rates that its search chose, and the search.

    Without `wait`, when other processes are still searching, pretrain the job's trunk, unless its rate is searched, and raise
    Busy.
    """
    search = search_of(job, session.config, session.grid.jobs)
    try:
        finished = find_tuning(search, session.config.tune, session.out)
        if not wait and finished is None and is_busy(search.cell, session.out):
            raise Busy
        tuning = tune(search, session, wait)
        return chosen_by(tuning, job), tuning
    except Busy:
        if PRETEXT not in session.config.space:
            pretrain(job.pretrain, session, wait=False)
        raise


def _is_finished(job: Job, session: Session) -> bool:
    """Tell whether a job's record is there, with the rates that a finished search chose when the configuration asks for one."""
    if is_searched(job, session.config):
        try:
            tuning = find_tuning(search_of(job, session.config, session.grid.jobs), session.config.tune, session.out)
        except BenchError:  # the job will say so when its turn comes
            return False
        if tuning is None:
            return False
        job = chosen_by(tuning, job)
    return record_path(session.out, job.id).is_file()


def _pieces(job: Job, session: Session) -> list[str]:
    """Return the ids of the work that a job needs, as a plan has them: its trunk, its search, and its run."""
    searched = [search_of(job, session.config, session.grid.jobs).id] if is_searched(job, session.config) else []
    return [job.pretrain.id, *searched, job.id]


def tune_grid(session: Session) -> list[Tuning]:
    """Search the learning rates of every cell of the grid and return the searches; test splits are not scored."""
    jobs, config = _own(session.grid.jobs), session.config
    cells: dict[object, Job] = {}
    for job in jobs:
        if is_searched(job, config):
            cells.setdefault(same_search(job, config), job)
    searches = {search.cell.id: search for search in (search_of(job, config, [job]) for job in cells.values())}
    found: list[Tuning] = []

    def tune_cell(cell: Job, place: str, wait: bool) -> None:
        if not wait and is_busy(cell, session.out):
            raise Busy
        search = searches[cell.id]
        session.remaining.begin(_pieces(cell.model_copy(update={"split": "test"}), session))
        session.echo(f"{place} {search.id} ({_named(cell, session)}{about(cell)}): {config.tune} trials")
        tuning = tune(search, session, wait)
        rates = ", ".join(f"{name} {rate:.3g}" for name, rate in tuning.best.items())
        session.echo(f"  best {tuning.metric} {tuning.best_value:.4f} on val with {rates}")
        found.append(tuning)

    _each(session, [search.cell for search in searches.values()], "searches", tune_cell)
    return found


def _own(jobs: Sequence[Job]) -> Sequence[Job]:
    """Return the jobs that this process makes: all, or those that were handed out to it by its launch."""
    listed = handed.jobs()
    return jobs if listed is None else [job for job in jobs if job.id in listed]


def _check_precision(found: Record | None, session: Session) -> None:
    """Raise UsageError for a finished run of fine-tuning in another precision than the one that was asked for."""
    asked = session.config.precision
    if found is not None and found.job.probe is None and asked not in ("auto", found.precision):
        raise UsageError(
            f"{found.id} was computed in {found.precision}, and the precision is no part of a run's id; "
            f"give another --out for {asked}."
        )


def _named(job: Job, session: Session) -> str:
    """Return the label of weights from elsewhere, which an id does not show, before other facts of a job."""
    return f"{session.grid.label_of(job.pretrain)}, " if job.pretrain.weights is not None else ""


def about(job: Job) -> str:
    """Return what an id does not show of a job, as text."""
    return f"seed {job.seed}, {job.about}"


def score(value: float | None) -> str:
    """Return a metric's value as text."""
    return "undefined" if value is None else f"{value:.4f}"


def _each(session: Session, jobs: Sequence[Job], what: str, work: Callable[[Job, str, bool], None]) -> None:
    """Call `work(job, place, wait)` for each job, at a `place` such as [2/6]. Without `wait` it raises Busy for a job that others
    are working on, which is tried again after the others; a worker of a launch never waits for one job alone.

    A job that runs out of memory is tried again once: without what the cache keeps, or, where the memory had run out in an
    earlier job, since libraries that lacked it then may fail in the next job although there is enough (oneDNN does).

    SomeFailed at the end when some of several jobs failed; StorageError at once, since every search needs the same database.
    """
    failed, short = list[str](), set[int]()  # reasons, and the numbers of the jobs that ran out of memory
    waiting = deque(enumerate(jobs, start=1))
    busy_in_a_row = 0  # jobs in a row that were busy; when all waiting ones were, wait for the next
    worker, looked = launched.here(), time.monotonic()  # when the present look at what is free began
    with machine.stoppable(session.machine.stop):
        while waiting:
            number, job = waiting.popleft()
            wait = busy_in_a_row > len(waiting)
            if wait and worker is not None:
                if worker.leaves and _others_suffice([job, *(one for _, one in waiting)], session):
                    break
                _pause(time.monotonic() - looked, session)
                wait, busy_in_a_row = False, 0
            looked = looked if busy_in_a_row else time.monotonic()
            try:
                failures.check(job.id, session.out)
                work(job, f"[{number}/{len(jobs)}]", wait)
                files.remove(failures.path_of(job.id, session.out))
                busy_in_a_row = 0
                session.remaining.end()
                continue
            except Busy:
                waiting.append((number, job))
                busy_in_a_row += 1
                session.remaining.leave()
                continue
            except Exception as error:
                if isinstance(error, Interrupted | LostProcess | StorageError):
                    raise
                kept = again = False
                if isinstance(explained(error), OutOfMemory):
                    kept = session.cache.give_up()
                    again = kept or (bool(short) and number not in short)
                    short.add(number)
                if not again and not isinstance(error, FailedBefore):
                    failures.note(job.id, session.out, error)
                if not again and (len(jobs) == 1 or os.environ.get(TRACEBACK)):
                    raise
                reason = str(explained(error))
            busy_in_a_row = 0
            machine.give_memory_back()  # not in the except block, which keeps the error's frames and their tensors
            if again:
                session.echo("  out of memory; tried again" + " without keeping images and features in memory" * kept)
                waiting.appendleft((number, job))
                session.remaining.leave()
                continue
            session.remaining.end(failed=True)
            failed.append(f"{named_in_full(job, session)}: {reason}")
            session.echo(f"  failed: {reason}")
    if failed:
        raise some_failed(failed, len(jobs), what)


def named_in_full(job: Job, session: Session) -> str:
    """Return what tells a job of a grid from the others, as text: row, task, seed and what an id does not show."""
    return f"{session.grid.label_of(job.pretrain)} on {job.downstream} ({about(job)})"


def some_failed(failed: Sequence[str], count: int, what: str = "runs") -> SomeFailed:
    """Return the error that names the jobs that failed, each with its reason, of `count` jobs."""
    return SomeFailed(f"{len(failed)} of {count} {what} failed: {'; '.join(failed)}")


def _pause(taken: float, session: Session) -> None:
    """Wait before all jobs that are left are looked at again, since any may be free first; the last look has `taken` seconds."""
    until = time.monotonic() + min(MOST_PAUSE, max(PAUSE, 5 * taken))
    while time.monotonic() < until:
        session.machine.stop.check()
        time.sleep(0.1)


def _others_suffice(jobs: Sequence[Job], session: Session) -> bool:
    """Tell whether at least as many other workers are at work as there are jobs left, so that none will be free for this one."""
    places = {lock_of(one, session.out) for job in jobs for one in (job.pretrain, job)}
    searches = {search_of(job, session.config, session.grid.jobs).id for job in jobs if is_searched(job, session.config)}
    places |= {path for search in searches for path in (session.out / "studies" / search / "workers").glob("[!.]*")}
    others = set(filter(None, map(locks.held_by, places)))
    if len(others) < len(jobs):
        return False
    session.echo(f"the last {len(jobs)} of {len(session.grid.jobs)} are made by other workers; this one ends")
    return True
