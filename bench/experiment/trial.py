"""One trial of a search: train a network at some rates, score it on the validation split after every epoch, prune or finish."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from bench import metrics
from bench.config import PRETEXT
from bench.errors import Diverged
from bench.experiment import failures
from bench.experiment.finetuning import FineTuning, finetune
from bench.experiment.optuna_study import OptunaStudy
from bench.experiment.pretraining import find_pretrained, pretrain
from bench.experiment.search import with_rates
from bench.experiment.session import Session
from bench.job import Job
from bench.record import PretrainRecord
from bench.schema import Schema
from bench.storage import files, seal
from bench.training import loggers
from bench.training.energy import Meter


class TrialProgress(Schema):
    """A trial's score after each epoch and its cost so far, kept on the disk so that a kill does not lose them."""

    values: dict[int, float] = {}
    seconds: float = 0.0
    images: int = 0
    joules: float | None = None

    @classmethod
    def read(cls, path: Path) -> TrialProgress:
        """Return the progress in a file, empty when there is no file; DataError when it cannot be read."""
        if not path.is_file():
            return cls()
        return seal.read_model(cls, path, "a trial's progress", "remove its folder, and the trial begins anew")


class _Pruned(Exception):
    """Raised when the best score of a trial so far is below the median of the complete trials at the same epoch."""


class _Attempt:
    """A running trial: scores its network after every epoch and reports the score to the study."""

    def __init__(self, study: OptunaStudy, trial: Any, work: Path) -> None:
        self.study, self.trial, self.path = study, trial, work / "trial.json"
        self.state = self.before = TrialProgress.read(self.path)
        self.network_states: list[str] = []
        for epoch, value in self.state.values.items():
            trial.report(value, epoch)
        self.begin()

    def begin(self) -> None:
        """Count time and energy from now on, in addition to what the trial took before an interruption."""
        self.started = time.monotonic() - self.state.seconds
        self.meter = Meter(self.study.session.machine.device)

    def seconds(self) -> float:
        """Return the seconds that the trial has taken so far."""
        return time.monotonic() - self.started

    def joules(self) -> float | None:
        """Return the energy that the trial has used so far; None when the device does not tell."""
        used = self.meter.joules()
        return None if used is None else (self.before.joules or 0.0) + used

    def after_epoch(self, tuned: FineTuning, epoch: int, known: float | None) -> float:
        """Return the score after an epoch, kept, `known` or computed now; raise _Pruned when the study prunes the trial."""
        self.network_states = list(tuned.states)
        values, world = self.state.values, tuned.session.machine.world
        asked = world.share(epoch not in values and known is None)
        predictions = tuned.predictions() if asked else {}
        if epoch not in values:
            facts = tuned.data.facts
            if known is None:
                found = metrics.compute(self.study.search.metric, predictions, facts.classes, facts.scored)
                known = found if math.isfinite(found) else 0.0
            self.state = TrialProgress(
                values={**values, epoch: known},
                seconds=self.seconds(),
                images=epoch * facts.counts["train"],
                joules=self.joules(),
            )
            files.publish_json(self.path, self.state.model_dump(mode="json"))
            self.trial.report(known, epoch)
        if world.share(bool(self.trial.should_prune())):
            raise _Pruned
        return world.share(self.state.values[epoch])


def take_part(job: Job, pretrained: PretrainRecord, work: Path, session: Session) -> None:
    """Take part in a trial that another process leads, which alone knows the study."""

    def after_epoch(tuned: FineTuning, epoch: int, known: float | None) -> float:
        world = session.machine.world
        if world.share(False):
            tuned.predictions()
        if world.share(False):
            raise _Pruned
        return float(world.share(0.0))

    finetune(job, pretrained, session, after_epoch, work)


def attempt(study: OptunaStudy, trial: Any) -> None:
    """Train one trial, report its validation score after every epoch, and tell the study how it ended; a kill loses no score."""
    from optuna.trial import TrialState

    search, session = study.search, study.session
    job = with_rates(search.cell, trial.params)
    session.echo(f"  {search.id} trial {trial.number}: {', '.join(f'{name} {rate:.2e}' for name, rate in trial.params.items())}")
    work = study.folder / "work" / job.id
    progress = _Attempt(study, trial, work)
    state, score, extra_images, diverged_after = TrialState.COMPLETE, None, 0, 0
    trunk_is_new = PRETEXT in trial.params and find_pretrained(job.pretrain, session.out) is None
    try:
        try:
            pretrained = pretrain(job.pretrain, session)
        except Diverged as error:
            extra_images, error.images = error.images, 0
            if PRETEXT in trial.params:  # a rate that was tried, and no failure
                files.remove(failures.path_of(job.pretrain.id, session.out))
            raise
        if trunk_is_new:
            extra_images = pretrained.cost.images
        else:  # the trunk's cost is in its own record; waiting for it is none
            progress.begin()
        with session.machine.part("trial", job, pretrained, work):
            finetune(job, pretrained, session, progress.after_epoch, work)
        score = progress.state.values[max(progress.state.values)]
    except _Pruned:
        state = TrialState.PRUNED
    except Diverged as error:
        state = TrialState.PRUNED
        trial.set_user_attr("diverged", str(error))
        diverged_after = error.images
    study.forget_networks(progress.network_states, score)
    images = max(progress.state.images, diverged_after) + extra_images
    cost = {"seconds": progress.seconds(), "images": images, "joules": progress.joules()}
    trial.set_user_attr("cost", {**cost, "peak_memory": session.cache.peak_memory()})
    logs = study.folder / "trials" / job.id
    files.remove(logs)
    loggers.keep(work, logs)
    study.optuna.tell(trial, score, state=state)
    files.remove(work)
    outcome = f"{search.metric} {score:.4f}" if score is not None else "diverged" if "diverged" in trial.user_attrs else "pruned"
    session.echo(f"  {search.id} trial {trial.number}: {outcome}; {max(0, study.budget - len(study.finished()))} to go")
