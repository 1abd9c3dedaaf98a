"""Colour on the device: sRGB bytes to normalised CIELAB and back, and how colourful and how close an image is.

CIELAB is that of D65 and the 2 degree observer, within 1e-4 of scikit-image's `rgb2lab`, which the paper uses; the tests hold
it there. Normalisation is the paper's: L / 50 - 1 and ab / 128.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)
DARK, SLOPE, OFFSET = 0.008856, 7.787, 16 / 116
"""Below `DARK` of the white, CIELAB's curve is a line (scikit-image's figures)."""
CHUNK = 1 << 18
"""Pixels that a CPU converts together: what they need stays in its cache."""


def unit(images: Tensor) -> Tensor:
    """Return uint8 images (N, 3, H, W) as float32 in [0, 1]; float images pass unchanged."""
    return images.float().div(255) if images.dtype == torch.uint8 else images


def rgb_to_lab(images: Tensor) -> Tensor:
    """Return CIELAB (N, 3, H, W), L in [0, 100], ab in about [-128, 127], of sRGB images (uint8, or float in [0, 1])."""
    lightness, chroma = split_lab(images)
    return torch.cat([(lightness + 1) * 50, chroma * 128], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Return sRGB (N, 3, H, W) as float32 in [0, 1] of CIELAB images; colours outside sRGB are clipped."""
    from kornia.color import lab_to_rgb as convert

    rgb: Tensor = convert(lab.float(), clip=True)
    return rgb


def split_lab(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the network's L (N, 1, H, W) and ab (N, 2, H, W), both in about [-1, 1], of sRGB images (uint8, or float)."""
    lab = images.new_empty(images.shape, dtype=torch.float32)
    for some, (lightness, red_green, blue_yellow) in _chunks(images, lab):
        x, y, z = (_curve(_mixed(some, row, white)) for row, white in zip(XYZ, WHITE, strict=True))
        torch.sub(x, y, out=red_green).mul_(500 / 128)
        torch.sub(y, z, out=blue_yellow).mul_(200 / 128)
        torch.mul(y, 116 / 50, out=lightness).sub_(16 / 50 + 1)
    return lab[:, :1], lab[:, 1:]


def lightness_of(images: Tensor) -> Tensor:
    """Return the network's L (N, 1, H, W) alone: that of `split_lab` to the bit, for a third of the work."""
    lightness = images.new_empty((len(images), 1, *images.shape[2:]), dtype=torch.float32)
    for some, (values,) in _chunks(images, lightness):
        torch.mul(_curve(_mixed(some, XYZ[1], WHITE[1])), 116 / 50, out=values).sub_(16 / 50 + 1)
    return lightness


def _chunks(images: Tensor, out: Tensor) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
    """Yield linear light (3, n, H, W) of some images, and the planes (n, H, W) of `out` that are theirs."""
    size = max(1, CHUNK // (images.shape[2] * images.shape[3])) if images.device.type == "cpu" else len(images)
    for first in range(0, len(images), max(1, size)):
        some = images[first : first + size].transpose(0, 1)
        yield _linear(some), out[first : first + size].unbind(dim=1)


def _linear(values: Tensor) -> Tensor:
    """Return linear light of sRGB values: from a table for bytes, by the formula for float in [0, 1]."""
    if values.dtype == torch.uint8:
        return _table(values.device).index_select(0, values.reshape(-1).int()).view(values.shape)
    return torch.where(values > 0.04045, ((values + 0.055) / 1.055).pow(2.4), values / 12.92)


@lru_cache
def _table(device: torch.device) -> Tensor:
    return _linear(torch.arange(256, dtype=torch.float64) / 255).float().to(device)


def _mixed(linear: Tensor, weights: tuple[float, float, float], white: float) -> Tensor:
    """Return one of X, Y, Z, as a share of the white's: sums, not a matrix product, which autocast would round to bfloat16."""
    red, green, blue = (weight / white for weight in weights)
    return (linear[0] * red).add_(linear[1], alpha=green).add_(linear[2], alpha=blue)


def _curve(share: Tensor) -> Tensor:
    """Return CIELAB's f of X, Y or Z: the cube root, by logarithm, which is thrice as fast as a power and as exact here."""
    line = (share * SLOPE).add_(OFFSET)
    return torch.where(share > DARK, share.log2().mul_(1 / 3).exp2_(), line)


def join_lab(lightness: Tensor, chroma: Tensor) -> Tensor:
    """Return sRGB uint8 (N, 3, H, W) of the network's L (N, 1, H, W) and ab (N, 2, H, W)."""
    rgb = lab_to_rgb(torch.cat([(lightness.float() + 1) * 50, chroma.float() * 128], dim=1))
    return rgb.mul(255).round().to(torch.uint8)


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Return each image's peak signal-to-noise ratio in dB, (N,), of uint8 sRGB images (N, 3, H, W).

    10 log10(255^2 / MSE), the mean over pixels and channels; infinite for equal images. The paper's equation 5.
    """
    error = (images.double() - truth.double()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error)


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Return each image's structural similarity, (N,) in [-1, 1], of uint8 sRGB images (N, 3, H, W).

    Wang et al. 2004: an 11x11 Gaussian window of standard deviation 1.5, K1 0.01, K2 0.03, the mean over the places where
    the window fits and over the channels, as scikit-image has it (torchmetrics' mean takes in reflected borders). Images
    less than 11 pixels wide or high have nan.
    """
    from kornia.metrics import ssim as similarity

    if min(images.shape[2:]) < 11:
        return torch.full((len(images),), float("nan"), dtype=torch.float64, device=images.device)

    scores: Tensor = similarity(images.double() / 255, truth.double() / 255, 11, padding="valid")
    return scores.mean(dim=(1, 2, 3))


def colourfulness(images: Tensor) -> Tensor:
    """Return each image's colourfulness, (N,), of uint8 sRGB images (N, 3, H, W): 0 for grey, above 100 for vivid.

    Hasler and Suesstrunk 2003, M3 = sqrt(var rg + var yb) + 0.3 sqrt(mean rg^2 + mean yb^2), with rg = R - G and
    yb = (R + G) / 2 - B.
    """
    red, green, blue = images.double().unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(start_dim=2)
    spread = opponents.var(dim=2, correction=0).sum(dim=0).sqrt()
    distance = opponents.mean(dim=2).square().sum(dim=0).sqrt()
    return spread + 0.3 * distance
