"""What contrastive tasks share: the loss that finds an image's other view among many, the projector, and the views."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed import get_world_size, is_available, is_initialized
from torch.nn.functional import cross_entropy, normalize


def similarities(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines (2N, 2M) of N pairs of embeddings (N, C) with all M of all devices, and each row's right column (2N,).

    The cosine of an embedding with itself is minus infinity.
    """
    mine = normalize(torch.cat([first, second]).float(), dim=1)
    own = torch.arange(len(mine), device=mine.device)
    if is_available() and is_initialized() and get_world_size() > 1:
        from torch.distributed import get_rank
        from torch.distributed.nn.functional import all_gather

        everyone = torch.cat(all_gather(mine))  # type: ignore[no-untyped-call]
        offset = get_rank() * len(mine)
    else:
        everyone, offset = mine, 0
    found = (mine @ everyone.T).scatter(1, (own + offset)[:, None], -torch.inf)
    return found, (own + len(first)) % len(mine) + offset


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy of N pairs of embeddings (N, C), a scalar.

    Chen et al. 2020, https://arxiv.org/abs/2002.05709, equation 1 and algorithm 1: each of the 2N views is to be nearest to the
    other view of its image among the 2N - 1 others, on all devices together.
    """
    found, right = similarities(first, second)
    return cross_entropy(found / temperature, right)


class Projector(nn.Sequential):
    """Two dense layers with batch norm and ReLU between them, (N, C) to (N, `channels`); Chen et al. 2020, section 4.2."""

    def __init__(self, before: int, width: int, channels: int) -> None:
        super().__init__(
            nn.Linear(before, width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Linear(width, channels, bias=False),
            nn.BatchNorm1d(channels, affine=False),
        )
