"""What a command would do: the work that is finished and the work that is left, with about how long that takes on this machine.

Work is told for each trunk, search and run, over all seeds. Packing, reading and writing are not in the estimate. A search may
take less than it says, since trials are pruned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import ParamSpec, TypeVar

from bench.config import PRETEXT, as_space
from bench.errors import BenchError
from bench.experiment.estimate import Estimate
from bench.experiment.jobs import recipe_of
from bench.experiment.pretraining import find_pretrained
from bench.experiment.resolve import PHOTOGRAPHS, resolve
from bench.experiment.runs import find
from bench.experiment.search import chosen_by, is_searched, same_search, search_of
from bench.experiment.session import Session
from bench.experiment.step_times import StepTimes
from bench.experiment.tuning import find_tuning
from bench.job import Job, PretrainJob
from bench.record import Record, Tuning

P = ParamSpec("P")
T = TypeVar("T")
DAY = 86_400.0
ANSWER, AT_LEAST = 8.0, 3.0
"""Seconds after the start of a command until which steps are timed for a plan, which is to answer in under 15; and seconds for
the first of them in any case."""
OFFERED = (PHOTOGRAPHS, "standard", "paper")
"""The protocols that are offered beside the chosen one, with their cost."""


@dataclass(frozen=True)
class Line:
    """Pieces of work that differ in the seed alone: how many are in which state, and the seconds that are left."""

    name: str
    states: tuple[tuple[str, int], ...]
    seconds: float = 0.0
    kind: str = ""
    """What the work is: trunk, search or run."""
    left: int = 0
    """How many pieces are to be made, those aside that an earlier line has."""

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return sum(count for _, count in self.states)

    @property
    def state(self) -> str:
        """The states as text, with numbers where there are several pieces."""
        several = self.pieces > 1
        return ", ".join(f"{count:,} {state}" if several else state for state, count in self.states)


@dataclass(frozen=True)
class Piece:
    """A piece of work: its id, its state, and how many times it is to be done (0: it is finished)."""

    id: str
    state: str
    times: int = 1
    of: str = ""
    """The id of the run's job before any search, where `id` is another."""


@dataclass
class Plan:
    """The work of a session. `done` counts, by id, the work that this plan and earlier ones of the same command contain."""

    session: Session
    times: StepTimes
    estimate: Estimate
    known: Sequence[Record] = ()
    """Records outside the output folder that would be reused, with their searches."""
    done: dict[str, int] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    pieces: dict[str, float] = field(default_factory=dict)
    """The seconds of each piece of work that is left, by the id of its trunk, its search, or its run before any search."""
    others: dict[str, float] = field(default_factory=dict)
    """The seconds that the same command would take with other protocols."""

    @property
    def seconds(self) -> float:
        """The estimate for all lines together."""
        return sum(line.seconds for line in self.lines)

    def add(self, kind: str, name: str, work: Sequence[Piece], seconds: Callable[[], float]) -> None:
        """Add a line for pieces of work, without what earlier plans contain; `seconds()` is the estimate for one piece, once."""
        states: Counter[str] = Counter()
        total, to_do = 0.0, 0
        for piece in work:
            left = max(0, piece.times - self.done.get(piece.id, 0))
            self.done[piece.id] = self.done.get(piece.id, 0) + left
            states[piece.state if left or not piece.times else "above"] += 1
            if left:
                self.pieces[piece.of or piece.id] = left * seconds()
                total, to_do = total + left * seconds(), to_do + 1
        self.lines.append(Line(name, tuple(states.items()), total, kind, to_do))

    @cached_property
    def there(self) -> dict[str, set[str]]:
        """The names in the folders of the output folder that hold trunks, runs and unfinished work."""
        folders = {name: self.session.out / name for name in ("pretrained", "runs", "work")}
        return {name: {one.name for one in folder.iterdir()} if folder.is_dir() else set() for name, folder in folders.items()}


def plan(
    session: Session,
    times: StepTimes,
    done: dict[str, int] | None = None,
    known: Sequence[Record] = (),
    others: bool = True,
    runs: bool = True,
) -> Plan:
    """Return the plan of a session, with `others` also for how long the other protocols would take; without `runs`, of searches.

    Work in `done`, which earlier plans contain, is not counted again; the work of this plan is added to `done`.
    """
    made = Plan(session, times, Estimate(session.grid, session.machine, times), known, {} if done is None else done)
    for jobs in _alike(session.grid.jobs, lambda job: job.pretrain.begins_with):
        _add_trunks(made, jobs)
        for cell in _alike(jobs, lambda job: same_search(job, session.config)):
            chosen = _add_search(made, cell) if is_searched(cell[0], session.config) else cell
            if runs:
                _add_runs(made, cell, chosen)
    if others:
        made.others = others_of(made)
    return made


def _alike(jobs: Sequence[Job], key: Callable[[Job], object]) -> Iterator[list[Job]]:
    """Yield the jobs in groups that have the same key, in the order of each group's first job."""
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    yield from groups.values()


def _add_trunks(made: Plan, jobs: Sequence[Job]) -> None:
    trunks = list({job.pretrain.seed: job.pretrain for job in jobs}.values())
    pretext, trained = made.session.grid.label_of(jobs[0].pretrain), recipe_of(jobs[0].pretrain).epochs > 0
    if _searches_pretext(made.session, jobs[0]):
        trunks = trunks[1:]  # that of the first seed is one of the search's
    work = []
    for trunk in trunks:
        if trunk.id in made.there["pretrained"] and _readable(find_pretrained, trunk, made.session.out) is not None:
            work.append(Piece(trunk.id, "pretrained", 0))
        else:
            work.append(Piece(trunk.id, _state(made, trunk)) if trained else Piece(trunk.id, "no pretraining", 0))
    name = work[0].id if len(work) == 1 else f"{pretext}, {len(work):,} seeds"
    if work:
        seconds = cache(partial(made.estimate.pretraining, jobs[0]))
        made.add("trunk", name, work, seconds)


def _add_search(made: Plan, cell: Sequence[Job]) -> list[Job] | None:
    """Add a cell's search and return its jobs with the chosen rates; None before the search is finished."""
    session, job = made.session, cell[0]
    trials = session.config.tune
    search = search_of(job, session.config, cell)
    tuning = _readable(find_tuning, search, trials, session.out) or _known_tuning(made.known, search.id, trials)
    if tuning is not None:
        wider = tuning.wider(job.trains)
        edge = f", a rate at the edge of its range: --space {as_space(wider)} searches wider" if wider else ""
        made.add("search", f"  {search.id}", [Piece(search.id, f"searched{edge}", 0)], lambda: 0.0)
        return [chosen_by(tuning, job) for job in cell]

    def seconds() -> float:
        trunk = made.estimate.pretraining(job) if _searches_pretext(session, job) else 0.0
        return made.estimate.finetuning(job, trial=True) + trunk

    pruned = ", less time when pruned" if session.config.pruner != "none" else ""
    made.add("search", f"  {search.id}", [Piece(search.id, f"{trials} trials{pruned}", trials)], cache(seconds))
    return None


def _add_runs(made: Plan, cell: Sequence[Job], chosen: Sequence[Job] | None) -> None:
    """Add the runs of a cell; without `chosen`, its jobs with the rates of a search, they are to be done after that search."""
    work, finished = [], {record.id for record in made.known}
    if chosen is None:
        after = f"{search_of(cell[0], made.session.config, cell).id} {made.session.config.tune}"
        work = [Piece(f"{after} {job.id}", "to do", of=job.id) for job in cell]
    for job, run in zip(cell, chosen or (), strict=False):
        there = run.id in finished or (run.id in made.there["runs"] and _readable(find, run, made.session.out) is not None)
        work.append(Piece(run.id, "finished" if there else _state(made, run), int(not there), job.id))
    first = cell[0]
    if len(work) == 1 and chosen is not None:
        name = f"{work[0].id} (seed {first.seed}, {first.about})"
    else:
        seeds = f"seed {first.seed}" if len(work) == 1 else f"{len(work):,} seeds"
        rates = "" if chosen is not None else "rates not known yet, "
        name = f"{made.session.grid.label_of(first.pretrain)}-{first.downstream} ({rates}{seeds}, {first.about})"
    made.add("run", f"  {name}", work, cache(partial(made.estimate.finetuning, first)))


def _searches_pretext(session: Session, job: Job) -> bool:
    """Tell whether the trials of a job's search train trunks at rates of their own."""
    low, high = session.config.space.get(PRETEXT, (0.0, 0.0))
    return bool(session.config.tune and low < high and recipe_of(job.pretrain).epochs)


def _known_tuning(known: Sequence[Record], study: str, trials: int) -> Tuning | None:
    tunings = (record.tuning for record in known if record.tuning is not None)
    return next((tuning for tuning in tunings if (tuning.study, tuning.budget) == (study, trials)), None)


def _readable(find: Callable[P, T | None], *where: P.args, **named: P.kwargs) -> T | None:
    """Return the record that `find` finds; None also for one that cannot be read, which is told when its turn comes."""
    try:
        return find(*where, **named)
    except BenchError:
        return None


def _state(made: Plan, job: PretrainJob | Job) -> str:
    return "interrupted, goes on" if job.id in made.there["work"] else "to do"


def others_of(made: Plan) -> dict[str, float]:
    """Return how long the same command would take with the other protocols of `OFFERED`, where its tasks have them.

    Two seeds are planned; each further seed takes what the second one takes.
    """
    session, seeds = made.session, made.session.config.all_seeds
    grid, found = session.grid, {}
    known = {name: data for name, data in (*grid.data.items(), (grid.pretrain_name, grid.pretrain_data)) if name and data}
    for name in OFFERED:
        if name == grid.protocol:
            continue
        taken = []
        for count in range(1, 1 + min(2, len(seeds))):
            try:
                config = session.config.model_copy(update={"protocol": name, "seed": None, "seeds": seeds[:count]})
                other = replace(session, config=config, grid=resolve(config, lambda text: None, known))
            except BenchError:  # a task without it, or a size or a setting that does not fit it
                break
            taken.append(plan(other, made.times.of_trunks(), known=made.known, others=False).seconds)
        if taken:
            found[name] = taken[-1] + (taken[-1] - taken[0]) * (len(seeds) - len(taken))
    return found
