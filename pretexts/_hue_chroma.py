"""Histograms of hue and chroma around pixels, and colours from them: Larsson et al. 2016, https://arxiv.org/abs/1603.06668.

Hue and chroma are those of CIELAB, the angle and the length of ab, so that lightness is the bench's; the paper's are HSL's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_CHROMA = 1.05
"""The length of ab / 128 at which the last bin ends: sRGB's most colourful blue has 1.046."""


def histograms(chroma: Tensor, pixels: Tensor, window: int, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return histograms of hue and chroma, (N, S, bins), and the chroma itself (N, S), at pixels (N, S, 2), x and y.

    `chroma` is ab / 128, (N, 2, H, W). A histogram is that of the square of `window` pixels around a pixel, with the image's
    border repeated; its sum is 1. The chroma itself is in shares of the largest.
    """
    side = chroma.shape[-1]
    around = torch.arange(window, device=chroma.device) - window // 2
    x, y = (pixels[..., None] + around).clamp(0, side - 1).unbind(dim=2)
    places = (y[..., :, None] * side + x[..., None, :]).flatten(start_dim=1)
    a, b = chroma.flatten(start_dim=2).gather(2, places[:, None].expand(-1, 2, -1)).unbind(dim=1)
    hue, length = torch.atan2(b, a) / (2 * math.pi) % 1, torch.hypot(a, b) / MOST_CHROMA
    shape = (*pixels.shape[:2], window * window)
    middle = window * (window // 2) + window // 2
    return _shares(hue.view(shape), bins), _shares(length.view(shape), bins), length.view(shape)[..., middle]


def _shares(values: Tensor, bins: int) -> Tensor:
    """Return the shares (..., bins) of values (..., n) in [0, 1] that are in each bin."""
    places = (values * bins).long().clamp(0, bins - 1)
    empty = torch.zeros((*values.shape[:-1], bins), device=values.device)
    return empty.scatter_add(-1, places, torch.full_like(values, 1 / values.shape[-1]))


def colours(hues: Tensor, chromas: Tensor) -> Tensor:
    """Return ab / 128 (..., 2) of histograms (..., bins): the mean direction of the hue, and the median of the chroma."""
    bins = hues.shape[-1]
    centres = (torch.arange(bins, device=hues.device) + 0.5) / bins
    angles = 2 * math.pi * centres
    direction = torch.stack([(hues * angles.cos()).sum(dim=-1), (hues * angles.sin()).sum(dim=-1)], dim=-1)
    median = (chromas.cumsum(dim=-1) < 0.5).sum(dim=-1).clamp(max=bins - 1)
    return torch.nn.functional.normalize(direction, dim=-1) * (centres[median] * MOST_CHROMA)[..., None]


def divergence(truth: Tensor, logarithms: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence (...) in nats of true histograms (..., bins) from those with these logarithms."""
    found: Tensor = (torch.special.xlogy(truth, truth) - truth * logarithms).sum(dim=-1)
    return found
