"""Training that must not wait for the GPU inside an epoch: the processor prepares the next step while the GPU computes one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bench import seeding
from bench.training import loop

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


def train_without_waits(training: Callable[..., Any]) -> Callable[..., Any]:
    """Return `bench.data.batches.training` so that also what the loop does between two batches of an epoch may not wait.

    It may where an epoch ends, where losses are read (`LOSSES_KEPT`), and where the mode was set back, as for a checkpoint.
    """
    reading = read_without_waits(training)

    @functools.wraps(training)
    def watched(split: Any, batch_size: int, seed: int, epochs: int, start: int, *rest: Any) -> Iterator[Any]:
        per_epoch = seeding.steps_per_epoch(len(split), batch_size)
        for step, batch in enumerate(reading(split, batch_size, seed, epochs, start, *rest), start=start + 1):
            may_wait = step - start <= WARMING or step % per_epoch == 0 or step % loop.LOSSES_KEPT == 0
            torch.cuda.set_sync_debug_mode("default" if may_wait else "error")
            try:
                yield batch
            finally:
                torch.cuda.set_sync_debug_mode("default")

    return watched


@contextmanager
def _forbidden(what: str, forbidden: bool) -> Iterator[None]:
    """Raise Waited for a wait in the block where it is `forbidden`."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error" if forbidden else "default")
    try:
        yield
    except RuntimeError as error:
        if "synchronizing CUDA operation" in str(error):
            raise Waited(f"{what}: {error}") from error
        raise
    finally:
        torch.cuda.set_sync_debug_mode(before)
