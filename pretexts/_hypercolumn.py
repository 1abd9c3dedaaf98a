"""Hypercolumns: what all levels of an encoder say of one place of the image, put through one linear layer.

Hariharan et al. 2015, https://arxiv.org/abs/1411.5752. A linear layer and bilinear interpolation may change places, so each level
has its own part of the layer, and nothing as long as a whole hypercolumn is kept for every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.models.unet import initialise


class Hypercolumn(nn.Module):
    """A linear layer on the features of all levels, bilinearly interpolated, at some places or on a grid."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        """`channels` are those of the levels, finest first."""
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(count, width, 1, bias=level == 0) for level, count in enumerate(channels))
        initialise(self)

    def forward(self, features: Sequence[Tensor], side: int) -> Tensor:
        """Return the layer's outputs (N, width, side, side) at the centres of a grid's cells, of features (N, C, h, w)."""
        outputs = []
        for part, level in zip(self.parts, features, strict=True):
            smaller = level.shape[-1] < side
            outputs.append(_at_side(part(level), side) if smaller else part(_at_side(level, side)))
        return torch.stack(outputs).sum(dim=0)

    def at(self, features: Sequence[Tensor], places: Tensor) -> Tensor:
        """Return the layer's outputs (N, S, width) at `places` (N, S, 2), x and y from -1 to 1 between the image's borders."""
        sampled = (
            functional.grid_sample(level.float(), places[:, None], padding_mode="border", align_corners=False)
            for level in features
        )
        outputs = [part(level)[:, :, 0] for part, level in zip(self.parts, sampled, strict=True)]
        return torch.stack(outputs).sum(dim=0).transpose(1, 2)


def _at_side(features: Tensor, side: int) -> Tensor:
    return functional.interpolate(features, (side, side), mode="bilinear") if features.shape[-1] != side else features


def channels_of(features: Sequence[Tensor]) -> list[int]:
    """Return how many channels each level has."""
    return [level.shape[1] for level in features]
