"""A training step of every pretext task at 64 px against the bare forward and backward of its networks on tensors."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from bench import registry
from bench.config import MachineConfig
from bench.contract import Pretext
from bench.models.trunk import make_trunk, smallest_size
from bench.training.machine import make_machine
from tests.benchmarks.common import CORES, Figure, seconds

SIZE, BATCH, ROUNDS = 64, 16, 25
MOST = 1.1
UNET, RESNET = "unet:depth=6,width=32", "timm:resnet18,preprocessing=rgb"


def of_lightness(answer: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, dict[str, Tensor]], Tensor]:
    """Return what a dense task answers for its batch's lightness."""
    return lambda task, batch: answer(task, batch["lightness"])


def classified(inputs: Callable[[Any, dict[str, Tensor]], Tensor], pairs: Callable[[Tensor], Tensor]) -> Any:
    """Return the scores that a task's head makes of the bottleneck's means over places, of inputs that are made once."""
    fed: dict[int, Tensor] = {}

    def answer(task: Any, batch: dict[str, Tensor]) -> Tensor:
        ready = fed.setdefault(id(batch), inputs(task, batch))
        return task.head(pairs(task.trunk.encode(ready)[-1].mean(dim=(2, 3))))

    return answer


def tiles(name: str) -> Callable[[Any, dict[str, Tensor]], Tensor]:
    """Return a batch's patches as they are fed to the trunk."""

    def inputs(task: Any, batch: dict[str, Tensor]) -> Tensor:
        from pretexts._patches import enlarged, fed_side

        return enlarged(batch[name], fed_side(batch[name].shape[-1], task.trunk.smallest))

    return inputs


def jigsaws(features: Tensor) -> Tensor:
    """Return as many puzzles of each image as the preset asks about: (8 N, 9 C) of (9 N, C)."""
    return features.view(BATCH, -1).repeat_interleave(8, dim=0)


def pairs_of(features: Tensor) -> Tensor:
    """Return as many pairs of each image's patches as the preset asks about: (32 N, 2 C) of (9 N, C)."""
    of_images = features.view(BATCH, 9, -1)
    firsts, seconds = (torch.arange(32) * step % 9 for step in (1, 2))
    return torch.cat([of_images[:, firsts], of_images[:, seconds]], dim=2).flatten(end_dim=1)


def embedded(task: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return the projections of both views, (N, 2 C)."""
    return torch.cat(task.embeddings(batch), dim=1)


BARE: dict[str, tuple[str, Callable[[Any, dict[str, Tensor]], Tensor]]] = {
    "l1_color": (UNET, of_lightness(lambda task, inputs: task.output(task.trunk(inputs)))),
    "class_color": (UNET, of_lightness(lambda task, inputs: task.scores(inputs))),
    "autoencoder": (UNET, of_lightness(lambda task, inputs: task.reconstruct(inputs))),
    "rotation": (RESNET, classified(lambda _, batch: batch["inputs"], lambda features: features)),
    "relative_patch": (RESNET, classified(tiles("patches"), pairs_of)),
    "jigsaw": (RESNET, classified(tiles("tiles"), jigsaws)),
    "simclr": (RESNET, embedded),
    "masked": (RESNET, lambda task, batch: task.output(task.trunk(batch["inputs"]))),
}
"""By task: the trunk, and what of its networks' answers is computed without anything around them."""


def measured(name: str, trunk: str, answer: Callable[[Any, dict[str, Tensor]], Tensor]) -> tuple[float, float]:
    """Return the milliseconds of a step, and how many times that is the bare forward and backward; medians of rounds."""
    plugin = registry.load("pretexts", name)
    made = make_trunk(trunk)
    made.smallest, made.trained_at = smallest_size(trunk), SIZE
    task: Pretext = plugin(plugin.default_recipe("small"), made).train()
    generator = torch.Generator().manual_seed(0)
    side = plugin.reads(task.recipe, SIZE)
    images = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8, generator=generator)
    batch = task.make_batch(images, generator)
    with torch.no_grad():
        gradient = torch.randn(answer(task, batch).shape) / 1e4

    def step() -> None:
        task.zero_grad()
        for _, loss in task.training_step(task.make_batch(images, generator)):
            loss.backward()

    def bare() -> None:
        task.zero_grad()
        answer(task, batch).backward(gradient)

    step(), bare()
    took = [(seconds(step), seconds(bare)) for _ in range(ROUNDS)]
    return 1e3 * median(whole for whole, _ in took), median(whole / part for whole, part in took)


def measure() -> list[Figure]:
    """Return the milliseconds of each task's step, without the optimizer's, and its ratio."""
    make_machine(MachineConfig(device="cpu", threads=CORES))
    found: list[Figure] = []
    for name, (trunk, answer) in BARE.items():
        time, times = measured(name, trunk, answer)
        found += [Figure(name, time, "ms"), Figure(f"{name} against its bare networks", times, "times", f"at most {MOST:g}")]
    return found
