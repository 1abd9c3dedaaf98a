"""Fine-tuning: a pretrained trunk and a new head are trained through the phases of a job. No result is published here."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from bench import metrics, registry, seeding
from bench.contract import Batch, Downstream, Trunk
from bench.data import batches
from bench.data.batches import SplitData
from bench.errors import Diverged
from bench.experiment import calibration
from bench.experiment.calibration import Calibrated
from bench.experiment.pretraining import load_trunk, subject, work_folder
from bench.experiment.session import Session
from bench.experiment.task_data import TaskData, open_task_data
from bench.feature_spread import FeatureSpread
from bench.job import Job
from bench.models.network import Model
from bench.optimization import make_optimizer
from bench.protocol import Phase
from bench.record import PretrainRecord
from bench.schema import canonical
from bench.seeding import key
from bench.training import checkpoint, loggers
from bench.training.energy import Meter
from bench.training.evaluation import predict
from bench.training.loop import History, Logger, Stage, train


@dataclass
class FineTuning:
    """One fine-tuning: its network, its data, and its losses, cost and measured statistics so far."""

    job: Job
    pretrained: PretrainRecord
    session: Session
    downstream: Downstream
    model: Model
    data: TaskData
    work: Path
    """The folder of checkpoints."""
    after_epoch: AfterEpoch | None
    scored: SplitData
    """The scored split, with cached features while the trunk is frozen."""
    calibrated: Calibrated = field(default_factory=Calibrated)
    spread: FeatureSpread | None = None
    logger: Logger = field(init=False)
    losses: list[list[float]] = field(default_factory=list)
    """The mean loss of each epoch, by phase."""
    history: History = field(default_factory=History)
    states: list[str] = field(default_factory=list)
    """For each phase, the key of its trained network in the session's cache."""
    features: str = ""
    """Which features of the trunk a probe reads; "" for the head's input."""
    trunk_state: dict[str, Any] = field(default_factory=dict)
    """What has changed the trunk since pretraining: measured batch-norm statistics, or the phases that trained the trunk."""

    def predictions(self) -> dict[str, NDArray[Any]]:
        """Return the predictions for every scored image."""
        self.session.doing(f"scoring {self.job.downstream} on {len(self.scored):,} images")
        self.model.set_mode("nothing")
        return predict(self.model, self.downstream, self.scored, self.session.machine)

    def score(self, epoch: int, known: float | None = None) -> float | None:
        """Return the score after an epoch of the current phase, by `after_epoch`; None when no score is asked for."""
        done = sum(len(losses) for losses in self.losses)
        return None if self.after_epoch is None else self.after_epoch(self, done + epoch, known)

    def cache_key(self, split: SplitData, **more: Any) -> str:
        """Return a digest of pretrained trunk, task, data and machine, on which features depend, and of `more`.

        What has changed the trunk since pretraining (`trunk_state`) is not in it unless the caller gives it in `more`.
        """
        job = self.job
        origin = {
            "weights": self.pretrained.weights,
            "trunk": self.pretrained.id,
            "transfer": [job.transfer, job.frozen],
            "downstream": [job.downstream, job.version, job.source],
            "settings": job.settings.model_copy(update={"metrics": ()}) if self.features else job.settings,
            "size": job.size,
            "data": [split.pack.folder.name, split.augmentation, _seed_of(split)],
            "machine": self.session.machine.describe(),
            "features": self.features,
        }
        return hashlib.sha256(canonical(to_jsonable_python({**origin, **more})).encode()).hexdigest()

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the seconds and joules of the block to the cost of training."""
        began, meter = time.monotonic(), Meter(self.session.machine.device)
        yield
        self.history.add(History(seconds=time.monotonic() - began, joules=meter.joules()))


AfterEpoch = Callable[[FineTuning, int, float | None], float]
"""Scores a network: (fine-tuning, epoch counted over all phases, score if an equal phase already has it, else None) -> score."""


@dataclass(frozen=True)
class _TrainedPhase:
    """A trained phase: the weights of what it trained, its losses and cost, and the scores that were asked for."""

    weights: dict[str, torch.Tensor]
    history: History
    scores: dict[int, float]


def finetune(
    job: Job, pretrained: PretrainRecord, session: Session, after_epoch: AfterEpoch | None = None, work: Path | None = None
) -> FineTuning:
    """Fine-tune a pretrained trunk through the phases of a job; checkpoints stay in `work`, by default the job's `work_folder`.

    With `after_epoch`, every epoch is scored, as in a trial of a search; without it, the spread of the features is measured. A
    phase is not trained again when this command has trained an equal phase before, on an equal network after equal phases, unless
    losses are logged or the kept phase lacks scores.
    """
    session.cache.begin()
    downstream, model = make_model(job, own_trunk(job, pretrained, session), len(session.grid.data_of(job).classes))
    session.machine.place(model)
    data = open_task_data(job, downstream, session)
    work = work or work_folder(job, session.out)
    run = FineTuning(job, pretrained, session, downstream, model, data, work, after_epoch, data.scored)
    with run.timed():
        measure_norms(run)
    if after_epoch is None and session.machine.world.leads:
        run.spread = calibration.feature_spread(job, data.training, model, session, run.calibrated)
    tools = session.config.log if session.machine.world.leads else ()
    with loggers.opened(tools, session.screen, subject(job, session, work), session.logged) as run.logger:
        for number, phase in enumerate(job.phases, start=1):
            _train_phase(run, number, phase)
    return run


def make_model(job: Job, trunk: Trunk, classes: int) -> tuple[Downstream, Model]:
    """Return the downstream task and its network: the given trunk, and a new head initialised from the job's seed."""
    downstream = cast(Downstream, registry.load("downstreams", job.downstream)(job.settings, classes))
    torch.manual_seed(key("head", job.downstream, job.seed))
    return downstream, Model(trunk, downstream.head(trunk, job.size), downstream, job.frozen)


def phase_stage(job: Job, model: Model, downstream: Downstream, number: int) -> Stage:
    """Return the stage that trains phase `number` of a job, counted from 1."""
    phase = job.phases[number - 1]
    module = model.trained(phase.train)
    seed = key("phase", number, job.seed)

    def training_step(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
        yield "loss", downstream.loss(model(batch), batch["target"])

    return Stage(
        name=f"{job.downstream} phase {number} ({f'frozen {job.frozen}' if phase.train == 'head' else 'everything'})",
        key=seeding.PHASE[phase.train].format(downstream=job.downstream, number=number),
        module=module,
        optimizers={"loss": make_optimizer(job.settings, phase.lr, module)},
        optimization=job.settings,
        training_step=training_step,
        make_batch=lambda batch, _: batch,
        batch_size=job.settings.batch_size,
        epochs=phase.epochs,
        seed=seed,
        facts={"id": job.id, "phase": number},
        networks=(model,),
    )


def steps_left(job: Job, number: int, images: int) -> int | None:
    """Return how many training steps phase `number` of a job has at most, after those of the phases before; None: no limit."""
    if job.settings.most_steps is None:
        return None
    before = sum(phase.epochs for phase in job.phases[: number - 1])
    return max(0, job.settings.most_steps - before * seeding.steps_per_epoch(images, job.settings.batch_size))


def own_trunk(job: Job, pretrained: PretrainRecord, session: Session) -> Trunk:
    """Return a copy of the pretrained trunk for this job; its file is read once per command."""
    name = f"{pretrained.id} {job.transfer}"
    trunk: Trunk | None = session.cache.state(name)
    if trunk is None:
        trunk = load_trunk(job, pretrained, session.out)
        session.cache.keep(name, trunk, checkpoint.bytes_of(trunk))
    return copy.deepcopy(trunk)


def measure_norms(run: FineTuning) -> None:
    """Measure the batch-norm statistics that the protocol asks for, once per command for the same trunk and images."""
    training = run.data.training
    images = [_rows_digest(training), _seed_of(training)]
    calibration_key = run.cache_key(training, calibrated=images)
    known: tuple[Calibrated, dict[str, torch.Tensor]] | None = run.session.cache.state(calibration_key)
    if known is None:
        known = calibration.calibrate(run.job, training, run.model, run.session)
        run.session.cache.keep(calibration_key, known, sum(tensor.nbytes for tensor in known[1].values()))
    run.calibrated, buffers = known
    for name, buffer in run.model.trunk.named_buffers():
        if name in buffers:
            buffer.copy_(buffers[name])
    if run.calibrated.norms:
        run.trunk_state = {"calibrated": images}


def _train_phase(run: FineTuning, number: int, phase: Phase) -> None:
    """Train phase `number`, or take its network, losses and scores from an equal phase that this command has trained.

    A frozen trunk's features are computed once, for the images that are scored after every epoch and for training images that are
    read more than once without augmentation. With --log the phase is always trained, so that its losses are written.
    """
    cache, training = run.session.cache, run.data.training
    facts = {"rows": _rows_digest(training), "phases": run.job.phases[:number], "seed": run.job.seed}
    phase_key = run.cache_key(training, **facts)
    run.states.append(phase_key)
    run.model.set_mode(phase.train)
    known: _TrainedPhase | None = None if run.session.config.log else cache.state(phase_key)
    if known is not None and run.after_epoch is not None and len(known.scores) < len(known.history.epochs):
        known = None
    if not run.session.machine.world.every(known is not None):
        known = None
    with run.timed():
        run.scored = run.data.scored
        features = phase.train == "head" and run.job.settings.statistics == "running"
        if features and run.after_epoch is not None and run.job.settings.evaluate_on == "input":
            run.scored = with_features(run, run.data.scored)
        if features and (run.after_epoch is not None or phase.epochs > 1) and training.augmentation == "none" and known is None:
            training = with_features(run, training)
    module = run.model.trained(phase.train)
    if known is None:
        stage = phase_stage(run.job, run.model, run.downstream, number)
        scores: dict[int, float] = {}
        stage.after_epoch = partial(_score_epoch, run, phase, scores)
        training = dataclasses.replace(training, seed=stage.seed)
        stage.most_steps = steps_left(run.job, number, len(training))
        try:
            history = train(stage, training, run.session.machine, run.work / f"phase-{number}", run.logger)
        except Diverged as error:
            error.images += run.history.images
            raise
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}
        known = _TrainedPhase(weights, history, scores)
        cache.keep(phase_key, known, sum(tensor.nbytes for tensor in weights.values()))
    else:
        module.load_state_dict(known.weights)
        for epoch, score in known.scores.items():
            run.score(epoch, score)
    run.losses.append([epoch["loss"] for epoch in known.history.epochs])
    run.history.add(known.history)
    if phase.train == "all":
        run.trunk_state = facts


def _score_epoch(run: FineTuning, phase: Phase, scores: dict[int, float], epoch: int) -> None:
    score = run.score(epoch)
    if score is not None:
        scores[epoch] = score
        run.logger.values(epoch - 1, {f"validation/{metrics.get(run.job.settings.metrics[0]).key}": score})
        run.model.set_mode(phase.train)


def with_features(run: FineTuning, split: SplitData) -> SplitData:
    """Return a split with the frozen trunk's features of its images, when there is room for them."""
    run.session.doing(f"computing the features of {len(split):,} images for {run.job.downstream}, once")
    if run.job.frozen == "encoder" and not run.model.shapes and len(split):
        run.model.frozen_features(batches.to_device(split[0, np.arange(1)], run.session.machine.device)["images"])
    features_key = run.cache_key(split, **run.trunk_state)
    return run.session.cache.with_features(split, features_key, run.model.frozen_features, run.job.settings.batch_size)


def _rows_digest(split: SplitData) -> str:
    return hashlib.sha256(split.rows.tobytes()).hexdigest()


def _seed_of(split: SplitData) -> int:
    """Return the seed of a split's augmentation; 0 without augmentation, where images do not depend on the seed."""
    return split.seed if split.augmentation != "none" else 0
