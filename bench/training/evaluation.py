"""A trunk and a head as one network, and what it says of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contract import Batch, Downstream
from bench.data import batches
from bench.models.network import Model
from bench.seeding import key
from bench.training.machine import Machine


@torch.no_grad()
def predict(model: Model, downstream: Downstream, part: batches.Part, machine: Machine) -> dict[str, NDArray[Any]]:
    """Return what is kept of every image of a part, in its order; the images are looked at once."""
    kept: dict[str, list[Tensor]] = {}
    for number in range(-(-len(part) // evaluation_batch(downstream))):
        machine.stop.check()
        output, batch = look(model, downstream, part, number, machine)
        for name, values in downstream.predictions(output, batch).items():
            kept.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy() for name, values in kept.items()}


def evaluation_batch(downstream: Downstream) -> int:
    """Return how many images are looked at together when they are scored."""
    return 1 if downstream.protocol.evaluate_one_by_one else downstream.protocol.batch_size


@torch.no_grad()
def look(model: Model, downstream: Downstream, part: batches.Part, number: int, machine: Machine) -> tuple[Tensor, Batch]:
    """Return the output for the part's batch of that number, the same whenever it is asked for, and the batch."""
    size = evaluation_batch(downstream)
    positions = np.arange(number * size, min((number + 1) * size, len(part)))
    batch = batches.to_device(part[0, positions], machine.device)
    torch.manual_seed(key("evaluate", number))  # matters where the protocol keeps dropout on
    with machine.autocast():
        output = tiled(model, batch, part.size, size) if downstream.protocol.evaluate_on == "whole" else model(batch)
    return output.float(), batch


def tiled(model: Model, batch: Batch, side: int, together: int) -> Tensor:
    """Return the output for whole images (N, C, H, W), from square tiles of `side` pixels, some `together`.

    Tiles are spread evenly over each image's `content`, as few as cover it; where they overlap, outputs are averaged. Outside the
    content, where no mask is judged, the output is zero.
    """
    places = [
        (image, row, column)
        for image, (height, width) in enumerate(batch["content"].tolist())
        for row in starts(height, side)
        for column in starts(width, side)
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


def starts(length: int, side: int) -> list[int]:
    """Return where tiles of `side` begin that cover `length` pixels, spread evenly; one at 0 where it is no longer than a tile.

    >>> starts(500, 256), starts(256, 256), starts(700, 256)
    ([0, 244], [0], [0, 222, 444])
    """
    tiles = -(-length // side)
    return [round(place * (length - side) / (tiles - 1)) for place in range(tiles)] if tiles > 1 else [0]
