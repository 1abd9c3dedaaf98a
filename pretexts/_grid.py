"""A grid of nine patches, counted by rows, and pairs of them that lie side by side.

The second of a pair lies at one of eight places around the first, which are counted by rows too.
"""

from __future__ import annotations

import torch
from torch import Tensor


def steps(places: Tensor) -> Tensor:
    """Return the rows and columns (*, 2), -1 to 1, from the first patch of a pair to the second, by places (*)."""
    around = places + (places >= 4)
    return torch.stack([around // 3 - 1, around % 3 - 1], dim=-1)


def draw_pairs(count: int, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the cells of pairs (N, 8 * each, 2) for N images and the places of the second, (N, 8 * each), in a drawn order.

    `each`, 1 to 4: how many pairs of every place an image has, drawn without replacement; the corners of the places have four.
    """
    device = generator.device
    step, first = steps(torch.arange(8, device=device)), torch.arange(9, device=device)
    second = torch.stack([first // 3, first % 3], dim=1) + step[:, None]
    outside = ((second < 0) | (second > 2)).any(dim=2)
    firsts = torch.rand((count, 8, 9), generator=generator, device=device).masked_fill(outside, 2).argsort(dim=2)[..., :each]
    pairs = torch.stack([firsts, firsts + (3 * step[:, :1] + step[:, 1:])], dim=3).flatten(1, 2)
    order = torch.rand((count, 8 * each), generator=generator, device=device).argsort(dim=1)
    return pairs.gather(1, order[..., None].expand(-1, -1, 2)), order // each


def at_cells(values: Tensor, cells: Tensor) -> Tensor:
    """Return, of each image's values (N, 9, ...), those of its `cells` (N, A, B): (N, A, B, ...)."""
    return values[torch.arange(len(cells), device=cells.device)[:, None, None], cells]
