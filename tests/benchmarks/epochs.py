"""An epoch of SimCLR through the command line's code, against lightly's on the same JPEG files and against random tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.data import DataLoader

from bench.experiment.pretraining import make_pretext
from bench.experiment.session import Session
from tests.benchmarks.common import Figure, ratio, seconds, workplace
from tests.benchmarks.step import session, trained
from tests.benchmarks.views import BATCH, Files, files_of

ROUNDS = 3
IMAGES = {64: 512, 128: 320, 224: 192}
"""How many images an epoch has, by size."""
GOALS = {64: 1.15, 128: 1.0, 224: 1.0}
"""At least how many times as fast as lightly at its best."""
OF_RANDOM = 0.95
"""At least this share of the same network's speed on random tensors."""
WIDTH, CHANNELS = 512, 128
RATE = 1e-3


def lightly(files: list[Path], size: int, workers: int) -> Callable[[], object]:
    """Return an epoch of lightly's SimCLR: torchvision's resnet18, lightly's transform, projection head and loss."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from torchvision.models import resnet18

    encoder = resnet18()
    encoder.fc = nn.Identity()
    network = nn.Sequential(encoder, SimCLRProjectionHead(512, WIDTH, CHANNELS)).train()
    optimizer, criterion = torch.optim.Adam(network.parameters(), lr=RATE), NTXentLoss(temperature=0.1)
    loader = DataLoader(Files(files, size), BATCH, shuffle=True, num_workers=workers, drop_last=True)

    def epoch() -> None:
        for first, second in loader:
            loss = criterion(network(first), network(second))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def ours(made: Session, seeds: Iterator[int]) -> float:
    """Return the images/s of an epoch with a new seed."""
    return trained(made, next(seeds))


def of_random(made: Session, size: int, steps: int) -> Callable[[], object]:
    """Return as many training steps of our own network on two random tensors that are made once."""
    task = make_pretext(made.grid.jobs[0].pretrain).train()
    optimizer = task.optimizers()["loss"]
    batch = {name: torch.rand(BATCH, 3, size, size) for name in ("first", "second")}

    def epoch() -> None:
        for _ in range(steps):
            ((_, loss),) = task.training_step(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


def speed(epoch: Callable[[], object], images: int) -> float:
    """Return the images/s of an epoch."""
    return images / seconds(epoch)


def simclr(folder: Path, images: Path, size: int) -> Session:
    """Return a session of one epoch of SimCLR on the images, with the optimizer and the projector of lightly's."""
    own = {"batch_size": BATCH, "projector_width": WIDTH, "projector_channels": CHANNELS, "lr": RATE, "warmup_epochs": 0,
           "crop_scale": 0.08, "colour_strength": 1.0, "blur": 0.5}  # fmt: skip
    settings = (f"simclr.{name}={value}" for name, value in own.items())
    return session(folder, images, "simclr", size, "timm:resnet18,preprocessing=rgb", *settings, precision="fp32")


def measure() -> list[Figure]:
    """Return the images/s of an epoch by size, and ratios: medians of rounds in which all ways are taken in turns."""
    found: list[Figure] = []
    seeds = itertools.count()
    for size, goal in GOALS.items():
        with workplace() as folder, files_of(folder, IMAGES[size]) as files:
            made = simclr(folder / "out", folder / "images", size)
            ours(made, seeds)  # packs the images
            steps = len(files) // BATCH
            ways: dict[str, Callable[[], float]] = {"ours": partial(ours, made, seeds)}
            others = {"random tensors": of_random(made, size, steps)}
            others |= {f"lightly, {workers} workers": lightly(files, size, workers) for workers in (0, 2)}
            for name, epoch in others.items():
                ways[name] = partial(speed, epoch, BATCH * steps)
            speeds = [{name: way() for name, way in ways.items()} for _ in range(ROUNDS)]
        found += [Figure(f"{name}, {size} px", median(one[name] for one in speeds), "images/s") for name in ways]
        best = [one["ours"] / max(speed for name, speed in one.items() if "lightly" in name) for one in speeds]
        found.append(ratio(f"ours against lightly at its best, {size} px", median(best), goal))
        share = median(one["ours"] / one["random tensors"] for one in speeds)
        found.append(ratio(f"ours against random tensors, {size} px", share, OF_RANDOM))
    return found
