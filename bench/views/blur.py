"""Gaussian blur of a batch, each image with a standard deviation of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

TOGETHER, PLANES = 5, 16
"""Images that a CPU blurs together, and the planes that they are filled up to: oneDNN convolves 16 at once, and each other
number of them would be planned anew."""
REACH = 4
"""Standard deviations to either side after which a CPU leaves taps out: all of them together weigh less than 1e-4."""


def gaussian_blur(images: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Return images (N, 3, H, W) blurred by `sigmas` (N,) in pixels, with 2 * radius + 1 taps and reflected borders.

    torchvision's `gaussian_blur`: down, then across, as one convolution of all channels of all images. On a CPU without taps
    that `REACH` leaves out.
    """
    count, channels, height, width = images.shape
    planes = filled = count * channels
    if images.device.type == "cpu":
        filled = max(planes, PLANES)
        radius = min(radius, math.ceil(REACH * sigmas.max().item()))
    places = torch.arange(-radius, radius + 1, device=images.device)
    taps = torch.softmax(-(places**2) / (2 * sigmas[:, None].clamp(min=1e-3) ** 2), dim=1)
    taps = functional.pad(taps.repeat_interleave(channels, dim=0), [0, 0, 0, filled - planes])[:, None, None]
    padded = functional.pad(images.reshape(planes, height, width), [radius] * 4, mode="reflect")
    padded = functional.pad(padded, [0, 0, 0, 0, 0, filled - planes])[None]
    down = functional.conv2d(padded, taps.transpose(2, 3), groups=filled)
    across = functional.conv2d(down, taps, groups=filled)
    return across[0, :planes].view(count, channels, height, width)
