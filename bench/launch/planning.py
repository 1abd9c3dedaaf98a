"""From a session and its plan to the planned work of a launch."""

from __future__ import annotations

from bench.experiment.grid import named_in_full
from bench.experiment.plan import Plan
from bench.experiment.search import is_searched, same_search, search_of
from bench.experiment.session import Session
from bench.launch.planned import Planned, PlannedRun, PlannedSearch
from bench.registry import load


def planned(session: Session, plan: Plan, name: str = "", searches_only: bool = False) -> Planned:
    """Return the work of a session as a launch keeps it, with the seconds of its plan."""
    runs, searches = [], {}
    of_cell: dict[object, str] = {}
    for job in session.grid.jobs:
        search = ""
        if is_searched(job, session.config):
            cell = same_search(job, session.config)
            if cell not in of_cell:
                made = search_of(job, session.config, session.grid.jobs)
                of_cell[cell] = made.id
                usual = load("pretexts", job.pretrain.pretext).Recipe().lr
                searches[made.id] = PlannedSearch(job=job.model_dump(mode="json"), trials=session.config.tune, lr=usual)
            search = of_cell[cell]
        runs.append(
            PlannedRun(
                id=job.id,
                trunk=job.pretrain.id,
                search=search,
                title=named_in_full(job, session),
                seed=job.seed,
                trunk_seed=job.pretrain.seed,
            )
        )
    return Planned(name=name, runs=tuple(runs), searches=searches, seconds=plan.pieces, searches_only=searches_only)
