"""Jigsaw puzzles: in which of some fixed orders were the nine tiles of an image handed over?

Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246, on the bench's trunk. Reported there on ImageNet with AlexNet's layers:
88 % of puzzles with 100 orders and 71 % of those with 1,000 solved; VOC 2007 classification 67.6 % mAP, detection 53.2 % mAP,
VOC 2012 segmentation 37.6 % mIU.

    bench run --pretext jigsaw --downstream voc_cls --trunk timm:resnet18 --size 96

Each tile is a random crop inside its cell of a 3 x 3 grid, so edges do not continue, and has its own mean and deviation removed.
All nine go through one encoder, enlarged to the smallest size that the trunk takes; batch norm sees all tiles. Their features,
in the order that is asked about, are joined by two dense layers. As a tile's features do not depend on the order, several puzzles
of an image cost little more than one; the paper has one. A trunk that sees colour gets grey images and shifted channels, against
chromatic aberration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench import colour
from bench.contract import Batch, Pretext, Recipe, Trunk
from pretexts._patches import Classification, check_patch, cut, fed_side, late_fusion, paste, standardised
from pretexts._permutations import TILES, permutations


class JigsawRecipe(Recipe):
    """Tiles as in the paper, but as shares of the image; the preset `paper` is the paper's training."""

    permutations: int = Field(default=100, ge=2, le=5000)  # the released code's first network; 1,000 in the paper
    tile: float = Field(default=64 / 85, gt=0, le=1)  # its side as a share of a cell's; section 3.1: 64 of 85 px
    puzzles: int = Field(default=1, ge=1)  # orders an image that are asked about in a step
    grey: float = Field(default=0.3, ge=0, le=1)  # the share of images that are grey, for trunks that see colour; section 4
    shift: float = Field(default=2 / 64, ge=0)  # of a colour channel to either side, in sides of a tile; section 4, 2 of 64 px
    head_width: int = Field(default=4096, ge=1)  # figure 3


def layout(recipe: JigsawRecipe, size: int) -> tuple[int, int]:
    """Return the sides of a cell and of a tile for images of `size` pixels; UsageError where the tile is too small."""
    cell = size // 3
    tile = round(cell * recipe.tile)
    check_patch("jigsaw", tile, 3 * tile, size)
    return cell, tile


class Jigsaw(Classification):
    """Classification of the order of nine tiles, among permutations that differ at as many places as possible."""

    paper: ClassVar[str] = "Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246"
    Recipe = JigsawRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**Pretext.presets["demo"], "head_width": 256, "puzzles": 4},
        "small": {
            "epochs": 15, "batch_size": 16, "lr": 1e-3, "beta1": 0.9, "lr_schedule": "cosine", "evaluation_images": 200,
            "visualize_epochs": (1, 5, 15), "head_width": 512, "puzzles": 8,
        },
        "paper": {  # section 4 and the released solver; 350,000 steps of 256 images are 70 epochs of ImageNet
            "epochs": 70, "batch_size": 256, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4,
            "lr_schedule": "step", "lr_drops": (2 / 7, 4 / 7, 6 / 7), "visualize_epochs": (1, 20, 70), "permutations": 1000,
        },
    }  # fmt: skip
    digest: ClassVar[str] = "4cc98186deceb0f0"
    """That of the first 100 permutations: where it changes, `version` is to be raised."""
    orders: Tensor

    def __init__(self, recipe: JigsawRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.classes = recipe.permutations
        orders = torch.from_numpy(permutations(self.classes).astype("int64"))
        self.register_buffer("orders", orders, persistent=False)
        self.head = late_fusion(TILES * trunk.bottleneck_channels, recipe.head_width, self.classes)

    @classmethod
    def feeds(cls, recipe: JigsawRecipe, size: int, smallest: int) -> Mapping[str, int]:
        """Return the side of the tiles as they are fed; UsageError where the image is too small for nine."""
        return {"tiles": fed_side(layout(recipe, size)[1], smallest)}

    def cells(self, images: Tensor) -> Tensor:
        """Return the first pixel of each cell, (9, 2), by rows."""
        cell = layout(self.recipe, images.shape[-1])[0]
        steps = torch.arange(3, device=images.device) * cell
        return torch.cartesian_prod(steps, steps)

    def corners(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the first pixel of each tile, (N, 9, 2): anywhere in its cell."""
        cell, tile = layout(self.recipe, images.shape[-1])
        moved = torch.randint(cell - tile + 1, (len(images), TILES, 2), generator=generator, device=images.device)
        return self.cells(images) + moved

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return the `tiles` (N, 9, C, side, side) where they belong, the `order` (N, puzzles, 9), and its `target` (N, puzzles).

        Place i of a puzzle has tile order[i]; the target is the number of that permutation. `corners` (N, 9, 2) has the tiles'
        first pixels.
        """
        corners = self.corners(images, generator)
        target = torch.randint(self.classes, (len(images), self.recipe.puzzles), generator=generator, device=images.device)
        return {
            "tiles": self.tiles(images, corners, generator),
            "order": self.orders[target],
            "target": target,
            "corners": corners,
        }

    def tiles(self, images: Tensor, corners: Tensor, generator: torch.Generator) -> Tensor:
        """Return standardised tiles (N, 9, C, side, side); of colour images some grey, and all with shifted channels."""
        inputs = self.trunk.preprocessing(images)
        tile = layout(self.recipe, images.shape[-1])[1]
        if inputs.shape[1] == 1:
            return standardised(cut(inputs, corners, tile))
        grey = torch.rand(len(images), generator=generator, device=images.device) < self.recipe.grey
        lightness = self.trunk.preprocessing.grey(colour.lightness_of(images))
        inputs = torch.where(grey[:, None, None, None], lightness, inputs)
        most = round(tile * self.recipe.shift)
        shifts = torch.randint(-most, most + 1, (3, *corners.shape), generator=generator, device=images.device)
        shifts = torch.where(grey[:, None, None], 0, shifts)
        places = (corners + shifts).clamp(0, images.shape[-1] - tile)
        return standardised(torch.cat([cut(inputs[:, at : at + 1], places[at], tile) for at in range(3)], dim=2))

    def logits(self, batch: Batch) -> Tensor:
        """Return the scores of the permutations for each puzzle, (N, puzzles, permutations)."""
        features, order = self.pooled_patches(batch["tiles"]), batch["order"]
        image = torch.arange(len(order), device=order.device)[:, None, None]
        scores: Tensor = self.head(features[image, order].flatten(end_dim=1).flatten(start_dim=1))
        return scores.view(*order.shape[:2], -1)

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the tiles in the order that was asked about, put back by the answer, and where they belong."""
        batch, chosen = self.answers(images, generator)
        cell, tile = layout(self.recipe, images.shape[-1])
        places = (self.cells(images) + (cell - tile) // 2).expand(len(images), -1, -1)
        true = cut(images, batch["corners"], tile)
        image = torch.arange(len(images), device=images.device)[:, None]
        asked = true[image, batch["order"][:, 0]]
        back = asked[image, self.orders[chosen[:, 0]].argsort(dim=1)]
        rows = {"asked": asked, "learned": back, "truth": true}
        return {name: paste(torch.zeros_like(images), tiles, places) for name, tiles in rows.items()}
