"""The search for the learning rates of one cell of the grid: the ranges to search, and the rates of the first trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

from bench import metrics
from bench.config import PRETEXT, RunConfig, Space
from bench.experiment.jobs import recipe_of
from bench.job import Job
from bench.protocol import SearchSeeds, Train
from bench.record import Tuning
from bench.schema import Schema
from bench.seeding import key

STARTUP = 8
"""The number of first draws, which depend on no score; the sampler draws the rest. They are the same for every pretext task,
except that draw 0 has the recipe's own rate when the pretext task's rate is searched."""

PRUNER = "median by epoch, from a quarter of the last phase on"


class Search(Schema):
    """A search for learning rates: a cell of the grid, scored on the validation split, and the ranges. Its digest is in its id.

    `space` has a range for each rate (`phase-1`, ..., `pretext`). `ranges` has them as --space does: for what a phase trains
    (`head`, `all`), and for `pretext`.
    """

    cell: Job
    space: Space
    ranges: Space
    seeds: SearchSeeds = "first"
    """Whether its rates are for all seeds of its row, or every seed has a search."""
    drawn: tuple[tuple[str, ...], ...] = ()
    """For each Sobol sequence, the rates that it draws together; a rate that cells share has the same values in all of them."""
    sampler: str = "8 Sobol, then TPE"
    pruner: str = PRUNER

    @property
    def id(self) -> str:
        """The search's id and its Optuna study's name: pretext, downstream task and twelve hexadecimal digits."""
        return f"{self.cell.pretrain.pretext}-{self.cell.downstream}-{self.digest()[:12]}"

    @property
    def metric(self) -> str:
        """The objective: the protocol's main metric, with its version."""
        return metrics.get(self.cell.settings.metrics[0]).key

    @property
    def warmup(self) -> int:
        """The epoch from which a trial may be pruned, a quarter into the last phase: earlier ones say little of its rate."""
        *before, last = (phase.epochs for phase in self.cell.phases)
        return sum(before) + max(1, math.ceil(last / 4))

    def own_rates(self) -> dict[str, float]:
        """Return the rates before any search: the protocol's, and the recipe's when the pretext task's rate is searched."""
        rates = {f"phase-{number}": phase.lr for number, phase in enumerate(self.cell.phases, start=1)}
        return {**rates, PRETEXT: recipe_of(self.cell.pretrain).lr} if PRETEXT in self.space else rates

    def first_rates(self, draw: int) -> dict[str, float]:
        """Return the rates of one of the first `STARTUP` draws, counted from 0.

        Draw 0 is the protocol's own rates if they lie in the space. The others follow a Sobol sequence over the logarithms.
        """
        from scipy.stats import qmc

        own = {name: low if low == high else self.own_rates()[name] for name, (low, high) in self.space.items()}
        if draw == 0 and all(low <= own[name] <= high for name, (low, high) in self.space.items()):
            return own
        place: dict[str, float] = {}
        for number, names in enumerate(self.drawn):
            seed = key("tune", self.cell.seed, *([number] if number else []))
            place |= zip(names, qmc.Sobol(len(names), rng=seed % 2**32).random(STARTUP)[draw].tolist(), strict=True)
        return {name: low * (high / low) ** place[name] for name, (low, high) in self.space.items()}


def search_of(job: Job, config: RunConfig, jobs: Sequence[Job]) -> Search:
    """Return the search that chooses a job's rates; its trials have the seed of the first job in `jobs` that it is for."""
    first = next(other for other in jobs if same_search(other, config) == same_search(job, config))
    ranges = ranges_of(job, config)
    space = {f"phase-{number}": ranges[phase.train] for number, phase in enumerate(job.phases, start=1)}
    if PRETEXT in ranges and recipe_of(job.pretrain).epochs:
        space[PRETEXT] = ranges[PRETEXT]
    pruner = PRUNER if config.pruner == "median" else config.pruner
    cell = first.model_copy(update={"split": "val"})
    return Search(cell=cell, space=space, ranges=ranges, seeds=config.search, drawn=_drawn(job, ranges), pruner=pruner)


def ranges_of(job: Job, config: RunConfig) -> Space:
    """Return the ranges by what a phase trains: the configuration's (with `pretext`, if given), else the protocol's."""
    return {**{str(kind): limits for kind, limits in job.settings.space.items()}, **config.space}


def with_rates(job: Job, rates: dict[str, float]) -> Job:
    """Return a job that trains at these rates: its phases, and its pretext task when `rates` has one for it."""
    changes: dict[str, Any] = {"rates": tuple(rates[f"phase-{number}"] for number in range(1, len(job.phases) + 1))}
    if PRETEXT in rates:
        recipe = recipe_of(job.pretrain).with_changes({"lr": rates[PRETEXT]}, "recipe").identity()
        changes["pretrain"] = job.pretrain.model_copy(update={"recipe": recipe})
    return job.model_copy(update=changes)


def chosen_by(tuning: Tuning, job: Job) -> Job:
    """Return a job with the rates that a search chose; the job names the search."""
    return with_rates(job, tuning.best).model_copy(update={"study": tuning.study, "trials": tuning.budget})


def _drawn(job: Job, ranges: Space) -> tuple[tuple[str, ...], ...]:
    """Return the rates that each Sobol sequence draws together, one tuple of names for each sequence.

    The first sequence draws one rate for each kind of phase (head, all), even if the schedule has no such phase, and the pretext
    task's if searched. A second phase of a kind has its own sequence: a further dimension would change the others' values.
    """
    first: dict[str, str] = {}
    phases = [f"phase-{number}" for number in range(1, len(job.phases) + 1)]
    for name, phase in zip(phases, job.phases, strict=True):
        first.setdefault(phase.train, name)
    together = (*(first.get(kind, kind) for kind in get_args(Train)), *([PRETEXT] if PRETEXT in ranges else []))
    return together, *((name,) for name in phases if name not in together)


def is_searched(job: Job, config: RunConfig) -> bool:
    """Tell whether a job's rates are searched: those of fine-tuning with --tune; a probe has none."""
    return bool(config.tune) and job.probe is None


def same_search(job: Job, config: RunConfig) -> tuple[object, ...]:
    """Return what tells the searches of a grid apart; jobs of one grid with the same value differ in the seed at most."""
    seeds = (job.seed,) if config.search == "each" else ()
    return job.pretrain.begins_with, job.downstream, job.schedule, job.transfer, job.labels, job.probe, *seeds
