"""A training step that must not wait for the GPU: the processor prepares the next step while the GPU computes this one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

WARMING = 1
"""The first steps of a stage may wait: tables are copied to the GPU, moments are made."""


class Waited(AssertionError):
    """A training step waited for the GPU."""


def without_waits(take_step: Callable[..., Any]) -> Callable[..., Any]:
    """Return `bench.training.loop.take_step` so that it raises Waited when a step waits for the GPU, but for a stage's first."""
    made: dict[int, int] = {}

    @functools.wraps(take_step)
    def watched(stage: Any, *rest: Any) -> Any:
        made[id(stage)] = made.get(id(stage), 0) + 1
        if made[id(stage)] <= WARMING:
            return take_step(stage, *rest)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return take_step(stage, *rest)
        except RuntimeError as error:
            if "synchronizing CUDA operation" in str(error):
                raise Waited(f"{stage.name}: {error}") from error
            raise
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return watched
