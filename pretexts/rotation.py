"""Rotation: by how many quarter turns was an image turned?

Gidaris et al. 2018, https://arxiv.org/abs/1803.07728, on the bench's trunk. Reported there on ImageNet with AlexNet: VOC 2007
classification 73.0 % mAP, detection 54.4 % mAP, VOC 2012 segmentation 39.1 % mIU.

    bench run --pretext rotation --downstream voc_cls

All four turns of an image are in one batch, so a step costs four images; batch norm sees all turns. A turn moves pixels and
resamples none, so it leaves no traces. What does leave one: photographs that were squashed to a square show in which direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.contract import Batch, Pretext, Recipe, Trunk
from bench.views import View
from pretexts._patches import Classification

TURNS = 4


class RotationRecipe(Recipe):
    """Epochs, batch size and rate as for the colorization tasks, for comparison; the preset `paper` is the paper's."""

    crop: float = Field(default=0.08, gt=0, le=1)  # the least area of a random crop, as a share; the released code; 1: no crop
    flip: float = Field(default=0.5, ge=0, le=1)  # the chance that an image is mirrored before it is turned; the released code


class Rotation(Classification):
    """Classification of an image's turn: 0, 90, 180 or 270 degrees counter-clockwise."""

    paper: ClassVar[str] = "Gidaris et al. 2018, https://arxiv.org/abs/1803.07728"
    Recipe = RotationRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": Pretext.presets["demo"],
        "small": {
            "epochs": 10, "batch_size": 16, "lr": 1e-3, "beta1": 0.9, "lr_schedule": "cosine", "crop": 0.5,
            "evaluation_images": 200, "visualize_epochs": (1, 5, 10),
        },
        "paper": {  # section 3.2, for ImageNet; the released code has 50 epochs from 0.1; a batch of 192 images is 768 inputs
            "epochs": 30, "batch_size": 192, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4,
            "lr_schedule": "step", "lr_drops": (1 / 3, 2 / 3), "visualize_epochs": (1, 10, 30),
        },
    }  # fmt: skip
    classes = TURNS

    def __init__(self, recipe: RotationRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.head = nn.Linear(trunk.bottleneck_channels, TURNS)

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return preprocessed `inputs` (4N, C, H, W), each image in its four turns, and `target` (N, 4): which turn each is.

        The order of an image's turns is drawn, so another image's targets say nothing of its own. In training the images are
        cropped and mirrored first.
        """
        if self.training:
            size, scale = images.shape[-1], (self.recipe.crop, 1.0)
            images = View(size=size, scale=scale, flip=self.recipe.flip, jitter=0, grey=0, blur=0)(images, generator)
        target = torch.rand((len(images), TURNS), generator=generator, device=images.device).argsort(dim=1)
        image = torch.arange(len(images), device=images.device)[:, None]
        return {"inputs": turned(self.trunk.preprocessing(images))[image, target].flatten(end_dim=1), "target": target}

    def logits(self, batch: Batch) -> Tensor:
        """Return the scores of the turns for each turn of each image, (N, 4, 4)."""
        scores: Tensor = self.head(self.pooled(batch["inputs"]))
        return scores.view(-1, TURNS, TURNS)

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return each image in a random turn, that turned back by the answer, and the image."""
        batch, chosen = self.answers(images, generator)
        image = torch.arange(len(images), device=images.device)
        turn, turns = batch["target"][:, 0], turned(images)
        return {"asked": turns[image, turn], "learned": turns[image, (turn - chosen[:, 0]) % TURNS], "truth": images}


def turned(images: Tensor) -> Tensor:
    """Return square images (N, C, H, H) turned by 0, 90, 180 and 270 degrees counter-clockwise, (N, 4, C, H, H)."""
    return torch.stack([torch.rot90(images, turns, dims=(2, 3)) for turns in range(TURNS)], dim=1)
