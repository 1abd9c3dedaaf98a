"""`--plan`: what would run, what is finished, and how long the rest would take, estimated from a few timed training steps.

The estimate counts training steps and the passes that measure batch-norm statistics: not packing, reading and scoring, and not
the pretraining in each trial of a search for the pretext task's rate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from bench import registry, seeding
from bench.config import as_space
from bench.contract import Batch, Downstream
from bench.data import packs, splits
from bench.data.dataset import Dataset, decode
from bench.experiment.finetuning import make_model, phase_stage
from bench.experiment.leaks import pretraining_splits
from bench.experiment.pretraining import find_pretrained, make_pretext, pretraining_stage, work_folder
from bench.experiment.resolve import pack_of, recipe_of, subset_of
from bench.experiment.runs import find
from bench.experiment.search import chosen_by, search_of
from bench.experiment.session import Session
from bench.experiment.tuning import find_tuning
from bench.job import Job, PretrainJob
from bench.models import batch_norm
from bench.record import Record, Tuning
from bench.training.loop import Stage, take_step

WARM, TIMED = 1, 2


@dataclass(frozen=True)
class Line:
    """One piece of work: a pretrained trunk, a search or a run."""

    name: str
    state: str
    seconds: float = 0.0


@dataclass
class Plan:
    """The work of a session. `done` counts, by id, the work that this plan and earlier ones of the same command contain."""

    session: Session
    known: Sequence[Record] = ()
    """Records outside the output folder that would be reused, with their searches."""
    done: dict[str, int] = field(default_factory=dict)
    lines: dict[str, Line] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    """Seconds per training step, by pretext task, or by downstream task and what the phase trains."""

    @property
    def seconds(self) -> float:
        """The estimate for all lines together."""
        return sum(line.seconds for line in self.lines.values())

    def add(self, identity: str, name: str, state: str, seconds: Callable[[], float], times: int = 1) -> None:
        """Add work to be done `times` times, less the times in earlier plans; `seconds()` is the estimate for one time."""
        left = max(0, times - self.done.get(identity, 0))
        self.done[identity] = self.done.get(identity, 0) + left
        self.lines[identity] = Line(name, state, left * seconds()) if left else Line(name, "above")

    def per_step(self, name: str, measure: Callable[[], float]) -> float:
        """Return the seconds per training step, measured once for each `name`."""
        if name not in self.measured:
            self.measured[name] = measure()
        return self.measured[name]


def plan(session: Session, done: dict[str, int] | None = None, known: Sequence[Record] = ()) -> Plan:
    """Return the plan of a session: a line for each trunk, search and run that it would make or reuse, with estimated seconds.

    Work in `done`, which earlier plans contain, is not counted again; the work of this plan is added to `done`.
    """
    made = Plan(session, known, {} if done is None else done)
    finished = {record.id for record in known}
    for job in session.grid.jobs:
        _add_trunk(made, job)
        chosen: Job | None = job
        if session.config.tune:
            chosen = _add_search(made, job)
        if chosen is None:
            continue
        if chosen.id in finished or find(chosen, session.out) is not None:
            made.lines[chosen.id] = Line(f"  {chosen.id}", "finished")
            continue
        name = f"  {chosen.id} (seed {job.seed}, {job.schedule})"
        made.add(chosen.id, name, _state(session, chosen), partial(_finetuning_seconds, made, job))
    return made


def _add_trunk(made: Plan, job: Job) -> None:
    trunk = job.pretrain.id
    if trunk in made.lines:
        return
    if find_pretrained(job.pretrain, made.session.out) is not None:
        made.lines[trunk] = Line(trunk, "pretrained")
    elif not recipe_of(job.pretrain).epochs:
        made.lines[trunk] = Line(trunk, "no pretraining")
    else:
        made.add(trunk, trunk, _state(made.session, job.pretrain), partial(_pretraining_seconds, made, job))


def _add_search(made: Plan, job: Job) -> Job | None:
    """Add a job's search and return the job with the chosen rates; before the search is finished, add the run and return None."""
    session, trials = made.session, made.session.config.tune
    search = search_of(job, session.config, session.grid.jobs)
    tuning = find_tuning(search, trials, session.out) or _known_tuning(made.known, search.id, trials)
    if search.id not in made.lines and tuning is not None:
        wider = tuning.wider(job.trains)
        edge = f", a rate at the edge of its range: --space {as_space(wider)} searches wider" if wider else ""
        made.lines[search.id] = Line(f"  {search.id}", f"searched{edge}")
    elif search.id not in made.lines:
        state = f"{trials} trials, fewer seconds when pruned"
        made.add(search.id, f"  {search.id}", state, partial(_finetuning_seconds, made, job), trials)
    if tuning is not None:
        return chosen_by(tuning, job)
    name = f"  {job.pretrain.pretext}-{job.downstream}, rates not known yet (seed {job.seed}, {job.schedule})"
    made.add(f"{search.id} {trials} {job.id}", name, "to do", partial(_finetuning_seconds, made, job))
    return None


def _known_tuning(known: Sequence[Record], study: str, trials: int) -> Tuning | None:
    tunings = (record.tuning for record in known if record.tuning is not None)
    return next((tuning for tuning in tunings if (tuning.study, tuning.budget) == (study, trials)), None)


def _state(session: Session, job: PretrainJob | Job) -> str:
    return "interrupted, goes on" if work_folder(job, session.out).is_dir() else "to do"


def _pretraining_seconds(made: Plan, job: Job) -> float:
    dataset = made.session.grid.pretrain_data
    assert dataset is not None, "a job that trains has data"
    recipe = recipe_of(job.pretrain)
    count = len(pretraining_splits(job.pretrain, made.session.grid, made.session.echo).ids("train"))
    steps = recipe.epochs * seeding.steps_per_epoch(count, recipe.batch_size)
    return steps * made.per_step(job.pretrain.pretext, partial(_pretraining_step, made.session, job, dataset))


def _finetuning_seconds(made: Plan, job: Job) -> float:
    """Return the estimate for the phases of a job, and for measuring batch-norm statistics before them."""
    session, settings = made.session, job.settings
    subset = subset_of(registry.load("downstreams", job.downstream), settings)
    share = splits.open_share(session.grid.data, splits.open_splits(session.grid.data, settings.split_scheme, subset), job.labels)
    steps = seeding.steps_per_epoch(len(share.ids(*settings.fit)), settings.batch_size)
    total = 0.0
    new_parts = settings.calibration == "all" or job.transfer != "all" or not recipe_of(job.pretrain).epochs
    if new_parts and settings.statistics == "running":
        measured = min(steps, batch_norm.MEASURED // settings.batch_size)
        total += measured * made.per_step(f"{job.downstream} head", partial(_finetuning_step, session, job, 1))
    features_once = settings.statistics == "running" and settings.augmentation == "none"
    for number, phase in enumerate(job.phases, start=1):
        name, epochs = f"{job.downstream} {phase.train}", phase.epochs
        if epochs > 1 and phase.train == "head" and features_once:
            head_alone = partial(_finetuning_step, session, job, number, from_features=True)
            total += (epochs - 1) * steps * made.per_step(f"{name} alone", head_alone)
            epochs = 1
        total += epochs * steps * made.per_step(name, partial(_finetuning_step, session, job, number))
    return total


def _pretraining_step(session: Session, job: Job, dataset: Dataset) -> float:
    pretext = session.machine.place(make_pretext(job.pretrain)).train()
    images = _images(dataset, packs.PackRule(size=job.pretrain.size), pretext.recipe.batch_size)
    return _timed(session, pretraining_stage(job.pretrain, pretext), {"images": images.to(session.machine.device)})


def _finetuning_step(session: Session, job: Job, number: int, from_features: bool = False) -> float:
    """Return the seconds per training step of a phase: on images, or on cached features of a frozen trunk."""
    downstream, model = make_model(job, make_pretext(job.pretrain).trunk, len(session.grid.data.classes))
    session.machine.place(model).set_mode(job.phases[number - 1].train)
    _, rule = pack_of(subset_of(downstream, job.settings), job.settings, job.size)
    images = _images(session.grid.data, rule.model_copy(update={"resize": "squash"}), job.settings.batch_size)
    batch = {"images": images.to(session.machine.device), "target": _targets(downstream, len(images), job.size, session)}
    if from_features:
        batch["features"] = model.frozen_features(batch.pop("images"))
    return _timed(session, phase_stage(job, model, downstream, number), batch)


def _targets(downstream: Downstream, count: int, size: int, session: Session) -> torch.Tensor:
    """Return targets of zeros: no class present, or background everywhere."""
    shape = (count, downstream.classes) if downstream.data == "labels" else (count, size, size)
    kind = torch.int8 if downstream.data == "labels" else torch.uint8
    return torch.zeros(shape, dtype=kind, device=session.machine.device)


def _images(dataset: Dataset, rule: packs.PackRule, count: int) -> torch.Tensor:
    """Return `count` decoded images of the data set, repeated when it has fewer: uint8 (count, 3, S, S)."""
    chosen = [dataset.images[place % len(dataset.images)] for place in range(count)]
    squares = [packs.fit(decode(dataset.path(image)), rule, rule.size)[0] for image in chosen]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def _timed(session: Session, stage: Stage, batch: Batch) -> float:
    """Return the seconds per training step, the mean of `TIMED` steps after `WARM` untimed ones."""
    for step in range(WARM):
        take_step(stage, session.machine, batch, step)
    _wait(session)
    started = time.monotonic()
    for step in range(TIMED):
        take_step(stage, session.machine, batch, step)
    _wait(session)
    return (time.monotonic() - started) / TIMED


def _wait(session: Session) -> None:
    if session.machine.device.type == "cuda":
        torch.cuda.synchronize(session.machine.device)
