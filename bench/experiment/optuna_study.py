"""The Optuna study of one search: processes that share it claim trials under a lock, and repeat the trials of dead workers."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from bench.errors import BenchError, UsageError
from bench.experiment.provenance import cost
from bench.experiment.search import PRUNER, STARTUP, Search, with_rates
from bench.experiment.session import Session
from bench.record import Trial, Tuning
from bench.seeding import key
from bench.storage import files, locks
from bench.training.loop import History

PRUNE_AFTER = 3
"""The number of trials that must be complete before one may be pruned; pruned trials do not count."""
RETRY = "retry_of"
"""The name of an attribute: a trial that repeats the rates of a dead worker's trial has the number of that trial there."""


class OptunaStudy:
    """The Optuna study of a search, in a journal file or a database, shared by several processes."""

    def __init__(self, search: Search, session: Session) -> None:
        import optuna

        self.search, self.session, self.budget = search, session, session.config.tune
        self.folder = session.out / "studies" / search.id
        self.optuna: Any = optuna.create_study(
            storage=_storage(self.folder, session),
            study_name=search.id,
            direction="maximize",
            pruner=_pruner(search),
            load_if_exists=True,
        )
        if session.config.storage:
            self._check_place()

    def _locked(self) -> AbstractContextManager[None]:
        return locks.lock(self.folder / "claim.lock", self.session.echo, self.session.machine.stop.check)

    def _check_place(self) -> None:
        """Raise UsageError when a study in a database was begun with another output folder, where its workers' locks lie."""
        with self._locked():
            token = self.folder / "token"
            known = self.optuna.user_attrs.get("token")
            if known is None:
                if not token.is_file():
                    files.publish_file(token, uuid.uuid4().hex)
                self.optuna.set_user_attr("token", token.read_text())
            elif not token.is_file() or token.read_text() != known:
                raise UsageError(
                    f"the study {self.search.id} in the database of --storage was begun with another --out, or {token} is "
                    "damaged; give all workers of a study the same --out, or use another database here."
                )

    def claim(self, worker: str) -> Any:
        """Return the next trial for `worker`, None when the budget is taken; first queue the trials of dead workers again."""
        from optuna.distributions import FloatDistribution
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        with self._locked():
            self._queue_trials_of_the_dead()
            trials = self.optuna.get_trials(deepcopy=False)
            taken = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
            if sum(trial.state in taken for trial in trials) >= self.budget:
                return None
            draw = len(self._draws(trials))
            if draw < STARTUP and not any(trial.state == TrialState.WAITING for trial in trials):
                self.optuna.enqueue_trial(self.search.first_rates(draw))
            seed = key("tune", self.search.cell.seed, draw) % 2**32
            self.optuna.sampler = TPESampler(seed=seed, n_startup_trials=1, multivariate=True)
            space = {name: FloatDistribution(low, high, log=True) for name, (low, high) in self.search.space.items()}
            trial = self.optuna.ask(space)
            trial.set_user_attr("worker", worker)
            return trial

    def _queue_trials_of_the_dead(self) -> None:
        from optuna.trial import TrialState

        retried = {trial.user_attrs.get(RETRY) for trial in self.optuna.get_trials(deepcopy=False)}
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get("worker")  # set under this lock, so a trial without it has a dead worker
            if owner is None or not locks.is_alive(self.folder / "workers", owner):
                rates = self._rates(trial)
                if rates and trial.number not in retried:  # queued before it is marked failed, so a kill in between loses nothing
                    self.optuna.enqueue_trial(rates, user_attrs={RETRY: trial.number})
                self.optuna.tell(trial.number, state=TrialState.FAIL)

    def _rates(self, trial: Any) -> dict[str, float] | None:
        """Return a trial's rates; None when its worker died before they were drawn."""
        has_all = trial.params.keys() == self.search.space.keys()
        return (trial.params if has_all else trial.system_attrs.get("fixed_params")) or None

    def _draws(self, trials: Sequence[Any]) -> list[int]:
        """Return the numbers of the trials that repeat no other, so that dead workers do not change which rates are drawn."""
        return [trial.number for trial in trials if RETRY not in trial.user_attrs and self._rates(trial)]

    def finished(self) -> list[Any]:
        """Return the trials that count against the budget: complete or pruned."""
        from optuna.trial import TrialState

        return list(self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))

    def sweep(self) -> None:
        """Remove the working folders of finished trials whose workers died before they removed them."""
        with self._locked():
            ended = {with_rates(self.search.cell, trial.params).id for trial in self.finished()}
            for place in (self.folder / "work").glob("*"):
                if place.name in ended:
                    files.remove(place)

    def forget_networks(self, states: Sequence[str], score: float | None) -> None:
        """Drop a trial's networks, whose cache keys are `states`, unless its score is the best so far; None: it has no score.

        Networks of the leading phases whose rates are fixed stay, since every trial begins with them.
        """
        from optuna.trial import TrialState

        complete = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best = max((trial.value for trial in complete), default=-math.inf)
        shared = True
        for number, state in enumerate(states, start=1):
            low, high = self.search.space[f"phase-{number}"]
            shared = shared and low == high
            if not shared and (score is None or score < best):
                self.session.cache.drop(state)

    def summary(self) -> Tuning:
        """Return the finished search: its first trials in the order of the draws, as many as the budget, and the best rates."""
        place = self._places()
        chosen = sorted(self.finished(), key=lambda trial: place[trial.number])[: self.budget]
        counted = tuple(_trial(trial, place[trial.number]) for trial in chosen)
        complete = [trial for trial in counted if trial.value is not None]
        if not complete:
            raise BenchError(f"{self.search.id}: none of {len(counted)} trials was complete; give lower rates with --space.")
        best = max(complete, key=lambda trial: (trial.value, -trial.number))
        assert best.value is not None
        peak = max(trial.user_attrs["cost"].get("peak_memory", 0) for trial in chosen)  # trials of earlier versions tell none
        joules = [trial.user_attrs["cost"]["joules"] for trial in chosen]
        spent = History(
            seconds=sum(trial.seconds for trial in counted),
            images=sum(trial.images for trial in counted),
            joules=None if None in joules else sum(joules),
        )
        return Tuning(
            study=self.search.id,
            budget=self.budget,
            space=self.search.space,
            ranges=self.search.ranges,
            drawn=self.search.drawn,
            sampler=self.search.sampler,
            pruner=self.search.pruner,
            metric=self.search.metric,
            seeds=self.search.seeds,
            seed=self.search.cell.seed,
            trials=counted,
            best=best.rates,
            best_value=best.value,
            cost=cost(spent, self.session.machine, peak),
        )

    def _places(self) -> dict[int, int]:
        """Return each trial's place in the order in which rates were drawn; a repetition has the place of its original."""
        trials = self.optuna.get_trials(deepcopy=False)
        place = {number: draw for draw, number in enumerate(self._draws(trials))}
        for trial in trials:  # a trial that repeats another comes after it
            original = trial.user_attrs.get(RETRY)
            if original is not None and original in place:
                place[trial.number] = place[original]
        return place


def _pruner(search: Search) -> Any:
    from optuna.pruners import MedianPruner, NopPruner

    if search.pruner != PRUNER:
        return NopPruner()
    return MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=search.warmup)


def _trial(trial: Any, number: int) -> Trial:
    from optuna.trial import TrialState

    return Trial(
        number=number,
        rates=trial.params,
        state="diverged" if "diverged" in trial.user_attrs else trial.state.name.lower(),
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        epochs=trial.intermediate_values,
        seconds=round(trial.user_attrs["cost"]["seconds"], 3),
        images=trial.user_attrs["cost"]["images"],
    )


def _storage(folder: Path, session: Session) -> Any:
    files.make_folder(folder)
    if session.config.storage:
        from bench.storage.database import open_database

        return open_database(session.config.storage, session.echo, session.machine.stop.check)
    from bench.storage.journal import journal

    return journal(folder / "journal.log", session.echo)
