"""Checkpoints: a network, its optimizers and the training step reached, in one safetensors file named by step and SHA-256.

A new checkpoint is published before the previous one is removed, so after the first there is always one that loads. Nothing is
unpickled. Random state is not saved because there is none: every training step has its own seed (`bench.seeding`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import DataError, UsageError
from bench.models import weights_file
from bench.storage import files
from bench.text import quoted

SUFFIX = ".safetensors"
VERSION = 2
"""The version of both kinds of file, weights and checkpoints; files from before version 2 hold no version."""


def save_weights(path: Path, module: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write a module's state and some JSON facts to a safetensors file."""
    _write(path, module.state_dict(), facts)


def bytes_of(module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer] | None = None) -> int:
    """Return about how many bytes a module's weights need on the disk, with two moments of each parameter of the optimizers."""
    trained: list[Tensor] = [p for one in (optimizers or {}).values() for group in one.param_groups for p in group["params"]]
    return sum(tensor.nbytes for tensor in [*module.state_dict().values(), *trained, *trained])


def digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state: names, types, shapes and numbers."""
    return weights_file.digest(module.state_dict())


def load_weights(path: Path, digest: str, module: nn.Module) -> None:
    """Load a module's state from a file with this SHA-256.

    DataError when the file is missing or has another SHA-256, or when tensors are missing or do not belong to the module.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing; remove its folder to train it again.")
    if files.sha256(path) != digest:
        raise DataError(f"{path} is damaged: its SHA-256 is not the recorded one; remove its folder to train it again.")
    tensors, _ = _read(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit this network: {' '.join(str(error).split())[:300]}.") from error


def load_network(path: Path, state: str, module: nn.Module) -> None:
    """Load a module's state from a file whose tensors have this digest (`digest`); errors as `load_weights`."""
    load_weights(path, files.sha256(path), module)
    if digest(module) != state:
        raise DataError(f"{path} is damaged: its tensors are not the recorded ones; run again with --keep-networks.")


def save(folder: Path, module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], facts: Mapping[str, Any]) -> Path:
    """Publish a checkpoint in `folder`, remove the earlier ones, and return its path. `facts` must have the `step`."""
    tensors = {f"module/{name}": tensor for name, tensor in module.state_dict().items()}
    for owner, optimizer in optimizers.items():
        for number, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                if value is not None:
                    tensors[f"optimizer/{owner}/{number}/{name}"] = torch.as_tensor(value)
    place = files.publish_written(
        folder / "checkpoint",
        lambda path: _write(path, tensors, facts),
        sum(tensor.nbytes for tensor in tensors.values()),
        lambda path: f"{facts['step']:09d}-{files.sha256(path)}{SUFFIX}",
    )
    for other in folder.glob(f"*{SUFFIX}"):
        if other != place:
            other.unlink()
    return place


def load(folder: Path, module: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]) -> dict[str, Any] | None:
    """Restore the newest checkpoint in `folder` and return its facts; None when there is none.

    DataError when the checkpoint is damaged or belongs to another network; UsageError for a network whose state is not tensors.
    """
    for name, value in module.state_dict().items():  # now, not after hours of training
        if not torch.is_tensor(value):
            raise UsageError(f"the network keeps {quoted(value)} as {name}, which is no tensor; keep all state in tensors.")
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if not found:
        return None
    path = found[-1]
    if path.stem.split("-", 1)[-1] != files.sha256(path):
        raise DataError(f"{path} is damaged: its SHA-256 is not the one in its name; remove it to start again.")
    tensors, facts = _read(path)
    weights = {name.removeprefix("module/"): tensor for name, tensor in tensors.items() if name.startswith("module/")}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit this network: {' '.join(str(error).split())[:300]}.") from error
    try:
        for wanted, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                kind, _, rest = name.partition("/")
                owner, _, tail = rest.partition("/")
                if kind == "optimizer" and owner == wanted:
                    number, _, field = tail.partition("/")
                    state.setdefault(int(number), {})[field] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
            _lay_out(optimizer)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(f"{path} does not fit these optimizers: {' '.join(str(error).split())[:300]}.") from error
    return facts


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give each moment of Adam the strides of its parameter.

    A file does not keep strides, and CUDA's fused Adam refuses channels-last parameters with contiguous moments.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if name != "step" and torch.is_tensor(value) and value.shape == parameter.shape:  # a parameter may be a scalar too
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    ready: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        ready[name] = tensor.detach().contiguous().cpu()
        place = ready[name].untyped_storage().data_ptr()
        if place in stored:  # tied weights: safetensors writes no two tensors that share memory
            ready[name] = ready[name].clone()
        stored.add(place)
    try:
        save_file(ready, str(path), metadata={"facts": json.dumps({"version": VERSION, **facts}, sort_keys=True)})
    except SafetensorError as error:  # the library's own name for a failed write
        number = re.search(r"os error (\d+)", str(error))
        raise (OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))) from error


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
        version = facts.get("version")
    except MemoryError:
        raise
    except Exception as error:  # safetensors and JSON have no common base for what a damaged file raises
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DataError(f"{path} is not a safetensors file: {reason}.") from error
    if version != VERSION:
        raise DataError(
            f"{path} has version {version}, but this program reads version {VERSION}; remove its folder to train it again."
        )
    return tensors, facts
