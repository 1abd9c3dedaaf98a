"""Evaluation: a network's predictions for the images of a split, in fixed batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contract import Batch, Downstream
from bench.data import batches
from bench.data.batches import SplitData
from bench.models.network import Model
from bench.seeding import key
from bench.training.machine import Machine


@torch.no_grad()
def predict(model: Model, downstream: Downstream, split: SplitData, machine: Machine) -> dict[str, NDArray[Any]]:
    """Return the predictions for every image of a split, in the split's order: name -> (N, ...).

    Several processes share the batches, and the first one gets the predictions.
    """
    kept: dict[int, Mapping[str, Tensor]] = {}
    world, count = machine.world, -(-len(split) // evaluation_batch(downstream))
    for first in range(0, count, world.size):
        machine.check()
        number = first + world.rank
        if number < count:
            kept[number] = downstream.predictions(*predict_batch(model, downstream, split, number, machine))
    if world.size > 1:
        return world.merged({number: {name: one.cpu().numpy() for name, one in found.items()} for number, found in kept.items()})
    names = kept[0] if kept else ()
    return {name: torch.cat([found[name] for found in kept.values()]).cpu().numpy() for name in names}


def evaluation_batch(downstream: Downstream) -> int:
    """Return the batch size of evaluation."""
    return 1 if downstream.protocol.evaluate_one_by_one else downstream.protocol.batch_size


@torch.no_grad()
def predict_batch(model: Model, downstream: Downstream, split: SplitData, number: int, machine: Machine) -> tuple[Any, Batch]:
    """Return the network's output for batch number `number` of a split, and the batch itself; both are the same at every call."""
    size = evaluation_batch(downstream)
    positions = np.arange(number * size, min((number + 1) * size, len(split)))
    batch = batches.to_device(split[0, positions], machine.device)
    torch.manual_seed(key("evaluate", number))  # matters where the protocol keeps dropout on
    with machine.autocast():
        output = tiled(model, batch, split.size, size) if downstream.protocol.evaluate_on == "whole" else model(batch)
    return output.float() if isinstance(output, Tensor) else output, batch


def tiled(model: Model, batch: Batch, side: int, together: int) -> Tensor:
    """Return the output (N, C, H, W) for whole images, computed on square tiles of `side` pixels, `together` of them per batch.

    Each image's `content` is covered by as few tiles as possible, spread evenly; where tiles overlap, outputs are averaged. The
    output is zero where no tile lies; masks are padding there, and also where the tile of a small image goes beyond its content.
    """
    places = [
        (image, row, column)
        for image, (height, width) in enumerate(batch["content"].tolist())
        for row in tile_starts(height, side)
        for column in tile_starts(width, side)
    ]
    images = batch["images"]
    tiles = torch.stack([images[image, :, row : row + side, column : column + side] for image, row, column in places])
    outputs = torch.cat([model({"images": some}).float() for some in torch.split(tiles, together)])
    total = outputs.new_zeros(len(images), outputs.shape[1], *images.shape[2:])
    count = outputs.new_zeros(len(images), 1, *images.shape[2:])
    for (image, row, column), output in zip(places, outputs, strict=True):
        total[image, :, row : row + side, column : column + side] += output
        count[image, :, row : row + side, column : column + side] += 1
    return total / count.clamp(min=1)


def tile_starts(length: int, side: int) -> list[int]:
    """Return where tiles of `side` pixels begin that cover `length` pixels, spread evenly; [0] when one tile is enough.

    >>> tile_starts(500, 256), tile_starts(256, 256), tile_starts(700, 256)
    ([0, 244], [0], [0, 222, 444])
    """
    tiles = -(-length // side)
    return [round(place * (length - side) / (tiles - 1)) for place in range(tiles)] if tiles > 1 else [0]
