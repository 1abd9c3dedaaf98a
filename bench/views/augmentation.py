"""Random changes to the images that a pretext task is trained on, by a recipe's `augmentation`: the same for every task."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from bench.protocol import Augmentation
from bench.views import View

LEAST = 0.5
"""The least share of an image's area that a crop has."""


def augment(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Return uint8 images (N, 3, H, H), each changed by chance: `flip` mirrors half of them, `crop` also cuts out and enlarges.

    A crop has at least half of the image's area and an aspect ratio of 3/4 to 4/3; it is resized to the image's size, bilinear.
    With `none` nothing is drawn from the generator.
    """
    if how == "none":
        return images
    return (_view(how, images.shape[-1])(images, generator) * 255).round().to(torch.uint8)


@cache
def _view(how: Augmentation, size: int) -> View:
    flips = how == "flip"
    scale, ratio = (1.0 if flips else LEAST, 1.0), (1.0 if flips else 3 / 4, 1.0 if flips else 4 / 3)
    return View(size=size, scale=scale, ratio=ratio, jitter=0, brightness=0, contrast=0, saturation=0, hue=0, grey=0, blur=0)
