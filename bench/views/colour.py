"""Colour changes of a batch, each image with its own: torchvision's definitions, on float32 images in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The operations of a colour jitter, as numbers."""


def grey(images: Tensor) -> Tensor:
    """Return the lightness (N, 1, H, W) of images (N, 3, H, W), by torchvision's weights (ITU-R 601-2 luma)."""
    red, green, blue = images.unbind(dim=1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def jitter(images: Tensor, factors: Tensor, order: Tensor, hue_place: int | None = None) -> Tensor:
    """Return images (N, 3, H, W) with brightness, contrast, saturation and hue changed in each image's own order; in place.

    `factors` (N, 4): three factors, 1 for no change, and the shift of the hue in turns; `order` (N, 4): the operations by
    number, first to last. `hue_place` says when all images have the hue changed at that place, which saves half of the work:
    without it, the three others are each computed before the hue and again after it, once with a factor of 1.
    """
    place = (order == HUE).int().argmax(dim=1)
    for after in (False, True):
        if after:
            images = shift_hue(images, factors[:, HUE])
        for number in range(3):
            if hue_place is not None and (number >= hue_place) != after:
                continue
            kind = order.gather(1, (number + (number >= place).long())[:, None])[:, 0]
            factor = factors.gather(1, kind[:, None])[:, 0]
            factor = torch.where((number >= place) == after, factor, 1)
            images = blend(images, kind, factor)
    return images


def blend(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Return images times `factor` (N,) plus the rest of black, their mean lightness or their lightness, clamped; in place.

    `kind` (N,) says which: BRIGHTNESS, CONTRAST or SATURATION.
    """
    kind, factor = kind[:, None, None, None], factor[:, None, None, None]
    lightness = grey(images)
    mean = lightness.mean(dim=(2, 3), keepdim=True)
    other = lightness.mul_((1 - factor) * (kind == SATURATION)).add_(mean * (1 - factor) * (kind == CONTRAST))
    return images.mul_(factor).add_(other).clamp_(0, 1)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Return images (N, 3, H, W) with the hue of HSV turned by `turns` (N,) in [-0.5, 0.5]; saturation and value stay.

    With channels from 0 to 1 (the least to the greatest of a pixel), the hue's distance from red, in sixths of a turn, is
    1 + green + blue - red, to the side of the greater of green and blue; and a channel at a distance d from a hue has
    2 - d, clamped to [0, 1]. That is the definition without its six cases, which a CPU takes one pixel at a time.
    """
    red, green, blue = images.unbind(dim=1)
    most = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    spread = most - least
    hue = (green + blue).sub_(red).sub_(least).div_(spread.clamp(min=1e-12)).add_(1).copysign_(green - blue)
    channels = torch.arange(3, device=images.device)[None, :, None, None] / 3
    distance = torch.add(turns[:, None, None, None] + 2.5 - channels, hue[:, None], alpha=1 / 6)
    distance.frac_().sub_(0.5).abs_()  # from the hue of each channel, in turns
    shares = distance.mul_(-6).add_(2).clamp_(0, 1)
    return shares.mul_(spread[:, None]).add_(least[:, None])


def solarize(images: Tensor, threshold: float) -> Tensor:
    """Return images with values of at least `threshold` inverted."""
    return torch.where(images >= threshold, 1 - images, images)
