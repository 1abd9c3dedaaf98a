"""The work of a launch, kept in its folder when it begins, and how far it is, from what lies in the output folder.

Nothing here loads torch, so that `bench status` answers at once, also for thousands of runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config import PRETEXT
from bench.errors import DataError
from bench.experiment import failures
from bench.experiment.failures import Failure
from bench.experiment.schedule import Task, wall_time
from bench.job import Job
from bench.record import read_tuning
from bench.schema import Schema
from bench.storage import files, seal

TRIAL_ENDED = re.compile(rb'^\{"op_code":6,[^\n]*"state":[12],', re.MULTILINE)
"""An entry of Optuna's journal for a trial that was complete or pruned."""
NAME = "plan.json"


class PlannedRun(Schema):
    """A run as it was planned: its id before any search, the ids of its trunk and its search, and what the screen calls it."""

    id: str
    trunk: str
    search: str = ""
    title: str
    seed: int
    trunk_seed: int


class PlannedSearch(Schema):
    """A search as it was planned: the job of one of its runs before the search, and how many trials it has."""

    job: dict[str, Any]
    trials: int
    lr: float
    """The learning rate that the pretext task has by default, which ids leave out."""


class Planned(Schema):
    """The work of a command, or of the part `name` of a study.

    `seconds` is what each trunk, search and run takes by the plan, where it was to be made and no earlier part has it.
    """

    name: str = ""
    runs: tuple[PlannedRun, ...]
    searches: dict[str, PlannedSearch] = {}
    seconds: dict[str, float] = {}
    searches_only: bool = False
    """Whether the searches are all that is asked for (`bench tune`)."""

    def run_id(self, run: PlannedRun, rates: dict[str, float] | None) -> str:
        """Return the id of a run whose search, if it has one, chose `rates`; as `bench.experiment.search.chosen_by` does."""
        if not run.search or rates is None:
            return run.id
        search = self.searches[run.search]
        job = Job.model_validate(search.job)
        recipe = job.pretrain.recipe
        if PRETEXT in rates:
            recipe = {name: value for name, value in recipe.items() if name != "lr"}
            recipe |= {"lr": rates[PRETEXT]} if rates[PRETEXT] != search.lr else {}
        changes = {
            "seed": run.seed,
            "pretrain": job.pretrain.model_copy(update={"seed": run.trunk_seed, "recipe": recipe}),
            "rates": tuple(rates[f"phase-{number}"] for number in range(1, len(job.phases) + 1)),
            "study": run.search,
            "trials": search.trials,
        }
        return job.model_copy(update=changes).id


class _Parts(Schema):
    parts: tuple[Planned, ...]


def keep(parts: Sequence[Planned], folder: Path) -> None:
    """Write the plan of a launch into its folder."""
    files.publish_json(folder / NAME, _Parts(parts=tuple(parts)).model_dump(mode="json"))


def read(folder: Path) -> tuple[Planned, ...]:
    """Return the plan of a launch, a part each; DataError where it cannot be read."""
    return seal.read_model(_Parts, folder / NAME, "the plan of a launch", "remove the folder to forget the launch").parts


@dataclass
class Progress:
    """How far planned work is, from the folders of trunks, searches, runs and failures; `look` reads them again."""

    planned: Planned
    out: Path
    launch: str
    made: dict[str, str] = field(default_factory=dict)
    """The ids of finished runs, by their ids before any search."""
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    """The rates that finished searches chose."""
    trunks: set[str] = field(default_factory=set)
    failed: dict[str, Failure] = field(default_factory=dict)
    """How runs failed in this launch, by their ids before any search; of searches by theirs, where only searches are made."""
    _ids: dict[str, str] = field(default_factory=dict)

    def look(self) -> list[PlannedRun]:
        """Read what is there now; return the runs that were finished since the last look."""
        self.trunks = _names(self.out / "pretrained")
        searched = _names(self.out / "studies") - self.rates.keys()
        for name in searched & self.planned.searches.keys():
            path = self.out / "studies" / name / f"tuning-{self.planned.searches[name].trials}.json"
            if path.is_file():
                try:
                    self.rates[name] = read_tuning(path).best
                except DataError:  # the run says so when its turn comes
                    continue
        there, failed = _names(self.out / "runs"), {Path(name).stem for name in _names(self.out / "failures")}
        new = []
        for run in self.planned.runs:
            if run.id in self.made:
                continue
            made = self.id_of(run)
            if made in there:
                self.made[run.id] = made
                self.failed.pop(run.id, None)
                new.append(run)
            elif failed:
                self._fail(run, [one for one in (run.trunk, run.search, run.id, made) if one in failed])
        return [] if self.planned.searches_only else new

    def id_of(self, run: PlannedRun) -> str:
        """Return the id of a run; "" before its search is finished."""
        if run.search and run.search not in self.rates:
            return ""
        if run.id not in self._ids:
            self._ids[run.id] = self.planned.run_id(run, self.rates.get(run.search))
        return self._ids[run.id]

    @property
    def finished(self) -> list[PlannedRun]:
        """The planned runs that are finished; with `searches_only` those whose search is."""
        done = self.rates if self.planned.searches_only else self.made
        return [run for run in self.planned.runs if (run.search if self.planned.searches_only else run.id) in done]

    @property
    def left(self) -> list[PlannedRun]:
        """The planned runs that are neither finished nor failed."""
        finished = {run.id for run in self.finished}
        return [run for run in self.planned.runs if run.id not in finished and run.id not in self.failed]

    def trials_of(self, search: str) -> int:
        """Return how many trials of a search are finished."""
        if search in self.rates:
            return self.planned.searches[search].trials
        try:
            journal = (self.out / "studies" / search / "journal.log").read_bytes()
        except OSError:  # not begun, or in a database
            return 0
        return min(len(TRIAL_ENDED.findall(journal)), self.planned.searches[search].trials)

    def tasks(self, factor: float = 1.0, begun: dict[str, float] | None = None) -> dict[str, Task]:
        """Return the work that is left as tasks that wait for each other, each `factor` times what the plan says.

        `begun` has the seconds for which trunks, searches and runs have been worked on.
        """
        return dict(self._tasks(factor, begun or {}))

    def _tasks(self, factor: float, begun: dict[str, float]) -> Iterator[tuple[str, Task]]:
        left, seconds = self.left, self.planned.seconds

        def takes(piece: str, name: str) -> float:
            return max(0.0, factor * seconds.get(piece, 0.0) - begun.get(name, 0.0))

        for trunk in dict.fromkeys(run.trunk for run in left):
            if trunk not in self.trunks and trunk in seconds:
                yield trunk, Task(takes(trunk, trunk))
        trials: dict[str, list[str]] = {}
        for run in left:
            if run.search and run.search not in self.rates and run.search not in trials:
                search = self.planned.searches[run.search]
                remain = search.trials - self.trials_of(run.search)
                names = [f"{run.search} {number}" for number in range(remain)]
                trials[run.search] = names
                for number, name in enumerate(names):
                    spent = begun if number == 0 else {}
                    one = factor * seconds.get(run.search, 0.0) / search.trials - spent.get(run.search, 0.0)
                    yield name, Task(max(0.0, one), [run.trunk])
        if not self.planned.searches_only:
            for run in left:
                before = [run.trunk, *trials.get(run.search, ())]
                yield f"{run.search} {run.id}", Task(takes(run.id, self.id_of(run)), before)

    def _fail(self, run: PlannedRun, candidates: Iterable[str]) -> None:
        failed = failures.first_of(candidates, self.out, self.launch)
        if failed is not None:
            self.failed[run.id] = failed
        else:
            self.failed.pop(run.id, None)


def seconds_left(
    parts: Sequence[Progress], workers: int, factor: float = 1.0, begun: dict[str, float] | None = None
) -> tuple[float, float]:
    """Return the seconds of all that is left of a launch, and until it is finished by some workers (`Progress.tasks`)."""
    tasks = {name: task for part in reversed(parts) for name, task in part.tasks(factor, begun).items()}
    return sum(task.seconds for task in tasks.values()), wall_time(tasks, max(1, workers))


def _names(folder: Path) -> set[str]:
    """Return the names in a folder but those of temporary files; none where it is missing."""
    try:
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError:
        return set()
