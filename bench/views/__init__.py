"""Views: random crops of images with random colours, by the batch, on the images' device, without worker processes.

Every image has settings of its own, drawn from the batch's generator. What is drawn and what it does are torchvision's
RandomResizedCrop, RandomHorizontalFlip, ColorJitter, RandomGrayscale, GaussianBlur and RandomSolarize, in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from bench.schema import Schema
from bench.views import blur, colour, cpu, crop


def _increasing(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"a range begins with its lower end, but got {values[0]:g} to {values[1]:g}")
    return values


Chance = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Drawn:
    """What was drawn for the views of N images: tensors on the generator's device."""

    boxes: Tensor
    """int64 (N, 4): top, left, height and width of the crop in pixels."""
    flips: Tensor
    """bool (N,): mirrored or not."""
    jitters: Tensor
    """bool (N,): colour jitter or none."""
    factors: Tensor
    """float32 (N, 4): factors of brightness, contrast and saturation, and the shift of the hue in turns."""
    order: Tensor
    """int64 (N, 4): the jitter's operations, 0 to 3 as in `factors`, first to last."""
    greys: Tensor
    """bool (N,): made grey or not."""
    sigmas: Tensor
    """float32 (N,): standard deviation of the blur in pixels; 0 for none."""
    solarized: Tensor
    """bool (N,): solarized or not."""


class View(Schema):
    """How one kind of view is made of an image; the defaults are SimCLR's for ImageNet.

    Sources: Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A, with colour strength 1; the threshold of solarize
    is BYOL's (Grill et al. 2020, https://arxiv.org/abs/2006.07733, appendix B). Resampling is bilinear.
    """

    size: Annotated[int, Field(ge=1)] = 224  # pixels; the paper's for ImageNet
    scale: Annotated[tuple[Share, Share], AfterValidator(_increasing)] = (0.08, 1.0)  # of the image's area; A, "random crop"
    ratio: Annotated[tuple[Positive, Positive], AfterValidator(_increasing)] = (3 / 4, 4 / 3)  # width to height; as scale
    flip: Chance = 0.5  # A, "random crop and resize"
    jitter: Chance = 0.8  # A, "color distortion": the chance of any jitter
    brightness: Strength = 0.8  # 0.8 of the strength: factors in [max(0, 1 - 0.8), 1 + 0.8]
    contrast: Strength = 0.8  # as brightness
    saturation: Strength = 0.8  # as brightness
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.2  # turns, to either side; A, "color distortion"
    grey: Chance = 0.2  # A, "color distortion"
    blur: Chance = 0.5  # A, "Gaussian blur"
    blur_kernel: Annotated[float, Field(ge=0, le=1)] = 0.1  # of the size; A, "Gaussian blur"
    sigma: Annotated[tuple[Positive, Positive], AfterValidator(_increasing)] = (0.1, 2.0)  # pixels; A, "Gaussian blur"
    solarize: Chance = 0.0  # none in SimCLR
    solarize_threshold: Chance = 0.5  # BYOL

    @property
    def radius(self) -> int:
        """The blur's taps to either side: those of a kernel of `blur_kernel` of the size."""
        return int(self.size * self.blur_kernel) // 2

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Drawn:
        """Draw what the views of `count` images of `height` x `width` pixels are to be.

        As many random numbers are drawn whatever the settings are, so a change of one leaves the others as they were.
        """
        uniform = torch.rand((2 * crop.TRIES + 2 + 14, count), generator=generator, device=generator.device)
        box, rest = uniform[: 2 * crop.TRIES + 2], uniform[2 * crop.TRIES + 2 :]
        flip, jitter, grey, blurred, sigma, solarize, *colours = rest.unbind()
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        ranges = [(max(0.0, 1 - strength), 1 + strength) for strength in strengths[:3]] + [(-self.hue, self.hue)]
        factors = [low + (high - low) * drawn for (low, high), drawn in zip(ranges, colours[:4], strict=True)]
        sigmas = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * sigma
        return Drawn(
            boxes=crop.boxes_from(box, height, width, self.scale, self.ratio),
            flips=flip < self.flip,
            jitters=jitter < self.jitter,
            factors=torch.stack(factors, dim=1),
            order=torch.stack(colours[4:], dim=1).argsort(dim=1),
            greys=grey < self.grey,
            sigmas=torch.where(blurred < self.blur, sigmas, 0),
            solarized=solarize < self.solarize,
        )

    @torch.no_grad()
    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Return the views that were drawn of uint8 images (N, 3, H, W): float32 (N, 3, size, size) in [0, 1].

        Elsewhere than on a CPU a step is computed for all images, so that nothing waits for the device, unless its chance is 0.
        """
        with torch.autocast(images.device.type, enabled=False):
            if images.device.type == "cpu":
                return cpu.make(images, drawn, self.size, self.radius, self.solarize_threshold)
            views = crop.by_matrices(images, drawn.boxes, drawn.flips, self.size)
            if self.jitter:
                weights = colour.blend_weights(drawn.factors, drawn.order)
                jittered = colour.jitter_in_any_order(views.clone(), weights, drawn.factors[:, colour.HUE], drawn.order)
                views = _chosen(drawn.jitters, jittered, views)
            if self.grey:
                views = _chosen(drawn.greys, colour.grey(views), views)
            if self.blur and self.radius:
                views = _chosen(drawn.sigmas > 0, blur.gaussian_blur(views, drawn.sigmas, self.radius), views)
            if self.solarize:
                views = _chosen(drawn.solarized, colour.solarize(views, self.solarize_threshold), views)
            return views

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each of uint8 images (N, 3, H, W): float32 (N, 3, size, size) in [0, 1]."""
        return self.apply(images, self.draw(len(images), images.shape[2], images.shape[3], generator))


def multi_crop(images: Tensor, views: Sequence[tuple[View, int]], generator: torch.Generator) -> list[Tensor]:
    """Return as many views of each kind as asked for, one after the other: float32 (N, 3, size, size) in [0, 1] each.

    Caron et al. 2020, https://arxiv.org/abs/2006.09882: few large views and many small ones. `images` are uint8 (N, 3, H, W).
    """
    return [view(images, generator) for view, count in views for _ in range(count)]


def _chosen(chosen: Tensor, changed: Tensor, views: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], changed, views)
