"""MoCo v2: an image's view is to be told from views of many earlier images, which a slowly following network has embedded.

He et al. 2020, https://arxiv.org/abs/1911.05722, and Chen et al. 2020, https://arxiv.org/abs/2003.04297: 67.5 % ImageNet linear
accuracy with a ResNet-50 after 200 epochs, with batches of 256. A run here: `bench run --pretext moco --trunk
timm:resnet18,preprocessing=rgb --downstream voc_cls`. A step costs that of `simclr`, less the gradients of one view. It should
find the other view of more than half of held-out images, as `simclr`, with batches of any size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from bench.contract import Batch, Recipe, Trunk
from bench.models.teacher import Teacher
from bench.protocol import OptimizerName, RateScaling, RateSchedule
from pretexts._contrastive import TwoViews, pooled


class MocoRecipe(Recipe):
    """Defaults are those of MoCo v2's released code; the presets for small images use Adam, as those of `simclr`."""

    epochs: int = Field(default=200, ge=0)  # v2, table 1
    batch_size: int = Field(default=256, ge=4)  # the released code
    optimizer: OptimizerName = "sgd"  # the released code
    lr: float = Field(default=0.03, gt=0)  # the released code, for batches of 256
    lr_scaling: RateScaling = "linear"  # as in He et al., section 3.4, after Goyal et al. 2017
    lr_schedule: RateSchedule = "cosine"  # v2
    weight_decay: float = Field(default=1e-4, ge=0)  # the released code, where norms and biases decay too
    beta1: float = Field(default=0.9, ge=0, lt=1)  # Adam's alone; torch's default
    temperature: float = Field(default=0.2, gt=0)  # v2
    momentum_of_keys: float = Field(default=0.999, ge=0, le=1)  # of the network that embeds the keys; He et al., section 4.1
    queue: int = Field(default=65_536, ge=2)  # keys that are kept, at most a quarter of the images; v2
    key_groups: int = Field(default=8, ge=1)  # shuffled parts of a batch with batch norms of their own: the paper's 8 devices
    projector_width: int = Field(default=2048, ge=1)  # v2: as wide as the last level of its ResNet-50
    projector_channels: int = Field(default=128, ge=1)  # the released code
    crop_scale: float = Field(default=0.2, gt=0, le=1)  # the released code
    colour_strength: float = Field(default=0.5, ge=0)  # v2: factors of 0.4, and a hue of 0.1
    blur: float = Field(default=0.5, ge=0, le=1)  # v2
    enlarged: float = Field(default=1.15, ge=1)  # as in `simclr`


SMALL: dict[str, Any] = {
    "batch_size": 64, "optimizer": "adam", "lr": 3e-4, "lr_scaling": "none", "warmup_epochs": 1.0, "momentum_of_keys": 0.99,
    "queue": 512, "key_groups": 2, "blur": 0.0, "projector_width": 512, "evaluation_images": 200,
}  # fmt: skip
"""A short training needs a network that follows faster: 0.99 as in the authors' example for CIFAR-10."""


class Moco(TwoViews):
    """Contrastive learning with a queue of keys and a momentum encoder, on the bottleneck averaged over places."""

    paper: ClassVar[str] = "He et al. 2020, https://arxiv.org/abs/1911.05722"
    Recipe = MocoRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**SMALL, "epochs": 6, "visualize_epochs": (1, 3, 6)},
        "small": {**SMALL, "epochs": 12, "visualize_epochs": (1, 4, 12)},
    }
    queue: Tensor
    written: Tensor

    def __init__(self, recipe: MocoRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.projector = nn.Sequential(
            nn.Linear(trunk.bottleneck_channels, recipe.projector_width),
            nn.ReLU(inplace=True),
            nn.Linear(recipe.projector_width, recipe.projector_channels),
        )
        self.teacher, self.key_projector = Teacher(trunk, without="up"), Teacher(self.projector)
        self.length = recipe.queue
        self.register_buffer("queue", normalize(torch.randn(recipe.queue, recipe.projector_channels)))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    def prepare(self, batches: Iterator[Tensor]) -> None:
        """Keep the queue to a quarter of the training images: in a longer one a query often meets its own image's old key."""
        count = 0
        for images in batches:
            count += len(images)
            if count >= 4 * self.recipe.queue:
                return
        self.length = max(1, count // 4)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return that of encoder and projector: the decoder is not trained."""
        return {"loss": self.optimizer(self.trunk.down, self.projector)}

    def project(self, features: Tensor) -> Tensor:
        """Return the projections (N, `projector_channels`) of averaged bottlenecks."""
        projected: Tensor = self.projector(features)
        return projected

    def keys(self, views: Tensor) -> Tensor:
        """Return the teacher's normalised embeddings (N, `projector_channels`) of views (N, C, H, W).

        Batch norm sees shuffled parts of the batch, so its statistics do not tell which key belongs to a query (He et al.,
        section 3.3).
        """
        order = torch.randperm(len(views), device=views.device)
        parts = views[order].tensor_split(max(1, min(self.recipe.key_groups, len(views) // 4)))
        found = torch.cat([self.key_projector(pooled(self.teacher, part)) for part in parts])
        return normalize(found.float()[order.argsort()], dim=1)

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the loss of finding each query's key among those of the queue; then the teacher follows, and keys are queued."""
        queries = normalize(self.project(pooled(self.trunk, batch["first"])).float(), dim=1)
        keys = self.keys(batch["second"])
        right, wrong = (queries * keys).sum(dim=1, keepdim=True), queries @ self.queue[: self.length].T
        logits = torch.cat([right, wrong], dim=1) / self.recipe.temperature
        yield "loss", cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
        self.teacher.follow(self.trunk, self.recipe.momentum_of_keys)
        self.key_projector.follow(self.projector, self.recipe.momentum_of_keys)
        keys = keys[: self.length]
        self.queue[(self.written + torch.arange(len(keys), device=keys.device)) % self.length] = keys
        self.written += len(keys)
