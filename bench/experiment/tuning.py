"""Tuning, the same for every pretext task: an Optuna study of the learning rates of one cell of the grid.

A study's first trial has the protocol's own rates (and the recipe's, when the pretext task's rate is searched), if they lie in
the ranges. The next trials follow a Sobol sequence that is the same for every pretext task. A rate that two schedules share gets
the same values in both: drawn alone, it would cover its range better than drawn together with another rate, and one schedule
would have an advantage. Later trials are drawn by a sampler (TPE) that knows the scores so far and is seeded by the number of the
draw. A trial trains on the train split and is scored on the validation split; the test split is never scored.

Several processes with one output folder share a study. Each trial is claimed under a lock, and each worker holds a lock of its
own while it lives. The trial of a dead worker is therefore found at once, marked as failed, and repeated with the same rates.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

from bench import record
from bench.experiment import failures
from bench.experiment.optuna_study import OptunaStudy
from bench.experiment.search import Search
from bench.experiment.session import Session
from bench.experiment.trial import attempt
from bench.record import Tuning
from bench.storage import files, locks


def path_of(study: str, trials: int, out: Path) -> Path:
    """Return the file of a finished search with this number of trials."""
    return out / "studies" / study / f"tuning-{trials}.json"


def find_tuning(search: Search, trials: int, out: Path) -> Tuning | None:
    """Return a finished search, None when there is none; DataError when it cannot be read."""
    path = path_of(search.id, trials, out)
    return record.read_tuning(path) if path.is_file() else None


def tune(search: Search, session: Session, wait: bool = True) -> Tuning:
    """Return the search with exactly `config.tune` trials, each complete, pruned or diverged, and run the missing trials.

    When other processes have claimed all remaining trials, wait for them; without `wait`, raise Busy.
    """
    budget = session.config.tune
    found = find_tuning(search, budget, session.out)
    if found is not None:
        return found
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = OptunaStudy(search, session)
        with locks.alive(study.folder / "workers") as worker, failures.noted(search.id, session.out):
            waiting = False
            while True:
                failures.check(search.id, session.out)
                trial = study.claim(worker)
                if trial is not None:
                    attempt(study, trial)
                elif len(study.finished()) >= budget:
                    break
                elif not wait:
                    raise locks.Busy
                else:
                    if not waiting:
                        session.echo(f"{search.id}: every trial is taken; waiting for the other workers")
                        waiting = True
                    session.machine.stop.check()
                    time.sleep(0.5)
            study.sweep()
            tuning = study.summary()
    files.publish_json(path_of(search.id, budget, session.out), tuning.model_dump(mode="json"))
    return tuning
