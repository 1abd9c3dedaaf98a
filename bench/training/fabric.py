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
    backend = "nccl" if kind == "cuda" else "gloo"
    if kind == "cuda":
        torch.cuda.set_device(int(devices[leading.here()[0]].partition(":")[2]))
    _join(backend)
    fabric = Fabric(
        accelerator=kind,
        devices=[int(name.partition(":")[2]) for name in devices] if kind == "cuda" else here,
        num_nodes=int(os.environ["WORLD_SIZE"]) // here,
        strategy=DDPStrategy(process_group_backend=backend, timeout=world.SILENCE),
        precision=PRECISIONS[precision],
        plugins=TorchElasticEnvironment(),
    )
    fabric.launch()
    return fabric


def _join(backend: str) -> None:
    """Join the process group of this start of the processes, once; Fabric takes the one that is there.

    After a restart torchrun's store still has the addresses of the processes before, which gloo would try to reach.
    """
    from torch import distributed as dist

    if dist.is_initialized():
        return
    variable = os.environ
    store = dist.TCPStore(variable["MASTER_ADDR"], int(variable["MASTER_PORT"]), is_master=False)  # type: ignore[attr-defined]
    start = f"bench/{variable['TORCHELASTIC_RUN_ID']}/{variable.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    dist.init_process_group(
        backend,
        store=dist.PrefixStore(start, store),  # type: ignore[attr-defined]
        rank=int(variable["RANK"]),
        world_size=int(variable["WORLD_SIZE"]),
        timeout=world.SILENCE,
    )
