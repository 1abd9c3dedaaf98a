"""How a network behaves for a while: frozen, random, or on a batch's own statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def use_statistics(module: nn.Module, statistics: Literal["running", "batch"]) -> None:
    """Choose what batch norm normalises with from now on: its running statistics when in eval mode, or always the batch's.

    With `batch` (the authors' Keras code) dropout stays on as well, and running statistics are neither read nor moved. Call
    it after every change between `train()` and `eval()`.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.track_running_stats = statistics == "running"
            if statistics == "batch":
                part.training = True
        elif isinstance(part, _DropoutNd) and statistics == "batch":
            part.training = True


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Be in eval mode and without gradients inside the block, and as before after it."""
    was = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in was:
            part.training = training


@contextmanager
def random_inference(module: nn.Module, statistics: Literal["running", "batch"], generator: torch.Generator) -> Iterator[None]:
    """Infer with dropout on, as the paper colorizes, its randomness from `generator`'s seed; batch norm as `statistics` says."""
    devices = [generator.device] if generator.device.type == "cuda" else []
    with inference(module), torch.random.fork_rng(devices=devices):
        torch.manual_seed(generator.initial_seed())
        for part in module.modules():
            if isinstance(part, _DropoutNd):
                part.training = True
        use_statistics(module, statistics)
        try:
            yield
        finally:
            use_statistics(module, "running")


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Compute no gradients for the modules' parameters in graphs that are built inside the block."""
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
