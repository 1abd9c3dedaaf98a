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


def hue_places(order: Tensor) -> Tensor:
    """Return when the hue is changed (N,), 0 to 3, in an `order` (N, 4) of operations by number."""
    return (order == HUE).int().argmax(dim=1)


def blend_weights(factors: Tensor, order: Tensor) -> Tensor:
    """Return what `blend` does at each of four places (N, 4, 3); those of the hue have no meaning.

    `factors` (N, 4): those of brightness, contrast and saturation, 1 for no change; `order` (N, 4): the operations by number,
    first to last.
    """
    factor = factors.gather(1, order)
    rest = 1 - factor
    return torch.stack([factor, rest * (order == SATURATION), rest * (order == CONTRAST)], dim=2)


def jitter(images: Tensor, weights: Tensor, turns: Tensor, hue_place: int) -> Tensor:
    """Return images (N, 3, H, W) whose hue is all changed at the same place, the rest by `blend_weights`; may change `images`."""
    for place in range(4):
        images = shift_hue(images, turns) if place == hue_place else blend(images, weights[:, place])
    return images


def jitter_in_any_order(images: Tensor, weights: Tensor, turns: Tensor, order: Tensor) -> Tensor:
    """Return images as `jitter`, each with the hue at its own place in `order` (N, 4); may change `images`.

    The three others are each computed before the hue and again after it, once with weights that change nothing.
    """
    places = hue_places(order)[:, None, None]
    nothing = torch.eye(3, device=images.device)[0]
    for after in (False, True):
        if after:
            images = shift_hue(images, turns)
        for number in range(3):
            its = weights.gather(1, (number + (number >= places).long()).expand(-1, 1, 3))
            images = blend(images, torch.where((number >= places) == after, its, nothing)[:, 0])
    return images


def blend(images: Tensor, weights: Tensor) -> Tensor:
    """Return weighted sums of images, their lightness and their mean lightness, clamped; in place. `weights` are (N, 3)."""
    its, lightness_weight, mean_weight = weights[:, :, None, None, None].unbind(dim=1)
    lightness = grey(images)
    mean = lightness.mean(dim=(2, 3), keepdim=True)
    return images.mul_(its).add_(lightness.mul_(lightness_weight).add_(mean * mean_weight)).clamp_(0, 1)


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
