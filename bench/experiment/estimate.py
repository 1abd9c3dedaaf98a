"""How long jobs take: the steps of pretraining and of fine-tuning, and the images that are scored, times what each takes.

Left out are reading data, packing images and writing files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from bench import registry, seeding
from bench.contract import Batch, Downstream
from bench.data import packs, splits
from bench.data.dataset import Dataset, decode
from bench.experiment.finetuning import make_model, phase_stage
from bench.experiment.jobs import PARTS, pack_of, recipe_of, subset_of
from bench.experiment.leaks import pretraining_splits
from bench.experiment.pretraining import make_pretext, pretraining_stage, side_of
from bench.experiment.resolve import Grid
from bench.experiment.step_times import FEW, RUN, Kind, StepTimes, keep
from bench.job import Job, PretrainJob
from bench.models import batch_norm
from bench.record import PretrainRecord
from bench.training.loop import Stage
from bench.training.machine import Machine

FORWARD = 1 / 3
"""The share of a forward and backward pass that the forward pass takes, about."""
PRETEXT, ALL, HEAD, KEPT = 1.5, 1.1, 0.4, 0.03
"""What a step costs in passes of the trunk alone, about, where it cannot be timed: of a pretext task, of everything, of a head on
a frozen trunk, and of a head on features that are kept."""
NEW, NEW_KEPT = 0.75, 0.5
"""The same of a head with a new decoder, on a frozen encoder and on features that are kept of it."""
ENCODER = 0.5
"""The share of a trunk's pass that its encoder takes, about: classification does not decode."""
PROBE = 10.0
"""The seconds that a plan counts for a probe, whatever its data: an order of magnitude."""
ENOUGH = 50
"""The steps of a run after which the time of one is known."""
TILES = 4
"""Tiles of 256 px in a whole image of VOC."""
FREE = ("epochs", "lr", "batch_size", "visualize_epochs", "evaluation_images", "defaults_version")
"""The settings of a recipe on which the seconds of a step with some number of images do not depend."""
FREE_OF_PROTOCOL = (
    "schedules",
    "epochs",
    "metrics",
    "space",
    "batch_size",
    "fit",
    "split_scheme",
    "masks",
    "interpolation",
    "calibration",
)
"""The same of a protocol."""


@dataclass
class Estimate:
    """The seconds that the jobs of a grid take on a machine."""

    grid: Grid
    machine: Machine
    times: StepTimes

    def pretraining(self, job: Job) -> float:
        """Return the seconds of pretraining a job's trunk and of scoring it at its own task."""
        dataset, recipe = self.grid.pretrain_data, recipe_of(job.pretrain)
        if not recipe.epochs:
            return 0.0
        assert dataset is not None, "a job that trains has data"
        made = pretraining_splits(job.pretrain, self.grid, lambda text: None)
        count, scored = recipe.images or len(made.ids("train")), min(len(made.ids("test")), recipe.evaluation_images)
        batch = min(recipe.batch_size, max(1, count))
        step = self.times.step(pretext_kind(job.pretrain, dataset, self.machine), batch)
        return step * (recipe.epochs * seeding.steps_per_epoch(count, recipe.batch_size) + FORWARD * scored / batch)

    def finetuning(self, job: Job, trial: bool = False) -> float:
        """Return the seconds of a job's phases, or of its probe, of measuring batch-norm statistics before, and of scoring.

        A trial of a search is scored after each epoch, on the validation split.
        """
        if job.probe is not None:
            return PROBE
        data, settings = self.grid.data_of(job), job.settings
        subset = subset_of(registry.load("downstreams", job.downstream), settings, data)
        share = splits.open_share(data, splits.open_splits(data, settings.split_scheme, subset), job.labels)
        count = len(share.ids(*(name for name in settings.fit if not (trial and name == "val"))))
        steps, batch = seeding.steps_per_epoch(count, settings.batch_size), min(settings.batch_size, max(1, count))
        forward = self._forward(job, batch)
        scored = len(share.ids("val")) * sum(phase.epochs for phase in job.phases) if trial else len(share.ids("test"))
        total = forward * scored * (TILES if settings.evaluate_on == "whole" else 1) / batch
        new_parts = settings.calibration == "all" or job.transfer != "all" or not recipe_of(job.pretrain).epochs
        if new_parts and settings.statistics == "running":
            total += min(steps, batch_norm.MEASURED // settings.batch_size) * forward
        features_once = settings.statistics == "running" and settings.augmentation == "none"
        left = settings.most_steps or math.inf
        for number, phase in enumerate(job.phases, start=1):
            epochs = min(phase.epochs, left / max(1, steps))
            left -= epochs * steps
            if epochs > 1 and phase.train == "head" and features_once:
                kept = phase_kind(job, number, data, self.machine, from_features=True)
                total += (epochs - 1) * steps * self.times.step(kept, batch)
                epochs = 1
            if epochs:
                total += epochs * steps * self.times.step(phase_kind(job, number, data, self.machine), batch)
        return total

    def _forward(self, job: Job, batch: int) -> float:
        """Return the seconds of a forward pass of trunk and head on a batch."""
        number = next((number for number, phase in enumerate(job.phases, start=1) if phase.train == "head"), 1)
        step = self.times.step(phase_kind(job, number, self.grid.data_of(job), self.machine), batch)
        return step if job.phases[number - 1].train == "head" else FORWARD * step


def pretext_kind(job: PretrainJob, dataset: Dataset, machine: Machine) -> Kind:
    """Return the kind of training step that a pretraining job makes."""
    recipe = {name: value for name, value in job.recipe.items() if name not in FREE}
    facts = {"version": job.version, "source": job.source, "recipe": recipe}
    return Kind(job.pretext, job.trunk, job.size, PRETEXT, partial(_pretext_step, job, dataset, machine), facts)


def learn(made: PretrainRecord, dataset: Dataset, machine: Machine) -> None:
    """Keep how long a training step of a finished pretraining took, for later plans; nothing after a few steps."""
    recipe = recipe_of(made.job)
    steps = recipe.epochs * seeding.steps_per_epoch(made.data.counts["train"], recipe.batch_size) if made.data else 0
    if steps >= ENOUGH:
        keep(machine, pretext_kind(made.job, dataset, machine), {recipe.batch_size: made.cost.seconds / steps}, RUN)


def phase_kind(job: Job, number: int, dataset: Dataset, machine: Machine, from_features: bool = False) -> Kind:
    """Return the kind of training step of phase `number` of a job, on images or on kept features of a frozen trunk."""
    train = job.phases[number - 1].train
    new = job.frozen == "encoder" and train == "head"
    frozen, kept = (NEW, NEW_KEPT) if new else (HEAD, KEPT)
    passes = kept if from_features else frozen if train == "head" else ALL
    if registry.load("downstreams", job.downstream).data == "labels":
        passes *= ENCODER
    part = "a new decoder and the head" if new else "the head" if from_features else PARTS[train]
    name = f"{job.downstream}, {part}{' on kept features' if from_features else ''}"
    settings = {name: value for name, value in job.settings.identity().items() if name not in FREE_OF_PROTOCOL}
    facts = {"version": job.version, "source": job.source, "settings": settings, "classes": len(dataset.classes)}
    facts |= {"frozen": job.frozen} if new else {}
    make = partial(_phase_step, job, number, dataset, machine, from_features)
    return Kind(name, job.pretrain.trunk, job.size, passes, make, facts)


def _pretext_step(job: PretrainJob, dataset: Dataset, machine: Machine, size: int) -> tuple[Stage, Callable[[int], Batch]]:
    job = job.model_copy(update={"size": size})
    pretext = replace(machine, compiled=False).place(make_pretext(job)).train()
    images = _images(dataset, packs.PackRule(size=side_of(job))).to(machine.device)
    return pretraining_stage(job, pretext), lambda count: {"images": _repeated(images, count)}


def _phase_step(
    job: Job, number: int, dataset: Dataset, machine: Machine, from_features: bool, size: int
) -> tuple[Stage, Callable[[int], Batch]]:
    own = job.settings.model_copy(update={"batch_size": FEW})  # frozen features are computed for whole batches
    job = job.model_copy(update={"settings": own, "size": size})
    downstream, model = make_model(job, make_pretext(job.pretrain).trunk, len(dataset.classes))
    replace(machine, compiled=False).place(model).set_mode(job.phases[number - 1].train)
    _, rule = pack_of(subset_of(downstream, job.settings, dataset), job.settings, size)
    images = _images(dataset, rule.model_copy(update={"resize": "squash"})).to(machine.device)

    def batch_of(count: int) -> Batch:
        batch = {"images": _repeated(images, count), "target": _targets(downstream, count, size).to(machine.device)}
        if from_features:
            batch["features"] = model.frozen_features(batch.pop("images"))
        return batch

    return phase_stage(job, model, downstream, number), batch_of


def _targets(downstream: Downstream, count: int, size: int) -> torch.Tensor:
    """Return targets: no class present, background everywhere, or one box in the middle."""
    if downstream.data == "labels":
        return torch.zeros(count, downstream.classes, dtype=torch.int8)
    if downstream.data == "boxes":
        return torch.tensor([[[0, size / 4, size / 4, 3 * size / 4, 3 * size / 4, 0]]]).expand(count, -1, -1)
    return torch.zeros(count, size, size, dtype=torch.uint8)


def _images(dataset: Dataset, rule: packs.PackRule) -> torch.Tensor:
    """Return the first `FEW` images of a data set, decoded: uint8 (FEW, 3, S, S); its last once more where it has fewer."""
    chosen = [dataset.images[min(place, len(dataset.images) - 1)] for place in range(FEW)]
    squares = [packs.fit(decode(dataset.path(image)), rule, rule.size)[0] for image in chosen]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def _repeated(images: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` images, those given over and over."""
    return images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
