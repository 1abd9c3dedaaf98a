"""Colour on the device: sRGB bytes to normalised CIELAB and back, and how colourful and how close a picture is.

CIELAB is kornia's (D65, 2 degree observer), within 1e-4 of scikit-image's `rgb2lab`, which the paper uses; the tests hold
it there. Normalisation is the paper's: L / 50 - 1 and ab / 128.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit(images: Tensor) -> Tensor:
    """Return uint8 pictures (N, 3, H, W) as float32 in [0, 1]; float pictures pass unchanged."""
    return images.float().div(255) if images.dtype == torch.uint8 else images


def rgb_to_lab(images: Tensor) -> Tensor:
    """Return CIELAB (N, 3, H, W), L in [0, 100], ab in about [-128, 127], of sRGB pictures (uint8, or float in [0, 1])."""
    from kornia.color import rgb_to_lab as convert

    lab: Tensor = convert(unit(images))
    return lab


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Return sRGB (N, 3, H, W) as float32 in [0, 1] of CIELAB pictures; colours outside sRGB are clipped."""
    from kornia.color import lab_to_rgb as convert

    rgb: Tensor = convert(lab.float(), clip=True)
    return rgb


def split_lab(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the network's L (N, 1, H, W) and ab (N, 2, H, W), both in about [-1, 1], of sRGB pictures."""
    lab = rgb_to_lab(images)
    return lab[:, :1] / 50 - 1, lab[:, 1:] / 128


def join_lab(lightness: Tensor, chroma: Tensor) -> Tensor:
    """Return sRGB uint8 (N, 3, H, W) of the network's L (N, 1, H, W) and ab (N, 2, H, W)."""
    rgb = lab_to_rgb(torch.cat([(lightness.float() + 1) * 50, chroma.float() * 128], dim=1))
    return rgb.mul(255).round().to(torch.uint8)


def psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """Return each picture's peak signal-to-noise ratio in dB, (N,), of uint8 sRGB pictures (N, 3, H, W).

    10 log10(255^2 / MSE), the mean over pixels and channels; infinite for equal pictures. The paper's equation 5.
    """
    error = (pictures.double() - truth.double()).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / error)


def ssim(pictures: Tensor, truth: Tensor) -> Tensor:
    """Return each picture's structural similarity, (N,) in [-1, 1], of uint8 sRGB pictures (N, 3, H, W).

    Wang et al. 2004: an 11x11 Gaussian window of standard deviation 1.5, K1 0.01, K2 0.03, the mean over the places where
    the window fits and over the channels, as scikit-image has it (torchmetrics' mean takes in reflected borders). Pictures
    less than 11 pixels wide or high have nan.
    """
    from kornia.metrics import ssim as similarity

    if min(pictures.shape[2:]) < 11:
        return torch.full((len(pictures),), float("nan"), dtype=torch.float64, device=pictures.device)

    scores: Tensor = similarity(pictures.double() / 255, truth.double() / 255, 11, padding="valid")
    return scores.mean(dim=(1, 2, 3))


def colourfulness(pictures: Tensor) -> Tensor:
    """Return each picture's colourfulness, (N,), of uint8 sRGB pictures (N, 3, H, W): 0 for grey, above 100 for vivid.

    Hasler and Suesstrunk 2003, M3 = sqrt(var rg + var yb) + 0.3 sqrt(mean rg^2 + mean yb^2), with rg = R - G and
    yb = (R + G) / 2 - B.
    """
    red, green, blue = pictures.double().unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(start_dim=2)
    spread = opponents.var(dim=2, correction=0).sum(dim=0).sqrt()
    distance = opponents.mean(dim=2).square().sum(dim=0).sqrt()
    return spread + 0.3 * distance
