"""Encoders that see only the visible places of images, for masked image modelling.

A convolution spreads what it sees, so hidden places of a dense encoder fill up from level to level. As in Tian et al. 2023
(SparK, https://arxiv.org/abs/2301.03580, section 3.2) every level is therefore masked again, and batch norms take their
statistics from visible places alone, so that they fit whole images later. A transformer gets a learned token in place of the
patches that are hidden, as in Xie et al. 2022 (SimMIM, https://arxiv.org/abs/2111.09886, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.contract import Trunk
from bench.models.shards import own


class Mask:
    """Which cells of images are visible, bool (N, 1, cells, cells), as many in each image, at any resolution.

    Inside a network whose images several devices share, the masks are those of a device's own images.
    """

    def __init__(self, visible: Tensor, count: int) -> None:
        self.visible, self.count, self.cells = visible, count, visible.shape[-1]
        self._at: dict[tuple[int, int], Tensor] = {}
        self._rows: dict[tuple[int, int], Tensor] = {}

    def hides(self, side: int) -> bool:
        """Tell whether places of a level of `side` x `side` are hidden: not at levels that are coarser than the cells."""
        return side % self.cells == 0

    def at(self, side: int) -> Tensor:
        """Return the mask at a resolution, bool (N, 1, side, side)."""
        visible = own(self.visible)
        place = side, len(visible)
        if place not in self._at:
            times = side // self.cells
            self._at[place] = visible.repeat_interleave(times, 2).repeat_interleave(times, 3)
        return self._at[place]

    def rows(self, side: int) -> Tensor:
        """Return the numbers of the visible places among all of a batch, int64; how many is known without asking the device."""
        mask = self.at(side)
        place = side, len(mask)
        if place not in self._rows:
            number = len(mask) * self.count * (side // self.cells) ** 2
            self._rows[place] = mask.flatten().int().argsort(descending=True, stable=True)[:number]
        return self._rows[place]


def draw_mask(images: int, cells: int, hidden: float, generator: torch.Generator) -> Tensor:
    """Return which cells are visible, bool (N, 1, cells, cells): a share `hidden` of each image's cells is not, at random."""
    order = torch.rand(images, cells * cells, generator=generator, device=generator.device).argsort(dim=1).argsort(dim=1)
    return (order < visible_cells(cells, hidden)).view(images, 1, cells, cells)


def fixed_generator(device: torch.device) -> torch.Generator:
    """Return a generator whose numbers are always the same, so that scores and those of baselines are of the same masks."""
    return torch.Generator(device).manual_seed(0)


def visible_cells(cells: int, hidden: float) -> int:
    """Return how many of an image's cells are visible, at least one."""
    return max(1, round(cells * cells * (1 - hidden)))


def patch_embedding(trunk: Trunk) -> nn.Module | None:
    """Return the layer that makes a transformer's tokens out of patches; None for a network of convolutions."""
    return next((part for name, part in trunk.down.named_modules() if name.split(".")[-1] == "patch_embed"), None)


@contextmanager
def masked(trunk: Trunk, mask: Mask, token: Tensor | None) -> Iterator[None]:
    """Let the encoder see visible places alone inside the block; `token` (C,) stands for a transformer's hidden patches."""
    embedding = patch_embedding(trunk)
    with ExitStack() as stack:
        if embedding is not None and token is not None:
            handle = embedding.register_forward_hook(partial(_with_tokens, mask, token))
            stack.callback(handle.remove)
        else:
            for part in trunk.down.modules():
                if isinstance(part, _BatchNorm):
                    stack.enter_context(_replaced(part, partial(_visible_batch_norm, part, mask)))
                elif isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                    handle = part.register_forward_hook(partial(_hidden_again, mask))
                    stack.callback(handle.remove)
        yield


def _with_tokens(mask: Mask, token: Tensor, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Replace hidden tokens in (N, L, C) or (N, h, w, C)."""
    side = output.shape[1] if output.dim() == 4 else round(output.shape[1] ** 0.5)
    visible = mask.at(side)[:, 0] if output.dim() == 4 else mask.at(side).flatten(1)
    return torch.where(visible[..., None], output, token.to(output.dtype))


def _hidden_again(mask: Mask, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output * mask.at(output.shape[-1]).to(output.dtype) if mask.hides(output.shape[-1]) else output


@contextmanager
def _replaced(part: nn.Module, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    part.forward = forward
    try:
        yield
    finally:
        del part.forward


def _visible_batch_norm(part: _BatchNorm, mask: Mask, inputs: Tensor) -> Tensor:
    """Return the batch norm of visible places, zero elsewhere; its statistics are those of visible places."""
    side = inputs.shape[-1]
    if not mask.hides(side):
        return type(part).forward(part, inputs)
    last = inputs.permute(0, 2, 3, 1)
    rows, places = mask.rows(side), last.reshape(-1, last.shape[-1])
    seen = type(part).forward(part, places[rows][:, :, None, None])[:, :, 0, 0]
    found = torch.zeros_like(places, dtype=seen.dtype).index_copy(0, rows, seen)
    return found.view(last.shape).permute(0, 3, 1, 2)
