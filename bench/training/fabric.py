"""Lightning Fabric for one process on one device, and for one of several processes that work on a run together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from bench.training import leading, world

PRECISIONS = {"bf16": "bf16-mixed", "fp32": "32-true"}


def alone(device: torch.device, precision: str) -> Any:
    """Return Fabric for a process that works alone, whatever a scheduler's variables say of tasks and ranks."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment

    return Fabric(
        accelerator=device.type,
        devices=[device.index] if device.type == "cuda" else 1,
        strategy="auto",
        precision=PRECISIONS[precision],
        plugins=LightningEnvironment(),
    )


def together(devices: Sequence[str], kind: str, precision: str) -> Any:
    """Return Fabric for one of several processes, with their process group; `devices` are those of this machine's processes."""
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import TorchElasticEnvironment
    from lightning.fabric.strategies import DDPStrategy

    _, here = leading.here()
    fabric = Fabric(
        accelerator=kind,
        devices=[int(name.partition(":")[2]) for name in devices] if kind == "cuda" else here,
        num_nodes=int(os.environ["WORLD_SIZE"]) // here,
        strategy=DDPStrategy(process_group_backend="nccl" if kind == "cuda" else "gloo", timeout=world.SILENCE),
        precision=PRECISIONS[precision],
        plugins=TorchElasticEnvironment(),
    )
    fabric.launch()
    return fabric
