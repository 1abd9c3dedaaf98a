"""`--plan`: what would run, what is there already, and how long the rest would take, measured on a few real steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

from bench import registry, seeding
from bench.cli.screen import Screen
from bench.data import packs, splits
from bench.data.dataset import Dataset, ImageFile, decode
from bench.experiment.finetuning import find
from bench.experiment.pretraining import find_pretrained, make_model, make_pretext
from bench.experiment.resolve import pack_of, subset_of
from bench.experiment.session import Session
from bench.experiment.tuning import Search, chosen_by, find_tuning, study_of
from bench.job import Job
from bench.models import batch_norm
from bench.record import Record, as_space

WARM, TIMED = 1, 2


def show(
    session: Session,
    screen: Screen,
    search: Search | None = None,
    planned: dict[str, int] | None = None,
    known: Sequence[Record] = (),
) -> float:
    """Print a line for each pretrained trunk and each run that a command would make or reuse; return the estimate in seconds.

    What is in `planned`, with a search's trials, is work of a plan before this one and not counted again; this plan's is added.
    `known` are records that lie elsewhere, and would be taken with their searches.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (("What", "left"), ("State", "left"), ("Estimate", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    total = 0.0
    for line in _lines(session, search, {} if planned is None else planned, known):
        total += line.seconds
        table.add_row(line.name, line.state, f"{line.seconds:,.0f} s" if line.seconds else "-")
    screen.table(table)
    screen.echo(f"{total:,.0f} s of training in all on this machine ({session.machine.device.type}), packing and scoring aside")
    return total


class _Line(NamedTuple):
    name: str
    state: str
    seconds: float = 0.0


def _lines(session: Session, search: Search | None, planned: dict[str, int], known: Sequence[Record]) -> list[_Line]:
    runs = {record.id for record in known}
    searches = {(record.tuning.study, record.tuning.budget): record.tuning for record in known if record.tuning}
    lines: dict[str, _Line] = {}
    measured: dict[str, float] = {}

    def per_step(key: str, measure: Callable[[], float]) -> float:
        if key not in measured:
            measured[key] = measure()
        return measured[key]

    def add(identity: str, name: str, state: str, seconds: Callable[[], float], times: int = 1) -> None:
        left = max(0, times - planned.get(identity, 0))
        planned[identity] = planned.get(identity, 0) + left
        lines[identity] = _Line(name, state, left * seconds()) if left else _Line(name, "above")

    def pretraining(job: Job) -> float:
        return per_step(job.pretrain.pretext, partial(_pretraining_step, job, session)) * _pretraining_steps(job, session)

    def finetuning(job: Job) -> float:
        total, steps = 0.0, _finetune_steps(job, session)
        new_parts = job.settings.calibration == "all" or job.transfer != "all" or not job.pretrain.recipe["epochs"]
        if new_parts and job.settings.statistics == "running":
            measured = min(steps, batch_norm.MEASURED // job.settings.batch_size)
            total += measured * per_step(f"{job.downstream} head", partial(_finetune_step, job, "head", session))
        for phase in job.phases:
            kind, epochs = f"{job.downstream} {phase.train}", phase.epochs
            if epochs > 1 and phase.train == "head" and _looks_once(job):
                total += (epochs - 1) * steps * per_step(f"{kind} alone", partial(_finetune_step, job, "head", session, True))
                epochs = 1
            total += epochs * steps * per_step(kind, partial(_finetune_step, job, phase.train, session))
        return total

    for job in session.grid.jobs:
        pretrain = job.pretrain
        if pretrain.id not in lines:
            if find_pretrained(pretrain, session.out) is not None:
                lines[pretrain.id] = _Line(pretrain.id, "pretrained")
            elif not pretrain.recipe["epochs"]:
                lines[pretrain.id] = _Line(pretrain.id, "no pretraining")
            else:
                add(pretrain.id, pretrain.id, _state(session, pretrain.id), partial(pretraining, job))
        chosen = job
        if search is not None:
            study = study_of(job, search, session.grid.jobs)
            tuning = find_tuning(study, search, session.out) or searches.get((study.id, search.trials))
            if study.id not in lines and tuning is not None:
                wider = tuning.wider([phase.train for phase in job.phases])
                edge = f", a rate at the edge of its range: --space {as_space(wider)} searches wider" if wider else ""
                lines[study.id] = _Line(f"  {study.id}", f"searched{edge}")
            elif study.id not in lines:
                trials = f"{search.trials} trials, fewer seconds when pruned"
                add(study.id, f"  {study.id}", trials, partial(finetuning, job), search.trials)
            if tuning is None:
                name = f"{pretrain.pretext}-{job.downstream}, rates not known yet"
                add(
                    f"{study.id} {search.trials} {job.id}",
                    f"  {name} (seed {job.seed}, {job.schedule})",
                    "to do",
                    partial(finetuning, job),
                )
                continue
            chosen = chosen_by(tuning, job)
        if chosen.id in runs or find(chosen, session.out) is not None:
            lines[chosen.id] = _Line(f"  {chosen.id}", "finished")
            continue
        name = f"  {chosen.id} (seed {job.seed}, {job.schedule})"
        add(chosen.id, name, _state(session, chosen.id), partial(finetuning, job))
    return list(lines.values())


def _looks_once(job: Job) -> bool:
    """Tell whether a frozen trunk looks at the images in the first epoch only, and the head alone is trained in the others."""
    return job.settings.statistics == "running" and job.settings.augment == "none"


def _state(session: Session, identity: str) -> str:
    return "interrupted, goes on" if (session.out / "work" / identity).is_dir() else "to do"


def _pretraining_steps(job: Job, session: Session) -> int:
    dataset = session.grid.pretrain_data
    assert dataset is not None, "a job that trains has data"
    count = len(splits.open_split(dataset, "pretraining", "images").ids("train"))
    recipe = job.pretrain.recipe
    return int(recipe["epochs"]) * seeding.steps_per_epoch(count, recipe["batch_size"])


def _finetune_steps(job: Job, session: Session) -> int:
    subset = subset_of(registry.load("downstreams", job.downstream), job.settings)
    split = splits.open_split(session.grid.data, job.settings.split, subset)
    split = splits.open_share(session.grid.data, split, job.labels)
    return seeding.steps_per_epoch(len(split.ids(*job.settings.fit)), job.settings.batch_size)


def _images(dataset: Dataset, rule: packs.PackRule, count: int) -> torch.Tensor:
    """Decode `count` of the data set's images, some twice when there are fewer: uint8 (count, 3, S, S)."""
    chosen: Sequence[ImageFile] = [dataset.images[place % len(dataset.images)] for place in range(count)]
    squares = [packs.fit(decode(dataset.path(image)), rule, rule.size)[0] for image in chosen]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def _pretraining_step(job: Job, session: Session) -> float:
    dataset = session.grid.pretrain_data
    assert dataset is not None, "a job that trains has data"
    pretext = session.machine.place(make_pretext(job.pretrain)).train()
    images = _images(dataset, packs.PackRule(size=job.pretrain.size), pretext.recipe.batch_size).to(session.machine.device)
    optimizers = pretext.optimizers()
    generator = torch.Generator(session.machine.device).manual_seed(0)

    def step() -> None:
        with session.machine.autocast():
            for player, loss in pretext.training_step(pretext.make_batch(images, generator)):
                optimizers[player].zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizers[player].step()

    return _timed(step, session)


def _finetune_step(job: Job, train: str, session: Session, looked: bool = False) -> float:
    pretext = make_pretext(job.pretrain)
    downstream, model = make_model(job, pretext.trunk, len(session.grid.data.classes))
    session.machine.place(model).set_mode("head" if train == "head" else "all")
    subset = subset_of(downstream, job.settings)
    _, rule = pack_of(subset, job.settings, job.size)
    images = _images(session.grid.data, rule.model_copy(update={"resize": "squash"}), job.settings.batch_size)
    images = images.to(session.machine.device)
    batch = {"features": model.look(images)} if looked else {"images": images}
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad])

    def step() -> None:
        with session.machine.autocast():
            loss = model(batch).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return _timed(step, session)


def _timed(step: Callable[[], None], session: Session) -> float:
    for _ in range(WARM):
        step()
    _wait(session)
    started = time.monotonic()
    for _ in range(TIMED):
        step()
    _wait(session)
    return (time.monotonic() - started) / TIMED


def _wait(session: Session) -> None:
    if session.machine.device.type == "cuda":
        torch.cuda.synchronize(session.machine.device)
