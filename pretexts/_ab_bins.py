"""The bins of the ab plane that Zhang et al. 2016 classify colours into, https://arxiv.org/abs/1603.08511, sections 2.1 to 2.3.

The paper quantises ab with side 10 and keeps the 313 bins that are in gamut, but does not say when a bin is. The released list is
what this rule gives: a point of the grid is a bin when one of the four squares that meet in it touches the convex hull of all
sRGB colours in ab. No point of the grid is nearer than 0.08 to the rule's border, so rounding cannot change the list.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import torch
from torch import Tensor, nn

from bench import colour

SIDE = 10
GREY = 5 / 128
"""An image whose a and b are within 5 of 0 everywhere is taken for grey, as in the released code."""
CELL, CELLS = 4, 64
"""ab from -128 to 128 in cells of side 4, each of which has a list of the bins that can be near a colour in it."""


@lru_cache
def in_gamut() -> Tensor:
    """Return the centres of the bins in CIELAB units, (313, 2), in ascending order of a, then b."""
    from scipy.spatial import ConvexHull

    levels = torch.arange(0, 256, 17, dtype=torch.uint8)
    colours = torch.cartesian_prod(levels, levels, levels)[:, :, None, None]
    ab = colour.split_lab(colours)[1].flatten(start_dim=1).double() * 128
    corners = torch.tensor(list(product((-SIDE, SIDE), repeat=2)), dtype=torch.float64)
    hull = torch.from_numpy(ConvexHull((ab[:, None] + corners).flatten(end_dim=1).numpy()).equations)
    grid = torch.arange(-130, 131, SIDE, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    inside: Tensor = (points @ hull[:, :2].T + hull[:, 2] <= 0).all(dim=1)
    return points[inside].float()


@lru_cache
def near_cells(neighbours: int) -> Tensor:
    """Return for each cell the bins that can be among the nearest of a colour in it, (cells, candidates): a's cells are slower.

    A bin can be, if its least distance to the cell is not above the `neighbours`-th smallest of all bins' greatest distances.
    """
    centre = torch.arange(CELLS) * CELL - 128 + CELL / 2
    away = (torch.cartesian_prod(centre, centre)[:, None] - in_gamut()).abs()
    greatest = (away + CELL / 2).norm(dim=2).kthvalue(neighbours, dim=1, keepdim=True).values
    least = (away - CELL / 2).clamp(min=0).norm(dim=2)
    most = int((least <= greatest + 1e-3).sum(dim=1).max())
    candidates: Tensor = least.topk(most, dim=1, largest=False).indices
    return candidates


def is_coloured(chroma: Tensor) -> Tensor:
    """Tell of which images of chroma (N, 2, H, W) a or b is somewhere beyond the threshold, bool (N,)."""
    return (chroma.abs() > GREY).flatten(start_dim=1).any(dim=1)


class AbBins(nn.Module):
    """The bins, colours as distributions over them and back, and how rare each bin is among the training images' colours."""

    centres: Tensor
    candidates: Tensor
    prior: Tensor

    def __init__(self, neighbours: int, sigma: float) -> None:
        super().__init__()
        self.neighbours, self.sigma = neighbours, sigma
        self.register_buffer("centres", in_gamut().clone(), persistent=False)
        self.register_buffer("candidates", near_cells(neighbours).clone(), persistent=False)
        self.register_buffer("prior", torch.full((len(self),), 1 / len(self)))

    def __len__(self) -> int:
        """Return how many bins there are."""
        return len(self.centres)

    def encode(self, chroma: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest bins, nearest first, and their shares, both (N, neighbours, H, W), for chroma (N, 2, H, W).

        `chroma` is ab / 128. Shares are Gaussian in the distance to a bin's centre, and their sum is 1 (section 2.1).
        """
        ab = chroma.float().permute(0, 2, 3, 1) * 128
        cell = ((ab + 128) / CELL).long().clamp(0, CELLS - 1)
        candidates = self.candidates[cell[..., 0] * CELLS + cell[..., 1]]
        distance = (self.centres[candidates] - ab[..., None, :]).square().sum(dim=-1)
        nearest = distance.topk(self.neighbours, dim=-1, largest=False)
        shares = (nearest.values / (-2 * self.sigma**2)).softmax(dim=-1)
        return candidates.gather(-1, nearest.indices).permute(0, 3, 1, 2), shares.permute(0, 3, 1, 2)

    def count(self, chroma: Tensor) -> Tensor:
        """Return how many colours of chroma (..., 2, H, W) are nearest to each bin, int64 (bins,)."""
        return torch.bincount(self.encode(chroma)[0][:, 0].flatten(), minlength=len(self))

    def set_prior(self, counts: Tensor) -> None:
        """Keep the smoothed distribution (section 2.2) of colours that were counted by nearest bin, (bins,).

        Each bin's share is spread by the Gaussian over all bins. Without a count the prior stays uniform.
        """
        if counts.any():
            distance = torch.cdist(self.centres.double(), self.centres.double())
            spread = (distance.square() / (-2 * self.sigma**2)).softmax(dim=1)
            self.prior.copy_(counts.double() / counts.sum() @ spread)

    def weights(self, uniform: float) -> Tensor:
        """Return each bin's weight, (bins,): 1 / ((1 - uniform) prior + uniform / bins), times what makes its expectation 1.

        The paper's equation 4; `uniform` is its lambda.
        """
        weights = 1 / ((1 - uniform) * self.prior + uniform / len(self))
        return weights / (weights * self.prior).sum()

    def decode(self, logits: Tensor, temperature: float) -> Tensor:
        """Return the annealed mean (N, 2, H, W) as ab / 128 of logits (N, bins, H, W): the paper's equation 5.

        A temperature of 1 gives the mean of the distribution; towards 0 it becomes the most probable bin.
        """
        shares = (logits.float() / temperature).softmax(dim=1)
        return torch.stack([(shares * axis[:, None, None]).sum(dim=1) for axis in self.centres.T / 128], dim=1)
