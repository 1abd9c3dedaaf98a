"""How long a training step takes on this machine: timed on few images, extrapolated to the batch, and kept for the next time.

A step's seconds are those of an earlier run on this machine where one is known. Otherwise a step of 2 images is timed, and one of
more images where that is quick; a straight line through the two gives any batch. What would take too long to time follows from
the passes (forward and backward) of the trunk alone that such a step costs, and a pass of the trunk at a large size from one at
half the size, by the number of floating-point operations.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import conv2d

from bench.contract import Batch
from bench.errors import DataError, MachineError, UsageError
from bench.models.trunk import check_size, make_trunk
from bench.schema import digest_of
from bench.storage import files, seal
from bench.training.loop import Stage, take_step
from bench.training.machine import Machine, free_memory
from bench.training.throughput import amount_of

FEW = 2
"""The images of the first step that is timed; batch norm needs two."""
QUICK = 0.5
"""Seconds that timing a step of more images may take, and below which a step is timed several times."""
LONG = 3.0
"""Seconds of a first step after which it is not made again."""
SOME = 16
"""The most images of the steps in which a trunk is timed alone."""
BYTES = 16
"""Bytes of memory for each weight in training: the weight, its gradient, and Adam's two moments."""
COLD, MAKING = 2.5, 2e-8
"""How much longer than a step timing takes, about, since the first step is slow; and the seconds to draw a weight."""
CHANNELS, SIDE = 256, 32
"""The convolution that is timed where nothing else can be."""
PLAN, RUN = "a plan", "a run"
"""By what a step's seconds were measured."""
LASTS = timedelta(days=1)
"""How long the seconds of a plan are used again: it may have timed few steps beside other programs."""
SHARE = 0.35
"""The share of that convolution's speed that a network reaches, about."""


@dataclass(frozen=True)
class Kind:
    """A kind of training step. On one machine its time depends on these values and on the number of images alone."""

    name: str
    trunk: str
    size: int
    passes: float
    """What a step costs in passes of the trunk alone, about; used where it cannot be timed."""
    make: Callable[[int], tuple[Stage, Callable[[int], Batch]]]
    """Makes a stage for images of a size in pixels, and a function that gives it a batch of some images."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_trunk: bool = False
    """Whether it is a step of a trunk without a task, from which steps of other kinds are estimated."""


@dataclass
class StepTimes:
    """The seconds of training steps on a machine. What would not be timed `until` then, by the monotonic clock, is estimated."""

    machine: Machine
    until: float
    at_least: float = 0.0
    """Seconds that timing may take in any case until something is timed."""
    origins: dict[str, str] = field(default_factory=dict)
    """Where the time of each kind is from, by the kind's name."""
    problems: list[str] = field(default_factory=list)
    """What went wrong in the steps that were timed."""
    known: dict[str, dict[int, float]] = field(default_factory=dict)
    """Seconds by number of images, by the key of a kind; empty where the kind could not be timed."""
    trunks_only: bool = False
    """Whether trunks alone may be timed."""
    passes: dict[str, float] = field(default_factory=dict)
    """The passes of the trunk alone that a step of a kind was found to cost, by the kind's name."""

    def step(self, kind: Kind, batch: int) -> float:
        """Return the seconds of a training step on `batch` images."""
        points = self._points(kind, batch)
        one_pass = self.one_pass(kind.trunk, kind.size)
        if not points:
            self.origins.setdefault(kind.name, "from the speed of the trunk")
            return batch * one_pass * self.passes.get(kind.name, kind.passes)
        seconds = extrapolated(points, batch)
        self.passes.setdefault(kind.name, seconds / (batch * one_pass))
        return seconds

    def of_trunks(self) -> StepTimes:
        """Return a copy that knows what this one knows and times nothing but trunks, and these only `until` then."""
        return replace(self, trunks_only=True, known=dict(self.known), origins={}, at_least=0.0)

    def one_pass(self, trunk: str, size: int) -> float:
        """Return the seconds of the forward and backward pass of a trunk alone, for each image."""
        kind = Kind("the trunk alone", trunk, size, 1.0, partial(_trunk_alone, self.machine, trunk), is_trunk=True)
        points = self._points(kind, SOME)
        if points:
            return points[max(points)] / max(points)
        operations, weights = amount_of(trunk, size)
        if MAKING * weights <= self._left() and _takes(trunk, size // 2):
            return self.one_pass(trunk, size // 2) * operations / amount_of(trunk, size // 2)[0]
        return 3 * operations / self._speed()

    def _points(self, kind: Kind, batch: int) -> dict[int, float]:
        """Return the seconds of steps on up to `batch` images, kept ones or timed now; none when it would take too long."""
        key = _path(self.machine, kind).stem
        if key in self.known:
            return self.known[key]
        found, origin = _kept(self.machine, kind)
        if not found and self._affords(kind):
            found, origin = self._timed(kind, batch), "timed now"
            if found:
                keep(self.machine, kind, found, PLAN)
        if found:
            self.origins[kind.name] = origin
        self.known[key] = found
        return found

    def _affords(self, kind: Kind) -> bool:
        operations, weights = amount_of(kind.trunk, kind.size)
        if self.trunks_only and not kind.is_trunk:
            return False
        few = FEW * (3 * operations / self._speed() if kind.is_trunk else kind.passes * self.one_pass(kind.trunk, kind.size))
        room = self.machine.room(2) if self.machine.device.type == "cuda" else free_memory() // 2
        return COLD * few + MAKING * weights <= self._left() and BYTES * weights < room

    def _left(self) -> float:
        """Return the seconds in which steps can still be timed."""
        return max(self.until - time.monotonic(), 0.0 if self.origins else self.at_least)

    def _timed(self, kind: Kind, batch: int) -> dict[int, float]:
        """Return the seconds of a step of `FEW` images and, where that is quick, of one of more images, at most `batch`."""
        try:
            with torch.random.fork_rng(devices=[]):  # a GPU's generators are seeded at every step
                stage, batch_of = kind.make(kind.size)
                points = {FEW: self._time(stage, batch_of(FEW))}
                more = min(round(1.5 * FEW * QUICK / points[FEW]), batch)
                if more > FEW:
                    points[more] = self._time(stage, batch_of(more))
        except Exception as error:  # the run itself will say what is wrong, and a plan says it now
            self.problems.append(f"{kind.name}: {' '.join(str(error).split())[:300] or type(error).__name__}")
            points = {}
        if self.machine.device.type == "cuda":
            torch.cuda.empty_cache()
        return points

    def _time(self, stage: Stage, batch: Batch) -> float:
        """Return the seconds of a step: the least of several after a first one, which other programs delay least, or the first
        where it takes long."""
        taken: list[float] = []
        while not taken or (len(taken) == 1 and taken[0] < LONG) or (len(taken) < 6 and sum(taken) < QUICK):
            started = time.monotonic()
            take_step(stage, self.machine, batch, 0)
            if self.machine.device.type == "cuda":
                torch.cuda.synchronize(self.machine.device)
            taken.append(time.monotonic() - started)
        return min(taken)

    def _speed(self) -> float:
        """Return floating-point operations a second of a network on this machine, about."""
        return SHARE * _speed_of_convolution(self.machine)


def extrapolated(points: Mapping[int, float], batch: int) -> float:
    """Return the seconds of a step on `batch` images, given those of one or more numbers of images.

    >>> extrapolated({2: 0.25, 32: 4.0}, 62), extrapolated({2: 1.0}, 32)
    (7.75, 16.0)
    """
    if batch in points:
        return points[batch]
    *_, last = known = sorted(points)
    if len(known) == 1:
        return points[last] * batch / last
    slope = max(0.0, (points[last] - points[known[-2]]) / (last - known[-2]))
    return max(points[known[0]] * min(1.0, batch / known[0]), points[last] + slope * (batch - last))


def keep(machine: Machine, kind: Kind, points: Mapping[int, float], by: str) -> None:
    """Keep the seconds of a kind's steps, measured `by` a run or a plan, below the home folder if it can be written."""
    content = {"seconds": {str(count): seconds for count, seconds in points.items()}, "by": by, "when": _now().isoformat()}
    with contextlib.suppress(MachineError):
        files.publish_json(_path(machine, kind), content)


def _kept(machine: Machine, kind: Kind) -> tuple[dict[int, float], str]:
    """Return kept seconds by number of images, and by what they were measured; those of a plan are forgotten after a day."""
    path = _path(machine, kind)
    if not path.is_file():
        return {}, ""
    try:
        content = seal.load(path, "a timing", "remove it, and it is made again")
        points = {int(count): float(seconds) for count, seconds in content["seconds"].items()}
        when = datetime.fromisoformat(content["when"])
        if content["by"] == PLAN and _now() - when > LASTS:
            return {}, ""
        return points, f"from {content['by']} of {when.astimezone():%Y-%m-%d}"
    except (DataError, KeyError, TypeError, ValueError, AttributeError):
        return {}, ""


def _path(machine: Machine, kind: Kind) -> Path:
    here = {**machine.describe(), "torch": torch.__version__}
    what = {"kind": kind.name, "trunk": kind.trunk, "size": kind.size, "facts": dict(kind.facts)}
    return files.home() / "steps" / f"{digest_of({**here, **what})[:16]}.json"


def _now() -> datetime:
    return datetime.now(UTC)


def _takes(trunk: str, size: int) -> bool:
    """Tell whether a trunk takes images of a size."""
    try:
        check_size(trunk, size)
    except UsageError:
        return False
    return size > 0


def _trunk_alone(machine: Machine, trunk: str, size: int) -> tuple[Stage, Callable[[int], Batch]]:
    network = replace(machine, compiled=False).place(make_trunk(trunk)).train()

    def training_step(batch: Batch) -> Iterator[tuple[str, torch.Tensor]]:
        yield "loss", network(batch["inputs"]).square().mean()

    def batch_of(count: int) -> Batch:
        return {"inputs": torch.rand(count, network.preprocessing.channels, size, size, device=machine.device)}

    optimizers: dict[str, torch.optim.Optimizer] = {"loss": torch.optim.SGD(network.parameters(), lr=0.0)}
    stage = Stage("the trunk alone", "timing", network, optimizers, training_step, lambda batch, _: batch, SOME, 1, 0)
    return stage, batch_of


def _speed_of_convolution(machine: Machine) -> float:
    """Return the floating-point operations a second of a large convolution, in the machine's precision."""
    name = f"{machine.device} {machine.precision} {torch.get_num_threads()}"
    if name not in _SPEEDS:
        taken = [_convolution(machine) for _ in range(3)]
        _SPEEDS[name] = 2 * FEW * 9 * (CHANNELS * SIDE) ** 2 / min(taken)
    return _SPEEDS[name]


def _convolution(machine: Machine) -> float:
    """Return the seconds of a large convolution; a guess where the device cannot compute, as the work itself will say."""
    try:
        inputs = torch.ones(FEW, CHANNELS, SIDE, SIDE, device=machine.device)
        weights = torch.ones(CHANNELS, CHANNELS, 3, 3, device=machine.device)
        started = time.monotonic()
        with torch.no_grad(), machine.autocast():
            float(conv2d(inputs, weights, padding=1)[0, 0, 0, 0])  # waits for a GPU
        return time.monotonic() - started
    except (RuntimeError, AssertionError):
        return 0.1


_SPEEDS: dict[str, float] = {}
