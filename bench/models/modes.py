"""Modes of a network inside a block: inference, dropout on, frozen weights, and the statistics that batch norm uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def use_statistics(module: nn.Module, statistics: Literal["running", "batch"]) -> None:
    """Choose what batch norm normalises with: `running` statistics in eval mode, or always those of the `batch`.

    With `batch` (the authors' Keras code) dropout stays on as well, and running statistics are neither used nor updated. Call
    this function again after every `train()` or `eval()`.
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
    """Put a module into eval mode without gradients inside the block; afterwards every part has its previous mode."""
    was = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in was:
            part.training = training


@contextmanager
def inference_with(module: nn.Module, statistics: Literal["running", "batch"]) -> Iterator[None]:
    """Infer without dropout inside the block, for tasks whose papers switch it off; `statistics` is batch norm's."""
    with inference(module):
        use_statistics(module, statistics)
        for part in module.modules():
            if isinstance(part, _DropoutNd):
                part.training = False
        try:
            yield
        finally:
            use_statistics(module, "running")


@contextmanager
def random_inference(module: nn.Module, statistics: Literal["running", "batch"], generator: torch.Generator) -> Iterator[None]:
    """Infer with dropout on inside the block, as the paper colorizes; `generator` seeds it, `statistics` is batch norm's."""
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
    """Compute no gradients for the modules' parameters in graphs built inside the block."""
    parameters = [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
