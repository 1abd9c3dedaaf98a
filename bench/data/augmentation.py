"""Augmentation of an image together with its mask, by albumentations 2.0.8, which only this module imports.

Every sample has its own seed, since albumentations' seeding of workers gives the same numbers in several workers and epochs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.metrics import PADDING

Bytes = NDArray[np.uint8]
Transform = Callable[[Bytes, Bytes | None, int], tuple[Bytes, Bytes | None]]
"""(image (H, W, 3), mask (H, W) or None, seed) -> augmented (image, mask)."""


def make(kind: Literal["crop", "flip", "scale"], size: int) -> Transform:
    """Return a random transform: `crop` to `size` pixels, `flip` left and right, or `scale` by 0.5 to 2, then crop and flip."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    crop = [
        A.PadIfNeeded(size, size, position="top_left", fill=0, fill_mask=PADDING),
        A.RandomCrop(size, size),
    ]
    parts = {
        "crop": crop,
        "flip": [A.HorizontalFlip(p=0.5)],
        "scale": [A.RandomScale(scale_limit=(-0.5, 1.0), p=1.0), *crop, A.HorizontalFlip(p=0.5)],
    }[kind]
    compose = A.Compose(parts)

    def transform(image: Bytes, mask: Bytes | None, seed: int) -> tuple[Bytes, Bytes | None]:
        compose.set_random_seed(seed % 2**32)
        if mask is None:
            return compose(image=image)["image"], None
        result = compose(image=image, mask=mask)
        return result["image"], result["mask"]

    return transform
