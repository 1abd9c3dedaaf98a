"""A training step that must not wait for the GPU: the processor prepares the next step while the GPU computes this one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

DETECTORS = ("detection", "voc_det")
"""The tasks whose steps do wait: torchvision counts proposals and boxes on the processor."""
WARMING = 1
"""The first steps of a stage may wait: tables are copied to the GPU, moments are made."""


class Waited(AssertionError):
    """A training step waited for the GPU."""


def without_waits(take_step: Callable[..., Any]) -> Callable[..., Any]:
    """Return `bench.training.loop.take_step` so that it raises Waited when a step waits for the GPU, but for a stage's first."""

    @functools.wraps(take_step)
    def watched(stage: Any, *rest: Any) -> Any:
        stage.watched_steps = getattr(stage, "watched_steps", 0) + 1
        waits = stage.name.startswith(DETECTORS)
        with _forbidden(stage.name, stage.watched_steps > WARMING and not waits):
            return take_step(stage, *rest)

    return watched


def read_without_waits(training: Callable[..., Any]) -> Callable[..., Any]:
    """Return `bench.data.batches.training` so that it raises Waited when a batch but for the first is read with a wait."""

    @functools.wraps(training)
    def watched(*given: Any) -> Iterator[Any]:
        stream, done = training(*given), 0
        while True:
            try:
                with _forbidden("reading", done >= WARMING):
                    batch = next(stream)
            except StopIteration:
                return
            yield batch
            done += 1

    return watched


@contextmanager
def _forbidden(what: str, forbidden: bool) -> Iterator[None]:
    """Raise Waited for a wait in the block where it is `forbidden`."""
    torch.cuda.set_sync_debug_mode("error" if forbidden else "default")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing CUDA operation" in str(error):
            raise Waited(f"{what}: {error}") from error
        raise
    finally:
        torch.cuda.set_sync_debug_mode("default")
