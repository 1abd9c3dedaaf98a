"""Relative patches: at which of the eight places around one patch of an image does a second one lie?

Doersch et al. 2015, https://arxiv.org/abs/1505.05192, on the bench's trunk. Its released code reports 51.4 % mAP on VOC 2007
detection, after 1.7 million steps on ImageNet.

    bench run --pretext relative_patch --downstream voc_cls --trunk timm:resnet18 --size 96

A grid of nine patches, with gaps and jitter, goes through the encoder once, each patch enlarged to the smallest size that the
trunk takes: that is the cost of a step. The features of two patches side by side are joined by two dense layers (late fusion; the
released code has three); a patch is in many pairs, and every place is asked about as often. Each patch has its own mean and
deviation removed.
Against chromatic aberration, which tells where in the image a patch lies, colours are dropped or projected; a trunk that sees
lightness alone has none. `audit` measures what is left, and knowing the place of one of two patches alone would answer 28 %. The
grid fills the image, unlike the paper's: what tells a patch's place in the image tells its place in the grid. The paper's random
reduction of patches is left out: ours are small as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Batch, Pretext, Recipe, Trunk
from bench.models.modes import inference_with
from pretexts._grid import at_cells, draw_pairs, steps
from pretexts._patches import Classification, Colours, check_patch, cut, fed_side, hide_colours, late_fusion, paste, place_known


class RelativePatchRecipe(Recipe):
    """Patches as in the paper, but as shares of the image; the preset `paper` is the paper's training."""

    patch: float = Field(default=0.22, gt=0, lt=1)  # side as a share of the image's: the grid fills the image; in the paper 96 px
    gap: float = Field(default=0.5, ge=0)  # between patches, in sides of a patch; section 3.1, 48 of 96 px
    jitter: float = Field(default=7 / 96, ge=0)  # of a patch's place to either side, in sides of a patch; section 3.1, 7 of 96 px
    colours: Colours = "drop"  # of trunks that see colour; section 3.1 has both
    pairs: int = Field(default=4, ge=1, le=4)  # of each place an image; the released code has all, 4 or 6 a place
    head_width: int = Field(default=4096, ge=1)  # figure 3


def layout(recipe: RelativePatchRecipe, size: int) -> tuple[int, int, int]:
    """Return a patch's side, the gap and the jitter for images of `size` pixels; UsageError where they do not fit."""
    patch = int(size * recipe.patch)
    gap, jitter = round(patch * recipe.gap), max(1 if recipe.jitter else 0, round(patch * recipe.jitter))
    check_patch("relative_patch", patch, 3 * patch + 2 * gap + 2 * jitter, size)
    return patch, gap, jitter


class RelativePatch(Classification):
    """Classification of where a second patch lies, among the eight places around the first."""

    paper: ClassVar[str] = "Doersch et al. 2015, https://arxiv.org/abs/1505.05192"
    Recipe = RelativePatchRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**Pretext.presets["demo"], "head_width": 256},
        "small": {
            "epochs": 25, "batch_size": 16, "lr": 1e-3, "beta1": 0.9, "lr_schedule": "cosine", "evaluation_images": 200,
            "visualize_epochs": (1, 10, 25), "head_width": 512,
        },
        "paper": {  # released: 1.7 million steps of 512 patches, 1e-5 on the sum of about 2,000 pairs; the paper names no rate
            "epochs": 75, "batch_size": 57, "optimizer": "sgd", "lr": 0.02, "momentum": 0.0, "visualize_epochs": (1, 25, 75),
        },
    }  # fmt: skip
    version: ClassVar[int] = 2
    """2: pairs all over the grid. In version 1 the first was always the middle patch."""
    classes = 8

    def __init__(self, recipe: RelativePatchRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.head = late_fusion(2 * trunk.bottleneck_channels, recipe.head_width, self.classes)

    @classmethod
    def feeds(cls, recipe: RelativePatchRecipe, size: int, smallest: int) -> Mapping[str, int]:
        """Return the side of the patches as they are fed; UsageError where the image is too small for the grid."""
        return {"patches": fed_side(layout(recipe, size)[0], smallest)}

    def corners(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the first pixels (N, 9, 2) of nine patches: a grid at a random place, and each patch moved by its jitter."""
        size = images.shape[-1]
        patch, gap, jitter = layout(self.recipe, size)
        device, count = images.device, len(images)
        free = size - 3 * patch - 2 * gap - 2 * jitter
        start = torch.randint(free + 1, (count, 1, 2), generator=generator, device=device)
        moved = torch.randint(2 * jitter + 1, (count, 9, 2), generator=generator, device=device)
        lines = torch.arange(3, device=device) * (patch + gap)
        return start + torch.cartesian_prod(lines, lines) + moved

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return nine `patches` (N, 9, C, side, side), the cells of their `pairs` (N, Q, 2) and `target` (N, Q), places 0 to 7.

        The pairs and their order are drawn; `corners` (N, 9, 2) has the first pixel of each patch.
        """
        corners = self.corners(images, generator)
        pairs, target = draw_pairs(len(images), self.recipe.pairs, generator)
        return {"patches": self.patches(images, corners, generator), "corners": corners, "pairs": pairs, "target": target}

    def patches(self, images: Tensor, corners: Tensor, generator: torch.Generator) -> Tensor:
        """Return the patches at `corners` (N, P, 2) as they are fed but for their size: (N, P, C, side, side)."""
        patch = layout(self.recipe, images.shape[-1])[0]
        return hide_colours(cut(self.trunk.preprocessing(images), corners, patch), self.recipe.colours, generator)

    def logits(self, batch: Batch) -> Tensor:
        """Return the scores of the eight places for each pair, (N, Q, 8)."""
        joined = at_cells(self.pooled_patches(batch["patches"]), batch["pairs"]).flatten(start_dim=2)
        scores: Tensor = self.head(joined.flatten(end_dim=1))
        return scores.view(*joined.shape[:2], -1)

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return two patches side by side, then on the darkened image the second where the answer puts it, and where it lies."""
        batch, chosen = self.answers(images, generator)
        size, device, corners = images.shape[-1], images.device, at_cells(batch["corners"], batch["pairs"][:, :1])[:, 0]
        patch, gap, _ = layout(self.recipe, size)
        patches = cut(images, corners, patch)
        left = (size - 2 * patch - gap) // 2
        aside = torch.tensor([[(size - patch) // 2, left], [(size - patch) // 2, left + patch + gap]], device=device)
        offset = steps(chosen[:, :1]) * (patch + gap)
        said = torch.cat([corners[:, :1], (corners[:, :1] + offset).clamp(0, size - patch)], dim=1)
        return {
            "asked": paste(torch.zeros_like(images), patches, aside.expand(len(images), -1, -1)),
            "learned": paste(images // 3, patches, said),
            "truth": paste(images // 3, patches, corners),
        }

    def audit(self, images: Tensor, generator: torch.Generator) -> float:
        """Return how often a linear probe tells from one patch alone which cell of the grid it is from; guessing has 1 / 9.

        Section 4.2.1: what gives the absolute place away is a shortcut. `images` are uint8 (N, 3, H, W), two at least.
        """
        with inference_with(self, self.recipe.statistics):
            patches = self.patches(images, self.corners(images, generator), generator)
            return float(place_known(self.pooled_patches(patches)))
