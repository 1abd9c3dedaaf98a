"""The one training loop: pretext tasks and the phases of downstream tasks alike.

A step reads a batch, makes a view of it and gives each player its turn. Every step seeds torch from (seed, stage, step), so
dropout and masks are the same after a resume, and data order is a pure function of the seed (`bench.seeding`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bench import seeding
from bench.contract import Batch
from bench.data import batches
from bench.errors import BenchError, DataError, Diverged, MachineError, out_of_memory
from bench.training import checkpoint
from bench.training.energy import Meter
from bench.training.machine import Machine


class Watcher(Protocol):
    """Who is told how training goes."""

    def stage(self, name: str, epochs: int, steps: int, done: int) -> None:
        """A stage of `epochs` x `steps` begins, with `done` steps behind it."""

    def step(self, epoch: int, losses: dict[str, float] | None, images: int) -> None:
        """A step is done; losses are told when they are known without waiting for the device."""

    def epoch(self, epoch: int, losses: dict[str, float], seconds: float, images: int) -> None:
        """An epoch is done."""


@dataclass
class Stage:
    """One stretch of training: what is trained, who plays, on which images, for how long."""

    name: str
    module: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    training_step: Callable[[Batch], Iterator[tuple[str, Tensor]]]
    make_batch: Callable[[Batch, torch.Generator], Batch]
    part: batches.Part
    batch_size: int
    epochs: int
    seed: int
    facts: dict[str, Any] = field(default_factory=dict)
    """What a checkpoint must agree with to be resumed."""
    after_epoch: Callable[[int], None] = lambda epoch: None


@dataclass
class History:
    """What training left: mean losses of each epoch, and what it cost."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    joules: float | None = None

    def add(self, other: History) -> None:
        """Add another stage's cost."""
        self.seconds += other.seconds
        self.images += other.images
        if other.joules is not None:
            self.joules = (self.joules or 0.0) + other.joules


LOSSES_KEPT = 50
"""Steps whose losses stay on the device before they are read: one wait for all of them."""


def train(stage: Stage, machine: Machine, folder: Path, watcher: Watcher) -> History:
    """Train a stage to its end, from its checkpoint in `folder` when there is one; return its history.

    A checkpoint is written every `machine.checkpoint_seconds`, so what is lost by a kill is never more, and short stages
    write none.

    Raises Diverged at the first loss that is not a number, DataError for a checkpoint of another job, MachineError when memory
    runs out, and Interrupted after a signal, with a checkpoint on the disk.
    """
    history, step, sums = History(), 0, _Sums(list(stage.optimizers))
    facts = checkpoint.load(folder, stage.module, stage.optimizers)
    if facts is not None:
        different = [name for name in stage.facts if facts["stage"].get(name) != stage.facts[name]]
        if different:
            raise DataError(f"{folder} holds a checkpoint of another job ({', '.join(different)} differ); remove it.")
        step = facts["step"]
        history = History(**facts["history"])
        sums.restore(facts["sums"])
    per_epoch = seeding.steps_per_epoch(len(stage.part), stage.batch_size)
    if stage.epochs and not per_epoch:
        raise DataError(f"{stage.name} has {len(stage.part)} images to train on; at least 2 are needed.")
    watcher.stage(stage.name, stage.epochs, per_epoch, step)
    started = saved = time.monotonic()
    epoch_started = started
    before, joules_before, meter = history.seconds, history.joules or 0.0, Meter(machine.device)

    def measure() -> None:
        history.seconds = before + time.monotonic() - started
        used = meter.joules()
        history.joules = None if used is None else joules_before + used

    def save() -> None:
        sums.read(step)
        measure()
        state = dataclasses.asdict(history)
        checkpoint.save(
            folder,
            stage.module,
            stage.optimizers,
            {"step": step, "stage": stage.facts, "history": state, "sums": sums.state()},
        )

    workers = machine.data_workers(stage.part.change != "none")
    stream = batches.training(stage.part, stage.batch_size, stage.seed, stage.epochs, step, workers, machine.device)
    try:
        for epoch, raw in stream:
            losses = _step(stage, machine, raw, step)
            step += 1
            count = len(raw["features"] if "features" in raw else raw["images"])
            history.images += count
            sums.add(losses, count)
            if step % LOSSES_KEPT == 0 or machine.device.type == "cpu":
                sums.read(step)
            watcher.step(epoch, sums.latest, count)
            if step % per_epoch == 0:
                sums.read(step)
                history.epochs.append(sums.means())
                watcher.epoch(epoch, history.epochs[-1], time.monotonic() - epoch_started, sums.images)
                sums.clear()
                epoch_started = time.monotonic()
                stage.after_epoch(epoch + 1)
                looked = time.monotonic()
                machine.notice()
                started += time.monotonic() - looked  # is no training
            if machine.stop.signal_number or time.monotonic() - saved >= machine.checkpoint_seconds:
                save()
                saved = time.monotonic()
                machine.stop.check()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MachineError(
            f"out of memory in {stage.name} with batches of {stage.batch_size}; "
            f"try a batch size of {max(1, stage.batch_size // 2)}."
        ) from error
    measure()
    return history


def _step(stage: Stage, machine: Machine, raw: Batch, step: int) -> dict[str, Tensor]:
    seed = seeding.key(stage.name, stage.seed, step)
    torch.manual_seed(seed)
    generator = torch.Generator(device=machine.device).manual_seed(seed)
    losses: dict[str, Tensor] = {}
    with machine.autocast():
        turns = stage.training_step(stage.make_batch(raw, generator))
        for player, loss in turns:
            if player not in stage.optimizers:
                raise BenchError(f"{stage.name} gives a turn to {player!r}, who is not a player ({', '.join(stage.optimizers)}).")
            optimizer = stage.optimizers[player]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(machine.device.type, enabled=False):
                loss.float().backward()  # type: ignore[no-untyped-call]
                _lay_out_gradients(optimizer)
                optimizer.step()
            torch.clear_autocast_cache()  # the next turn sees this player's new weights, not their old casts
            losses[player] = losses.get(player, 0) + loss.detach().float()
    return losses


def _lay_out_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Give each gradient the strides of its parameter where a hook or a compiler left others.

    On a CPU `Adam(fused=True)` pairs the numbers of parameter, gradient and moments by their places in memory alone.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride() and not gradient.is_sparse:
                parameter.grad = torch.empty_like(parameter).copy_(gradient)


class _Sums:
    """Losses summed over an epoch, read from the device many steps at a time."""

    def __init__(self, optimizers: list[str]) -> None:
        self.optimizers = optimizers
        self.waiting: list[tuple[Tensor, int]] = []
        self.latest: dict[str, float] | None = None
        self.clear()

    def clear(self) -> None:
        self.totals, self.images = dict.fromkeys(self.optimizers, 0.0), 0

    def add(self, losses: dict[str, Tensor], count: int) -> None:
        zero = next(iter(losses.values())) * 0 if losses else torch.zeros(())
        self.waiting.append((torch.stack([losses.get(player, zero) for player in self.optimizers]), count))

    def read(self, step: int) -> None:
        if not self.waiting:
            return
        values = torch.stack([losses for losses, _ in self.waiting]).tolist()
        first = step - len(values)
        for place, (row, (_, count)) in enumerate(zip(values, self.waiting, strict=True)):
            for player, value in zip(self.optimizers, row, strict=True):
                if not math.isfinite(value):
                    raise Diverged(
                        f"the loss of {player} is {value} at step {first + place + 1}; a smaller learning rate may help."
                    )
                self.totals[player] += value * count
            self.images += count
        self.latest = dict(zip(self.optimizers, values[-1], strict=True))
        self.waiting.clear()

    def means(self) -> dict[str, float]:
        return {player: total / max(1, self.images) for player, total in self.totals.items()}

    def state(self) -> dict[str, Any]:
        return {"totals": self.totals, "images": self.images}

    def restore(self, state: dict[str, Any]) -> None:
        self.totals, self.images = dict(state["totals"]), state["images"]
