"""DINO: a network predicts, from large and small views of an image, what a slowly following teacher says of the large ones.

Caron et al. 2021, https://arxiv.org/abs/2104.14294: 75.3 % ImageNet linear accuracy with a ResNet-50 after 800 epochs. A run
here: `bench run --pretext dino --trunk timm:resnet18,preprocessing=rgb --downstream voc_cls`. A step computes two images of the
trunk's size three times, and the small ones. No image is pushed away from another, so the network could answer all alike; its own
scores say whether it did. It should find the other view of more held-out images than pixels do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Batch, Family, Recipe, Trunk
from bench.models.modes import inference_with
from bench.models.teacher import Teacher
from bench.protocol import OptimizerName, RateScaling, RateSchedule
from pretexts._contrastive import PrototypeHead, TwoViews, pooled


class DinoRecipe(Recipe):
    """Defaults are those of the released code; the presets for small images are sized for one device."""

    epochs: int = Field(default=100, ge=0)  # the released code
    batch_size: int = Field(default=1024, ge=2)  # section 3.2
    optimizer: OptimizerName = "adamw"  # section 3.2
    lr: float = Field(default=5e-4, gt=0)  # section 3.2: 5e-4 x batch size / 256
    lr_scaling: RateScaling = "linear"
    lr_schedule: RateSchedule = "cosine"  # section 3.2
    warmup_epochs: float = Field(default=10.0, ge=0)  # section 3.2
    weight_decay: float = Field(default=0.04, ge=0)  # section 3.2, where it rises to 0.4
    beta1: float = Field(default=0.9, ge=0, lt=1)  # torch's default, as in the released code
    clip: float | None = Field(default=3.0, gt=0)  # the released code, of each weight's gradient; here of all as one
    momentum: float = Field(default=0.996, ge=0, le=1)  # of the teacher at first; it rises to 1 by half a cosine; section 3.1
    temperature: float = Field(default=0.1, gt=0)  # the student's; section 3.2
    teacher_temperature: float = Field(default=0.04, gt=0)  # the released code; sharper than the student's
    centre_momentum: float = Field(default=0.9, ge=0, lt=1)  # of the mean that is taken off the teacher's logits; appendix D
    prototypes: int = Field(default=65_536, ge=2)  # answers to choose among; section 3.2
    frozen_epochs: float = Field(default=1.0, ge=0)  # in which the prototypes stay as drawn; the released code
    head_width: int = Field(default=2048, ge=1)  # section 3.2
    head_channels: int = Field(default=256, ge=1)  # the released code
    small_crops: int = Field(default=8, ge=0)  # beside the two large views, of 3/7 of their side; the released code
    crop_scale: float = Field(default=0.4, gt=0.05, le=1)  # the least share of an image in a large view; the released code
    colour_strength: float = Field(default=0.5, ge=0)  # the released code, with half of that for saturation
    blur: float = Field(default=0.5, ge=0, le=0.5)  # the chance for small crops; double and a fifth for the large; as in BYOL
    solarize: float = Field(default=0.2, ge=0, le=1)  # the chance for the second large view; the released code
    enlarged: float = Field(default=1.15, ge=1)  # as in `simclr`


SMALL: dict[str, Any] = {
    "batch_size": 64, "lr": 1e-3, "lr_scaling": "none", "warmup_epochs": 1.0, "momentum": 0.9, "centre_momentum": 0.5,
    "prototypes": 256, "frozen_epochs": 0.0, "head_width": 512, "small_crops": 4, "blur": 0.0, "evaluation_images": 200,
}  # fmt: skip
"""A short training needs a teacher and a centre that follow faster, and few prototypes, which begin to learn at once."""


class Dino(TwoViews):
    """Self-distillation without labels on the bottleneck, averaged over places."""

    paper: ClassVar[str] = "Caron et al. 2021, https://arxiv.org/abs/2104.14294"
    family: ClassVar[Family] = "distillation"
    targets: ClassVar[tuple[str, ...]] = ("first_target", "second_target")
    Recipe = DinoRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**SMALL, "epochs": 6, "visualize_epochs": (1, 3, 6)},
        "small": {**SMALL, "epochs": 12, "visualize_epochs": (1, 4, 12)},
    }
    centre: Tensor

    def __init__(self, recipe: DinoRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.head = PrototypeHead(trunk.bottleneck_channels, recipe.head_width, recipe.head_channels, recipe.prototypes)
        self.teacher, self.teacher_head = Teacher(trunk, without="up"), Teacher(self.head)
        self.register_buffer("centre", torch.zeros(recipe.prototypes))
        side = self.feeds(recipe, self.view.size, trunk.smallest or self.view.size).get("small crops", self.view.size)
        view = self.view.model_copy(update={"saturation": self.view.saturation / 2})
        self.large = (
            view.model_copy(update={"blur": 2 * recipe.blur}),
            view.model_copy(update={"blur": recipe.blur / 5, "solarize": recipe.solarize}),
        )
        self.small = view.model_copy(update={"size": side, "scale": (0.05, recipe.crop_scale)})

    @classmethod
    def feeds(cls, recipe: Any, size: int, smallest: int) -> Mapping[str, int]:
        """Return the side of small crops: 3/7 of the image's, as a multiple of the smallest side that the trunk takes."""
        return {"small crops": smallest * max(1, round(3 / 7 * size / smallest))} if recipe.small_crops else {}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return two large views, preprocessed (N, C, size, size), for the student and as targets, and the small crops."""
        views = [view(images, generator) for view in (*self.large, *[self.small] * self.recipe.small_crops)]
        first, second, *crops = map(self.trunk.preprocessing, views)
        batch = {"first": first, "second": second, "first_target": first, "second_target": second}
        return batch | {f"crop_{place}": crop for place, crop in enumerate(crops)}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return that of encoder and head: the decoder is not trained."""
        return {"loss": self.optimizer(self.trunk.down, self.head)}

    def project(self, features: Tensor) -> Tensor:
        """Return the embeddings (N, `head_channels`) of averaged bottlenecks."""
        projected: Tensor = self.head.embed(features)
        return projected

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the student's cross-entropy with the teacher's answers to other views; then teacher and centre follow."""
        recipe = self.recipe
        self.head.prototypes.requires_grad_(self.progress * recipe.epochs >= recipe.frozen_epochs)
        said = self.teacher_head(pooled(self.teacher, torch.cat([batch["first_target"], batch["second_target"]])))
        answers = ((said - self.centre) / recipe.teacher_temperature).softmax(dim=1).chunk(2)
        crops = [batch[f"crop_{place}"] for place in range(recipe.small_crops)]
        views = self.head(pooled(self.trunk, torch.cat([batch["first"], batch["second"]]))).chunk(2)
        if crops:
            views += self.head(pooled(self.trunk, torch.cat(crops))).chunk(len(crops))
        losses = [
            -(answer * (view / recipe.temperature).log_softmax(dim=1)).sum(dim=1).mean()
            for place, answer in enumerate(answers)
            for other, view in enumerate(views)
            if other != place
        ]
        yield "loss", torch.stack(losses).mean()
        momentum = 1 - (1 - recipe.momentum) * (1 + math.cos(math.pi * self.progress)) / 2
        self.teacher.follow(self.trunk, momentum)
        self.teacher_head.follow(self.head, momentum)
        self.centre.lerp_(said.mean(dim=0), 1 - recipe.centre_momentum)

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the scores of all tasks on two views, and the `information` of each answer: its divergence from the mean's.

        In nats, (N,): all 0 where all images get one answer, or each answer is uniform; at most log N.
        """
        scores = super().evaluate(images, generator)
        with inference_with(self, self.recipe.statistics):
            logits = self.head(pooled(self.trunk, self.trunk.preprocessing(self.view(images, generator))))
        answers = ((logits - self.centre) / self.recipe.teacher_temperature).double().log_softmax(dim=1)
        mean = answers.logsumexp(dim=0) - math.log(len(answers))
        return {**scores, "information": (answers.exp() * (answers - mean)).sum(dim=1)}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return those of all tasks on two views; a guess tells nothing."""
        found = super().baselines(images, training_images)
        return {**found, "chance": {**found["chance"], "information": torch.zeros(len(images), device=images.device)}}
