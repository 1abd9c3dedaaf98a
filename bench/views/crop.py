"""Random resized crops of a batch: where they lie, and how they are resampled."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

TRIES = 10
"""Boxes that are drawn for a crop before the fallback (torchvision's RandomResizedCrop, after Szegedy et al. 2015)."""


def boxes_from(uniform: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """Return boxes, int64 (N, 4): top, left, height and width in pixels, of random numbers in [0, 1), (2 * TRIES + 2, N).

    In distribution torchvision's: the area and the logarithm of the aspect ratio are uniform, the first of ten boxes that fits
    into the image is taken, then its place is uniform. Where none fits: the largest box in the middle of an allowed ratio.
    """
    areas, ratios, (down, right) = uniform[:TRIES], uniform[TRIES:-2], uniform[-2:]
    area = height * width * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * ratios)
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)

    first = fits.int().argmax(dim=0, keepdim=True)
    found = fits.any(dim=0)
    tall, wide = fallback(height, width, ratio)
    box_height = torch.where(found, heights.gather(0, first)[0], tall).long()
    box_width = torch.where(found, widths.gather(0, first)[0], wide).long()
    top = torch.where(found, _place(down, height - box_height), (height - tall) // 2)
    left = torch.where(found, _place(right, width - box_width), (width - wide) // 2)
    return torch.stack([top, left, box_height, box_width], dim=1)


def _place(uniform: Tensor, most: Tensor) -> Tensor:
    """Return whole numbers from 0 to `most`, each as likely; a product in float32 may round up to the number above."""
    return torch.minimum((uniform * (most + 1)).long(), most)


def fallback(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Return height and width of the largest box in an image whose aspect ratio is within `ratio`."""
    if width / height < ratio[0]:
        return min(height, round(width / ratio[0])), width
    if width / height > ratio[1]:
        return height, min(width, round(height * ratio[1]))
    return height, width


def by_matrices(images: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """Return the boxes of uint8 images (N, 3, H, W), mirrored where `flips` (N,), as float32 (N, 3, size, size) in [0, 1].

    As `one_by_one`, by two products of matrices: across, then down, rounded after each as torch rounds bytes. Equal to torch's
    resampling of bytes for 98 % of values, whose weights have fewer digits, and within two levels of it.
    """
    top, left, tall, wide = boxes.unbind(dim=1)
    count, _, height, width = images.shape
    columns = matrices(left, wide, flips, width, size)
    rows = matrices(top, tall, torch.zeros_like(flips), height, size)
    lines = images.transpose(1, 2).reshape(count, height * 3, width).float()
    lines = torch.bmm(lines, columns.transpose(1, 2)).add_(0.5).floor_().view(count, height, 3 * size)
    return torch.bmm(rows, lines).add_(0.5).floor_().div_(255).view(count, size, 3, size).transpose(1, 2)


def one_by_one(images: Tensor, boxes: Tensor, rows: Tensor, size: int) -> Tensor:
    """Return the boxes of some `rows` (K,) of uint8 images (N, 3, H, W) as float32 (K, 3, size, size) in [0, 1].

    By torch's own resampling of bytes: bilinear, with antialiasing where a side is reduced, from pixels of the box alone, rounded
    to bytes: torchvision's `resized_crop`.
    """
    crops = [
        functional.interpolate(
            images[row, None, :, top : top + tall, left : left + wide], (size, size), mode="bilinear", antialias=True
        )
        for row, (top, left, tall, wide) in zip(rows.tolist(), boxes[rows].tolist(), strict=True)
    ]
    return torch.empty((len(crops), 3, size, size)).copy_(torch.cat(crops)).div_(255)


def matrices(starts: Tensor, lengths: Tensor, flips: Tensor, source: int, size: int) -> Tensor:
    """Return for each image the matrix (N, size, source) that resamples `lengths` pixels from `starts` on to `size` pixels.

    Its rows are triangles around a pixel's place in the source, as wide as the reduction, and sum to 1; in reverse order where
    `flips`. A product with it is torch's `interpolate(mode="bilinear", antialias=True)` of that stretch.
    """
    starts, lengths, mirrored = starts[:, None, None], lengths[:, None, None], flips[:, None, None]
    targets = torch.arange(size, device=starts.device)[:, None]
    targets = torch.where(mirrored, size - 1 - targets, targets)
    places = torch.arange(source, device=starts.device)
    step = lengths.float() / size
    distance = places + 0.5 - starts - (targets + 0.5) * step
    weights = (1 - distance.abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((places >= starts) & (places < starts + lengths))
    return weights / weights.sum(dim=2, keepdim=True)
