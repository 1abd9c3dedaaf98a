"""The training loop of all stages: pretraining and the phases of fine-tuning.

A training step reads images, makes a batch for the task from them, and lets each optimizer update its weights. Torch is seeded at
every step from (key of the stage, seed, step), so dropout and random masks are the same after a resume. Data order is a pure
function of the seed (`bench.seeding`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import seeding
from bench.contract import Batch
from bench.data import batches
from bench.data.batches import SplitData
from bench.errors import BenchError, DataError, Diverged, OutOfMemory, out_of_memory
from bench.models import split_calls
from bench.models.shards import Shards, whole
from bench.protocol import Optimization
from bench.training import checkpoint, shared_steps, updates
from bench.training.energy import Meter
from bench.training.losses import Sums
from bench.training.machine import Machine

LOSSES_KEPT = 50
"""On a GPU, losses are read once in this many training steps, so that training seldom waits for the GPU."""
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 30.0, 0.01
"""The least seconds between checkpoints, and the most of the time that they may take, where the user does not say how often."""
BYTES_PER_SECOND = 200e6
"""How fast a checkpoint is written, until the first one has been timed: hashed, flushed to the disk, on a slow disk."""


class Logger(Protocol):
    """What the training loop reports to: the screen, or a logger that also keeps what it is told (`bench.training.loggers`)."""

    def stage(self, name: str, epochs: int, steps: int, done: int) -> None:
        """Begin a stage of `epochs` x `steps` training steps, of which the first `done` were made before."""

    def step(self, epoch: int, losses: dict[str, float] | None, images: int) -> None:
        """End a training step on `images` images; `losses` are the latest that were read from the device, if any."""

    def losses(self, step: int, losses: dict[str, float]) -> None:
        """Note the losses of training step number `step`, counted from 1: once each, in order, when read from the device."""

    def epoch(self, epoch: int, losses: dict[str, float], seconds: float, images: int) -> None:
        """End an epoch: its mean losses, the seconds since the last epoch ended (with scoring), and its number of images."""

    def values(self, epoch: int, values: dict[str, float]) -> None:
        """Note other values after an epoch, by name: learning rates, scores of the validation split."""

    def figure(self, epoch: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Note a figure after an epoch: uint8 (H, W, 3)."""


@dataclass
class Stage:
    """One stretch of training, pretraining or a phase of fine-tuning: what is trained, how, and for how long."""

    name: str
    """The stage's name on the screen."""
    key: str
    """The key that seeds the stage's training steps (`bench.seeding`); never the name, which may change."""
    module: nn.Module
    optimizers: dict[str, torch.optim.Optimizer]
    training_step: Callable[[Batch], Iterator[tuple[str, Tensor]]]
    make_batch: Callable[[Batch, torch.Generator], Batch]
    batch_size: int
    epochs: int
    seed: int
    optimization: Optimization = field(default_factory=Optimization)
    """How rates go on from step to step, how gradients are clipped, and in how many parts a batch is computed."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What identifies the stage: a checkpoint is resumed only if it was saved with the same values."""
    before_step: Callable[[float], None] = lambda share: None
    """Called before every training step with the share of the stage's steps that are done."""
    after_epoch: Callable[[int], None] = lambda epoch: None
    """Called after every epoch with the number of epochs done; its time is part of the cost of training."""
    watch: Callable[[int], None] = lambda epoch: None
    """Called like `after_epoch`, and outside of the cost of training; it must change nothing that training reads."""
    most_steps: int | None = None
    """After how many training steps training ends, if its epochs have more."""
    networks: Sequence[nn.Module] = ()
    """The networks whose calls are split by images on several devices."""


@dataclass
class History:
    """The mean losses of each epoch, by optimizer, and the cost of training."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    joules: float | None = None

    def add(self, other: History) -> None:
        """Add another stage's cost to this one."""
        self.seconds += other.seconds
        self.images += other.images
        if other.joules is not None:
            self.joules = (self.joules or 0.0) + other.joules


def train(stage: Stage, split: SplitData, machine: Machine, folder: Path, logger: Logger) -> History:
    """Train a stage on a split to its end, from its checkpoint in `folder` when there is one; return its history.

    A checkpoint is written after the first step that ends `machine.checkpoint_seconds` after the last checkpoint, so a kill loses
    about that much of a stage's training. A stage that is shorter writes none. Where that is None it is `CHECKPOINT_SECONDS`, or
    more when checkpoints would take more than `CHECKPOINT_SHARE` of the time.

    Raises Diverged for a loss that is not finite, DataError for a checkpoint of another job, OutOfMemory when memory runs out,
    and Interrupted after a signal, with a checkpoint on the disk.
    """
    world, shards = machine.world, machine.world.shards()
    state = _Progress(stage, machine, folder, logger)
    per_epoch = seeding.steps_per_epoch(len(split), stage.batch_size)
    if stage.epochs and not per_epoch:
        raise DataError(f"{stage.name} has {len(split)} images to train on; at least 2 are needed.")
    with state.paused():  # the tools of --log may take seconds to begin
        logger.stage(stage.name, stage.epochs, per_epoch, state.step)
    total = min(per_epoch * stage.epochs, stage.most_steps if stage.most_steps is not None else sys.maxsize)
    rates = updates.Rates(stage.optimizers, stage.optimization, stage.batch_size, per_epoch, stage.epochs, most=stage.most_steps)
    workers, settled = machine.data_workers(split.augmentation != "none"), False
    stream = batches.training(split, stage.batch_size, stage.seed, stage.epochs, state.step, workers, machine.device, shards)
    with _named_out_of_memory(stage), _counted(state.history):
        for epoch, batch in islice(stream, max(0, total - state.step)):
            count = len(batch["features"] if "features" in batch else batch["images"])
            rates.set(state.step)
            stage.before_step(state.step / total)
            if shards and not settled:
                shared_steps.settle(stage, machine, batch, state.step, shards, take_step)
                settled = True
            state.add(take_step(stage, machine, batch, state.step, shards), count)
            logger.step(epoch, state.sums.latest, count)
            if state.step % per_epoch == 0 or state.step == total:
                logger.epoch(epoch, *state.end_epoch())
                logger.values(epoch, _rates(stage.optimizers))
                stage.after_epoch(epoch + 1)
                with state.paused():
                    stage.watch(epoch + 1)
                    machine.notice()
            if world.share(bool(machine.stop.signal_number) or state.checkpoint_is_due()):
                state.save()
                machine.check()
    if shards:
        _check_alike(stage, shards)
    state.measure()
    return state.history


def _check_alike(stage: Stage, shards: Shards) -> None:
    """Raise BenchError where the processes that trained a stage together do not have the same weights."""
    sums = [weight.detach().double().abs().sum() for weight in stage.module.parameters()]
    own = torch.stack(sums) if sums else torch.zeros(1)
    everyone = shards.gathered(own[None], shards.count)
    if not torch.equal(everyone, own.expand_as(everyone)):
        raise BenchError(f"the processes that trained {stage.name} together have different weights; please report this.")


def _rates(optimizers: dict[str, torch.optim.Optimizer]) -> dict[str, float]:
    """Return the learning rates by optimizer, numbered where an optimizer has several groups of weights."""
    rates: dict[str, float] = {}
    for name, optimizer in optimizers.items():
        many = len(optimizer.param_groups) > 1
        groups = enumerate(optimizer.param_groups, start=1)
        rates |= {f"learning rate/{name}" + f" {place}" * many: float(group["lr"]) for place, group in groups}
    return rates


def take_step(stage: Stage, machine: Machine, batch: Batch, step: int, shards: Shards | None = None) -> dict[str, Tensor]:
    """Make one training step and return its losses by optimizer; `batch` is on the device: images or features, and any target.

    On several devices each has the whole batch, and `shards` splits the calls of the stage's networks.

    With `accumulate` the gradients of a batch's parts are added up before each update, with the parts' shares as weights. What
    the task does after its last yield it then does once, for the first part.
    """
    seed = seeding.key(stage.key, stage.seed, step)
    torch.manual_seed(seed)
    generator = torch.Generator(device=machine.device).manual_seed(seed)
    losses: dict[str, Tensor] = {}
    parts, shares = updates.parts_of(batch, stage.optimization.accumulate)
    with machine.autocast():
        made = [stage.make_batch(part, generator) for part in parts]
    with machine.autocast(), split_calls.split(shards, stage.networks) if shards else contextlib.nullcontext():
        first, *others = map(stage.training_step, made)
        for name, loss in first:
            if name not in stage.optimizers:
                raise BenchError(
                    f"{stage.name} yields a loss for {name!r}, which is none of its optimizers: {', '.join(stage.optimizers)}."
                )
            optimizer = stage.optimizers[name]
            optimizer.zero_grad(set_to_none=True)
            found = _backward(loss, shares[0], machine)
            for other, share in zip(others, shares[1:], strict=True):
                found = found + _backward(updates.next_loss(other, name, stage.name), share, machine)
            with torch.autocast(machine.device.type, enabled=False):
                if shards:
                    shards.reduce(optimizer)
                updates.lay_out_gradients(optimizer)
                updates.clip(optimizer, stage.optimization.clip)
                optimizer.step()
            torch.clear_autocast_cache()  # the next loss sees the new weights, not casts of the old ones
            losses[name] = losses.get(name, 0) + found
    return losses


def _backward(loss: Tensor, share: float, machine: Machine) -> Tensor:
    """Add the gradients of a part's loss, and return that part's addend to the loss of the whole batch."""
    with torch.autocast(machine.device.type, enabled=False):
        loss = whole(loss)
        weighted = loss.float() if share == 1 else loss.float() * share
        weighted.backward()  # type: ignore[no-untyped-call]
        return weighted.detach()


@contextmanager
def _named_out_of_memory(stage: Stage) -> Iterator[None]:
    """Turn an out-of-memory error inside the block into an OutOfMemory that names the stage and a smaller batch size to try."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        half = max(1, stage.batch_size // 2)
        raise OutOfMemory(
            f"out of memory in {stage.name} with batches of {stage.batch_size}; try a batch size of {half}."
        ) from error


@contextmanager
def _counted(history: History) -> Iterator[None]:
    """Say in a Diverged error how many images the stage was trained on."""
    try:
        yield
    except Diverged as error:
        error.images = history.images
        raise


class _Progress:
    """How far the training of a stage is: step, losses and cost so far, read from the stage's checkpoint when there is one."""

    def __init__(self, stage: Stage, machine: Machine, folder: Path, logger: Logger) -> None:
        self.stage, self.machine, self.folder, self.logger = stage, machine, folder, logger
        self.step, self.history, self.sums = 0, History(), Sums(list(stage.optimizers), machine.device)
        facts = checkpoint.load(folder, stage.module, stage.optimizers)
        if machine.world.share(facts and facts["step"]) != (facts and facts["step"]):
            raise DataError(f"{folder} has another checkpoint on another machine of this run; all must have one output folder.")
        if facts is not None:
            different = [name for name in stage.facts if facts["stage"].get(name) != stage.facts[name]]
            if different:
                raise DataError(
                    f"{folder} holds a checkpoint of another job (different: {', '.join(different)}); remove the folder."
                )
            self.step, self.history = facts["step"], History(**facts["history"])
            self.sums.restore(facts["sums"])
        self.started = self.saved = time.monotonic()
        self.epoch_started = self.started - (facts.get("epoch_seconds", 0.0) if facts else 0.0)
        self.saving = checkpoint.bytes_of(stage.module, stage.optimizers) / BYTES_PER_SECOND
        self.before, self.meter = dataclasses.replace(self.history), Meter(machine.device)

    def add(self, losses: dict[str, Tensor], images: int) -> None:
        """Count a training step; on a GPU its losses are read later, together with those of other steps."""
        self.step += 1
        self.history.images += images
        self.sums.add(losses, images)
        if self.step % LOSSES_KEPT == 0 or self.machine.device.type == "cpu":
            self._read()

    def _read(self) -> None:
        """Read the losses that wait on the device, and tell the logger."""
        for step, losses in self.sums.read(self.step):
            self.logger.losses(step, losses)

    def end_epoch(self) -> tuple[dict[str, float], float, int]:
        """End an epoch and return its mean losses, its seconds and its number of images; then begin the next one."""
        self._read()
        self.history.epochs.append(self.sums.means())
        found = self.history.epochs[-1], time.monotonic() - self.epoch_started, self.sums.images
        self.sums.clear()
        self.epoch_started = time.monotonic()
        return found

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the seconds inside the block out of the cost of training."""
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.started, self.epoch_started = self.started + seconds, self.epoch_started + seconds

    def checkpoint_is_due(self) -> bool:
        """Tell whether enough time has passed since the last checkpoint, or since the stage began."""
        wait = self.machine.checkpoint_seconds
        if wait is None:
            wait = max(CHECKPOINT_SECONDS, self.saving / CHECKPOINT_SHARE)
        return time.monotonic() - self.saved >= wait

    def measure(self) -> None:
        """Bring seconds and joules in the history up to date."""
        self.history.seconds = self.before.seconds + time.monotonic() - self.started
        used = self.machine.world.total(self.meter.joules())
        self.history.joules = None if used is None else (self.before.joules or 0.0) + used

    def save(self) -> None:
        """Publish a checkpoint, and note how long that takes."""
        self._read()  # waits for the device, which is no cost of a checkpoint
        began = time.monotonic()
        self.measure()
        facts = {"step": self.step, "stage": self.stage.facts, "history": dataclasses.asdict(self.history)}
        facts |= {"sums": self.sums.state(), "epoch_seconds": time.monotonic() - self.epoch_started}
        if self.machine.world.leads:
            checkpoint.save(self.folder, self.stage.module, self.stage.optimizers, facts)
        self.saved = time.monotonic()
        self.saving = self.saved - began
