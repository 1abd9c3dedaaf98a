"""SimCLR: two views of each image are to be told from the views of all other images of the batch.

Chen et al. 2020, https://arxiv.org/abs/2002.05709: 69.3 % ImageNet linear accuracy with a ResNet-50, batches of 4,096 and 1,000
epochs. A run here: `bench run --pretext simclr --trunk timm:resnet18,preprocessing=rgb --downstream voc_cls`. A step computes two
images of the trunk's size for each image. What it should reach: its own accuracy, the other view of an image found among the
views of a batch, above a half on held-out images. A trunk that sees lightness alone is given views whose colours differ and
which look alike to it but for their brightness and contrast, so the task is easier and teaches less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Batch, Recipe, Trunk
from bench.protocol import OptimizerName, RateScaling, RateSchedule
from pretexts._contrastive import Projector, TwoViews, nt_xent


class SimclrRecipe(Recipe):
    """Defaults are the paper's for ImageNet, with its smallest batch; the presets for small images use Adam."""

    epochs: int = Field(default=100, ge=0)  # figure 9 and table 5: the shortest training in the paper
    batch_size: int = Field(default=256, ge=2)  # figure 9: the smallest in the paper, whose usual is 4,096
    optimizer: OptimizerName = "lars"  # section 2.2
    lr: float = Field(default=0.3, gt=0)  # section 2.2: 0.3 x batch size / 256
    lr_scaling: RateScaling = "linear"
    lr_schedule: RateSchedule = "cosine"  # section 2.2
    warmup_epochs: float = Field(default=10.0, ge=0)  # section 2.2
    weight_decay: float = Field(default=1e-6, ge=0)  # section 2.2
    beta1: float = Field(default=0.9, ge=0, lt=1)  # Adam's alone; torch's default
    temperature: float = Field(default=0.1, gt=0)  # table 5, the best of a batch of 4,096 and 100 epochs
    projector_width: int = Field(default=2048, ge=1)  # as wide as the last level of the paper's ResNet-50
    projector_channels: int = Field(default=128, ge=1)  # section 2.2
    crop_scale: float = Field(default=0.08, gt=0, le=1)  # the least share of an image's area that a view shows; appendix A
    colour_strength: float = Field(default=1.0, ge=0)  # appendix A; the paper has 0.5 for the small images of CIFAR-10
    blur: float = Field(default=0.5, ge=0, le=1)  # the chance of blur; appendix A; none for CIFAR-10
    enlarged: float = Field(default=1.15, ge=1)  # the side of the images that views are cut from, in sides of a view


SMALL: dict[str, Any] = {
    "optimizer": "adam", "lr": 1e-3, "lr_scaling": "none", "crop_scale": 0.2, "colour_strength": 0.5, "blur": 0.0,
    "projector_width": 512, "evaluation_images": 200,
}  # fmt: skip
"""For small images, which the paper's appendix B.9 neither blurs nor colours as strongly."""


class Simclr(TwoViews):
    """Contrastive learning with in-batch negatives on the bottleneck, averaged over places."""

    paper: ClassVar[str] = "Chen et al. 2020, https://arxiv.org/abs/2002.05709"
    Recipe = SimclrRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**SMALL, "epochs": 6, "batch_size": 64, "warmup_epochs": 1.0, "visualize_epochs": (1, 3, 6)},
        "small": {**SMALL, "epochs": 12, "batch_size": 64, "warmup_epochs": 1.0, "visualize_epochs": (1, 4, 12)},
    }  # fmt: skip

    def __init__(self, recipe: SimclrRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.projector = Projector(trunk.bottleneck_channels, recipe.projector_width, recipe.projector_channels)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return that of encoder and projector: the decoder is not trained."""
        return {"loss": self.optimizer(self.trunk.down, self.projector)}

    def project(self, features: Tensor) -> Tensor:
        """Return the projections (N, `projector_channels`) of averaged bottlenecks."""
        projected: Tensor = self.projector(features)
        return projected

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the contrastive loss of the batch."""
        yield "loss", nt_xent(*self.embeddings(batch), self.recipe.temperature)
