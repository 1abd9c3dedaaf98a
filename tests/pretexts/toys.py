"""Toy images and short trainings on which a task with few answers is learned in a second."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.contract import Pretext
from bench.models.modes import inference


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def noise(count: int = 4, size: int = 48) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def bowls(count: int, seed: int, size: int = 48) -> Tensor:
    """Noisy light that falls from the middle outwards: in each cell of a grid it slopes another way."""
    line = torch.linspace(-1, 1, size)
    light = 220 - 80 * (line[:, None] ** 2 + line**2)
    grain = torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(seed)) * 20
    return (light + grain).clamp(0, 255).to(torch.uint8)


def livelier(pretext: Pretext) -> Pretext:
    """The task with larger weights than the trunk's own, to learn in a few steps."""
    for part in pretext.trunk.down.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    return pretext


def certainty(pretext: Pretext, pictures: Tensor) -> float:
    """The mean probability of the right answers."""
    with inference(pretext):
        batch = pretext.make_batch(pictures, seeded())
        return float(pretext.logits(batch).softmax(dim=-1).gather(-1, batch["target"][..., None]).mean())


def trained(pretext: Pretext, pictures: Callable[[int, int], Tensor], steps: int) -> Pretext:
    """The task after some steps of 8 pictures each, which are `pictures(8, seed)`."""
    optimizer, generator = pretext.train().optimizers()["loss"], torch.Generator().manual_seed(2)
    for step in range(steps):
        ((_, loss),) = pretext.training_step(pretext.make_batch(pictures(8, step), generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pretext
