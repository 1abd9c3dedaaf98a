"""Before several processes share a stage: is its step, with the networks' calls split, that of one process?

Both are tried on the first batch, in float32, and everything is put back. Where losses, gradients or buffers differ by more than
rounding (a gradient that goes another way than through the networks, a network that changes its input or keeps what it saw), the
networks are not split: every process then computes the whole step, which is right and gains nothing.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.contract import Batch
from bench.errors import LostProcess, out_of_memory
from bench.models.shards import Shards
from bench.models.split_calls import full_precision
from bench.training.world import IDLE, PATIENCE

if TYPE_CHECKING:
    from bench.training.loop import Stage
    from bench.training.machine import Machine

EXACT = 1e-9
ROUNDING = {"gradients": 5e-2, "losses": 2e-3, "buffers": 2e-2}
"""How far each tensor may differ, as a share of its largest value, in float64 and in float32. In float32 gradients of some tasks
differed by up to 0.013 at the first step, where features hardly differ between images yet."""
Found = dict[str, list[Tensor]]
Step = Callable[..., dict[str, Tensor]]


def settle(stage: Stage, machine: Machine, batch: Batch, step: int, shards: Shards, take_step: Step) -> None:
    """Leave a stage's networks to be split where that changes nothing; else take them out of the stage, and say so."""
    if not stage.networks:
        return
    whole, split = (_tried(stage, machine, batch, step, one, take_step) for one in (None, shards))
    is_alike = whole is None or (split is not None and _are_close(split, whole))  # no memory for the whole step: not compared
    if not _all(is_alike, machine, shards):
        stage.networks = ()
        machine.say(f"  {stage.name}: a share of the images gives another step, so every device computes it whole")


def _all(value: bool, machine: Machine, shards: Shards) -> bool:
    return bool(shards.gathered(torch.tensor([float(value)], device=machine.device), shards.count).min())


def _tried(stage: Stage, machine: Machine, batch: Batch, step: int, shards: Shards | None, take_step: Step) -> Found | None:
    """Return losses, gradients and buffers of a step that is undone; None where it fails."""
    plain = dataclasses.replace(machine, fabric=_Plain())
    found: Found = {name: [] for name in ROUNDING}

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        weights = (weight for group in optimizer.param_groups for weight in group["params"])
        found["gradients"].extend(torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in weights)

    handles = [optimizer.register_step_pre_hook(note) for optimizer in stage.optimizers.values()]
    try:
        with _undone(stage), full_precision(machine.device.type):
            losses = take_step(stage, plain, {name: tensor.clone() for name, tensor in batch.items()}, step, shards)
            found["losses"] += losses.values()
            found["buffers"] += [buffer.clone() for buffer in stage.module.buffers() if buffer.is_floating_point()]
        machine.world.meet(IDLE, None)
        return found
    except LostProcess:
        raise
    except Exception as error:
        if shards is None and not out_of_memory(error):
            raise
        machine.world.meet(PATIENCE, error)
        return None
    finally:
        for handle in handles:
            handle.remove()


class _Plain:
    """What a step needs of Fabric to compute in float32."""

    def autocast(self) -> Any:
        """Return a context manager that does nothing."""
        return torch.autocast("cpu", enabled=False)


@contextmanager
def _undone(stage: Stage) -> Iterator[None]:
    """Put weights, buffers, optimizers and plain values of all modules back after the block."""
    state = {name: tensor.clone() for name, tensor in stage.module.state_dict().items()}
    optimizers = {name: copy.deepcopy(one.state_dict()) for name, one in stage.optimizers.items()}
    plain = (bool, int, float, str, type(None))
    values = [
        (part, {name: value for name, value in vars(part).items() if isinstance(value, plain)}) for part in stage.module.modules()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in stage.module.state_dict().items():
                tensor.copy_(state[name])
        for name, optimizer in stage.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            optimizer.load_state_dict(optimizers[name])
        for part, before in values:
            new = [name for name, value in vars(part).items() if isinstance(value, plain) and name not in before]
            for name in new:
                del vars(part)[name]
            vars(part).update(before)


def _are_close(split: Found, whole: Found) -> bool:
    """Tell whether two steps are alike; gradients of weights that batch norm takes out again are rounding alone."""
    return all(_are_alike(split[name], whole[name], share) for name, share in ROUNDING.items())


def _are_alike(split: list[Tensor], whole: list[Tensor], share: float) -> bool:
    if [one.shape for one in split] != [one.shape for one in whole]:
        return False
    sizes = [float(one.detach().double().abs().max()) if one.numel() else 0.0 for one in whole]
    for one, other, size in zip(split, whole, sizes, strict=True):
        apart = (one.detach().double() - other.detach().double()).abs()
        is_finite = bool(torch.isfinite(apart).all())  # a loss that is not ends the run anyhow
        most = (EXACT if other.dtype == torch.float64 else share) * max(size, 1e-3 * max(sizes))
        if is_finite and not bool((apart <= most).all()):
            return False
    return True
