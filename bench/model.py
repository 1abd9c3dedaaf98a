"""A trunk and a head as one network, and what it says of pictures."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import registry
from bench.contract import Batch, Downstream
from bench.data import batches
from bench.job import Job
from bench.machine import Machine
from bench.modes import use_statistics
from bench.order import key
from bench.trunk import Trunk


class Model(nn.Module):
    """A trunk and a head, as one network that is trained in phases."""

    def __init__(self, trunk: Trunk, head: nn.Module, downstream: Downstream) -> None:
        super().__init__()
        self.trunk, self.head, self.downstream = trunk, head, downstream
        self.frozen = False

    def forward(self, batch: Batch) -> Tensor:
        """Return the head's output for sRGB `images` uint8 (N, 3, H, W), or for the `features` that the trunk has of them."""
        if "features" in batch:
            features = batch["features"]
        elif self.frozen:
            features = self.look(batch["images"])
        else:
            features = self.features(batch["images"])
        output: Tensor = self.head(features)
        return output

    @torch.no_grad()
    def look(self, images: Tensor) -> Tensor:
        """Return the features that the frozen trunk has of pictures (N, 3, H, W), without a graph.

        It looks at whole batches, the last one filled up with copies, so that a picture's features are the same to the bit
        whatever pictures are beside it; with the batch's own statistics they are not, and nothing is filled up.
        """
        protocol, count = self.downstream.protocol, len(images)
        missing = -count % protocol.batch_size if protocol.statistics == "running" else 0
        filled = torch.cat([images, images[:1].expand(missing, -1, -1, -1)]) if missing else images
        return self.features(filled)[:count]

    def features(self, images: Tensor) -> Tensor:
        """Return what the head gets of sRGB images uint8 (N, 3, H, W)."""
        return self.downstream.features(self.trunk, self.trunk.eye(images))

    def set_mode(self, train: Literal["head", "all", "nothing"]) -> None:
        """Choose what trains; what does not is in eval mode, so its running statistics stay as they are.

        A trunk is frozen from the mode `head` until it trains.
        """
        self.frozen = train == "head" or (self.frozen and train == "nothing")
        self.trunk.train(train == "all")
        self.head.train(train in ("head", "all"))
        use_statistics(self, self.downstream.protocol.statistics)
        self.trunk.requires_grad_(train == "all")
        self.head.requires_grad_(train in ("head", "all"))


def make_model(job: Job, trunk: Trunk, classes: int) -> tuple[Downstream, Model]:
    """Return the downstream task and its network: the given trunk and the head of the job's seed."""
    downstream = cast(Downstream, registry.load("downstreams", job.downstream)(job.settings, classes))
    torch.manual_seed(key("head", job.downstream, job.seed))
    return downstream, Model(trunk, downstream.head(trunk, job.size), downstream)


@torch.no_grad()
def predict(model: Model, downstream: Downstream, part: batches.Part, machine: Machine) -> dict[str, NDArray[Any]]:
    """Return what is kept of every picture of a part, in its order; the pictures are looked at once."""
    kept: dict[str, list[Tensor]] = {}
    for number in range(-(-len(part) // evaluation_batch(downstream))):
        machine.stop.check()
        output, batch = look(model, downstream, part, number, machine)
        for name, values in downstream.predictions(output, batch).items():
            kept.setdefault(name, []).append(values)
    return {name: torch.cat(values).cpu().numpy() for name, values in kept.items()}


def evaluation_batch(downstream: Downstream) -> int:
    """Return how many pictures are looked at together when they are scored."""
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
