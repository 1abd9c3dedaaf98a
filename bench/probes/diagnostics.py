"""What features look like without labels: their rank, how mirroring changes them, how they spread, and dead channels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bench.probes.features import is_constant
from bench.selection import LevelDiagnostics

EPSILON = 1e-7
"""What RankMe adds to each share of the singular values, for float32 features."""
PAIRED = 2048
"""How many images, at most, uniformity compares with each other: the first ones."""


def diagnostics(features: Tensor, mirrored: Tensor) -> LevelDiagnostics:
    """Return the diagnostics of one encoder level from float32 features (N, C) of N images and of the same images mirrored.

    With z the features of an image, scaled to length 1, z' those of its mirror image, and s_k the min(N, C) singular values:

    - RankMe is exp(-sum_k p_k log p_k) with p_k = s_k / sum_j s_j + 1e-7. The features are not centred.
      Source: Garrido et al. 2023, arXiv:2210.02885.
    - Effective rank is exp(-sum_k p_k log p_k) with p_k = s_k / sum_j s_j, of features whose mean over images is subtracted:
      directions in which images differ. Roy and Vetterli define it for any matrix; the centring is the bench's.
      Source: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality", EUSIPCO.
    - Alignment is the mean of |z - z'|^2 over images, in [0, 4]; 0 is best.
    - Uniformity is log of the mean of exp(-2 |z_i - z_j|^2) over pairs of different images, in [-8, 0]; lower is more uniform,
      and 0 means that all features point in one direction. It compares the first 2048 images.
      Source of both: Wang & Isola 2020, arXiv:2005.10242.
    - Dead channels are the share of channels whose standard deviation over images is at most 1e-6 (1 + |mean|), which
      `bench.probes.features.standardised` sets to 0.

    Features of length 0 have no direction and are left out of alignment and uniformity. What is not defined is None: both ranks
    and uniformity of fewer than two images, RankMe and alignment where all features are 0, effective rank where all channels are
    dead. Everything is computed in float64. Raises ValueError when the two tensors differ in shape.
    """
    if features.shape != mirrored.shape:
        raise ValueError(f"Features {tuple(features.shape)} and mirrored features {tuple(mirrored.shape)} differ in shape.")
    images, channels = features.shape
    features, mirrored = features.double(), mirrored.double()
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    dead = is_constant(mean, deviation)
    several = images > 1
    return LevelDiagnostics(
        channels=channels,
        images=images,
        rankme=_rank(features, EPSILON) if several else None,
        effective_rank=_rank(features - mean, 0.0) if several and not dead.all() else None,
        alignment=_alignment(features, mirrored),
        uniformity=_uniformity(features),
        dead_channels=float(dead.double().mean()),
    )


def _rank(matrix: Tensor, epsilon: float) -> float | None:
    """Return the exponential of the entropy of the singular values' shares; None where all are 0."""
    values = torch.linalg.svdvals(matrix)
    total = values.sum()
    return float(torch.special.entr(values / total + epsilon).sum().exp()) if total > 0 else None


def _alignment(features: Tensor, mirrored: Tensor) -> float | None:
    kept = features.any(dim=1) & mirrored.any(dim=1)
    differences = functional.normalize(features[kept], eps=0) - functional.normalize(mirrored[kept], eps=0)
    return float(differences.square().sum(dim=1).mean()) if len(differences) else None


def _uniformity(features: Tensor) -> float | None:
    directions = functional.normalize(features[features.any(dim=1)][:PAIRED], eps=0)
    count = len(directions)
    if count < 2:
        return None
    squares = 2 - 2 * directions @ directions.T
    return float((-2 * squares).exp().fill_diagonal_(0).sum().div(count * (count - 1)).log())
