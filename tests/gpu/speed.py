"""The main step's speed and memory on a GPU, as it is and compiled, and what the GPU does in it."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bench.data import demo
from bench.experiment.pretraining import make_pretext
from bench.experiment.session import Session
from bench.training import checkpoint
from tests.benchmarks import gpu
from tests.benchmarks.common import Figure, ratio
from tests.benchmarks.step import bare, session

CASES = ((32, False), (32, True), (128, False))
"""Batch size, and whether the networks are compiled."""
IMAGES = 2048


def measure(folder: Path, size: int = 256, trunk: str = "unet", cases: tuple[tuple[int, bool], ...] = CASES) -> list[str]:
    """Return the figures as lines: images/s, milliseconds a step, memory, the paper's pretraining, checkpoints, operators."""
    papers = (size, trunk) == (256, "unet")
    count, steps, network = (IMAGES, 20, "unet:depth=8,width=64") if papers else (64, 2, trunk)
    labelled = str(demo.make(folder / "drawn", 2, 24, 16)["demo"])
    many = gpu.images(folder / "images", count)
    found: list[Figure] = []
    for batch, compiled in cases:
        figures, rate = gpu.pretraining(folder, many, batch, compiled, size, trunk, data=labelled)
        floor = bare(size, network, 64, batch, steps, "cuda", "bf16")
        found += [*figures, ratio("epoch against bare step", rate / floor, 0.90)]
    found += saving(folder, session(folder / "saving", many, "cgan_color", size, trunk, device="cuda", data=labelled))
    if papers:
        found += gpu.top_operators(folder, many, cases[0][0], data=labelled)
    return [f"{one.what}: {one.value:,.4g} {one.unit}{f' ({one.goal})' if one.goal else ''}" for one in found]


def saving(folder: Path, made: Session) -> list[Figure]:
    """Return the bytes of a checkpoint of a pretext task with Adam's moments, and the seconds that it takes."""
    pretext = made.machine.place(make_pretext(made.grid.jobs[0].pretrain))
    optimizers = pretext.optimizers()
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    began = time.perf_counter()
    path = checkpoint.save(folder / "checkpoint", pretext, optimizers, {"step": 1})
    taken = time.perf_counter() - began
    return [Figure("a checkpoint", path.stat().st_size / 1e6, "MB"), Figure("a checkpoint takes", taken, "s")]
