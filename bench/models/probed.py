"""The frozen features that probes read: encoder levels averaged over places, or dense features at one stride."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from bench.contract import Batch, Downstream, Trunk

STRIDE = 4
"""The stride of dense features, in pixels."""
Source = Literal["levels", "encoder", "decoder"]
"""levels: every encoder level, averaged over places. encoder: the maps of every level. decoder: the last decoder activation."""


class ProbedTask(Downstream):
    """A downstream task whose network is frozen: its features are the trunk's, each image's as one vector.

    `shapes` are the shapes of the parts of that vector, known after the first image.
    """

    def __init__(self, task: Downstream, source: Source) -> None:
        super().__init__(task.protocol, task.classes)
        self.task, self.source = task, source
        self.shapes: list[torch.Size] = []

    def features(self, trunk: Trunk, inputs: Tensor) -> Tensor:
        """Return the features (N, M) of preprocessed images (N, channels, H, W)."""
        maps = [trunk(inputs)] if self.source == "decoder" else trunk.encode(inputs)
        if self.source == "levels":
            parts = [level.float().mean(dim=(2, 3)) for level in maps]
        else:
            parts = [_no_finer(level.float(), side_of(inputs.shape[-1])) for level in maps]
        self.shapes = [part.shape[1:] for part in parts]
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def parts(self, features: Tensor) -> list[Tensor]:
        """Return the parts of features (N, M), each with its own shape: (N, C) for levels, (N, C, h, w) for maps."""
        parts = torch.split(features, [shape.numel() for shape in self.shapes], dim=1)
        return [part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def dense(self, features: Tensor, size: int) -> Tensor:
        """Return dense features (N, C, g, g) for images of `size` pixels: all maps enlarged to stride 4, side by side."""
        side = side_of(size)
        return torch.cat([enlarged(part, side) for part in self.parts(features)], dim=1)

    def head(self, trunk: Trunk, size: int) -> nn.Module:
        """Return no layer: the features as they are."""
        return nn.Identity()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the task's own loss, which no probe uses."""
        return self.task.loss(output, target)

    def predictions(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the task's predictions from the output of a probe."""
        return self.task.predictions(output, batch)


def side_of(size: int) -> int:
    """Return how many places a side dense features have for images of `size` pixels.

    >>> side_of(64), side_of(70)
    (16, 18)
    """
    return -(-size // STRIDE)


def enlarged(maps: Tensor, side: int) -> Tensor:
    """Return maps (N, C, h, w) at `side` x `side` places, interpolated bilinearly."""
    if maps.shape[-1] == side:
        return maps
    return interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


def at_pixels(logits: Tensor, size: int) -> Tensor:
    """Return logits (N, C, g, g) at stride 4 for every pixel of images of `size` pixels, interpolated bilinearly."""
    whole = interpolate(logits, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return whole[..., :size, :size]


def _no_finer(maps: Tensor, side: int) -> Tensor:
    """Return maps averaged to `side` x `side` places where they have more, else as they are."""
    return adaptive_avg_pool2d(maps, side) if maps.shape[-1] > side else maps
