"""`torch.cuda` as it answers where there are GPUs, and the stand-in as a context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import colour
from tests.standin.mode import Generator, StandIn

MEMORY = 80 << 30
"""The bytes that each GPU says it has, all of them free."""
_Autocast = torch.autocast


class Autocast(_Autocast):
    """Autocast by the processor's lists, whatever device it is asked for."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu", *args, **kwargs)


@contextmanager
def standing_in(patch: pytest.MonkeyPatch, count: int = 1) -> Iterator[StandIn]:
    """Give `count` GPUs that stand in for real ones, until the block ends; `patch` undoes what the caller does not."""
    gpus = StandIn(count)
    for name, answer in _answers(gpus).items():
        patch.setattr(torch.cuda, name, answer)
    patch.setattr(torch.accelerator, "is_available", lambda: True)
    patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    patch.setattr(torch.accelerator, "current_device_index", lambda: gpus.current)
    patch.setattr(torch.accelerator, "set_device_index", gpus.open)
    patch.setattr(Tensor, "pin_memory", lambda tensor, device=None: gpus.open() * 0 or tensor.clone())
    patch.setattr(torch, "autocast", Autocast)
    patch.setattr(torch, "Generator", Generator)
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        patch.setattr(torch.optim.Optimizer, name, lambda self: None, raising=False)  # it asks the driver
    replaced = torch.__future__.get_overwrite_module_params_on_conversion()
    precision, timed = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    table = colour._table
    table.cache_clear()
    try:
        with gpus:
            yield gpus
    finally:
        table.cache_clear()
        torch.__future__.set_overwrite_module_params_on_conversion(replaced)
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = timed


def _answers(gpus: StandIn) -> dict[str, Any]:
    """Return the functions of `torch.cuda` that the program uses, by name."""

    def properties(device: Any = None) -> SimpleNamespace:
        number = gpus.open(device)
        return SimpleNamespace(name=f"stand-in {number}", major=9, minor=0, total_memory=MEMORY, uuid="none")

    def set_device(device: Any) -> None:
        gpus.current = gpus.open(device)

    def forbid(mode: int | str) -> None:
        gpus.forbidding = mode if isinstance(mode, int) else ("default", "warn", "error").index(mode)

    def opened(answer: Any) -> Any:
        return lambda device=None, *_, **__: gpus.open(device) * 0 or answer

    return {
        "is_available": lambda: True,
        "device_count": lambda: gpus.count,
        "current_device": lambda: gpus.current,
        "set_device": set_device,
        "get_device_properties": properties,
        "get_device_name": lambda device=None: properties(device).name,
        "get_device_capability": lambda device=None: (properties(device).major, properties(device).minor),
        "mem_get_info": opened((MEMORY, MEMORY)),
        "memory_allocated": opened(0),
        "memory_reserved": opened(0),
        "max_memory_allocated": opened(1 << 20),
        "reset_peak_memory_stats": opened(None),
        "synchronize": opened(None),
        "empty_cache": lambda: None,
        "is_current_stream_capturing": lambda: False,
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
        "set_sync_debug_mode": forbid,
        "get_sync_debug_mode": lambda: gpus.forbidding,
    }
