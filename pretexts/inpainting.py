"""Inpainting by a context encoder: fill a hole in the trunk's input, trained by reconstruction and an adversary.

Pathak et al. 2016, https://arxiv.org/abs/1604.07379, on the bench's trunk (the paper's network has no skip connections). The
trunk gets preprocessed images, lightness by default, so its input is that of the colorization tasks.

As in the paper, the squared error on the hole has weight 0.999 and the adversarial loss 0.001. The discriminator judges the
hole's square alone and learns at a tenth of the generator's rate. The hole's side is half of the image's.

Unlike in the paper, the hole has a random place instead of the centre, and zero in it instead of the mean colour. The generator's
loss uses the updated discriminator; in the released code (train.lua) it uses the discriminator's output before its update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from bench import colour
from bench.contract import Batch, Family, Pretext, Recipe, Trunk
from bench.errors import UsageError
from bench.models.discriminator import PatchDiscriminator
from bench.models.modes import frozen, random_inference
from pretexts._adversarial import Adversarial


class InpaintingRecipe(Recipe):
    """Weights and hole as in Pathak et al.; epochs, batch size and rate as for the colorization tasks, for comparison."""

    hole: float = Field(default=0.5, gt=0, lt=1)  # side of the hole as a share of the image's; in the paper 64 of 128 px
    reconstruction_weight: float = Field(default=0.999, ge=0)  # section 4.1
    adversarial_weight: float = Field(default=0.001, ge=0)  # section 4.1
    discriminator_width: int = Field(default=64, ge=1)  # as for cgan_color
    discriminator_lr_ratio: float = Field(default=0.1, gt=0)  # relative to the generator's, which is lr*10 in train.lua


class Inpainting(Adversarial):
    """Context encoder: fill a hole in the image."""

    paper: ClassVar[str] = "Pathak et al. 2016, https://arxiv.org/abs/1604.07379"
    family: ClassVar[Family] = "classic"
    version: ClassVar[int] = 2
    """2: the discriminator learns at a tenth of the generator's rate. In version 1 both had the same rate."""
    Recipe = InpaintingRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **Pretext.presets,
        "small": {**Pretext.presets["small"], "discriminator_width": 16},
        "demo": {**Pretext.presets["demo"], "discriminator_width": 16},
    }

    def __init__(self, recipe: InpaintingRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.output = trunk.output(trunk.preprocessing.channels)
        self.discriminator = PatchDiscriminator(trunk.preprocessing.channels, recipe.discriminator_width)

    @property
    def discriminator_lr(self) -> float:
        """The discriminator's learning rate: the generator's times `discriminator_lr_ratio`."""
        lr: float = self.recipe.lr * self.recipe.discriminator_lr_ratio
        return lr

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return the trunk's `inputs` (N, C, H, W) and each hole's `corner` (N, 2): row and column of its first pixel."""
        inputs = self.trunk.preprocessing(images)
        free = inputs.shape[-1] - self.hole_size(inputs) + 1
        if free < 2:
            raise UsageError(
                f"inpainting takes images larger than its hole of {self.hole_size(inputs)} px, but got {inputs.shape[-1]} px."
            )
        corner = torch.randint(free, (len(inputs), 2), generator=generator, device=inputs.device)
        return {"inputs": inputs, "corner": corner}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the discriminator's loss on true and filled squares, then the generator's loss for the same filled squares."""
        truth = self.cut(batch["inputs"], batch["corner"])
        filled = self.cut(self.fill(batch), batch["corner"])
        real, fake = self.discriminator(truth), self.discriminator(filled.detach())
        loss = binary_cross_entropy_with_logits(real, torch.ones_like(real))
        yield "discriminator", loss + binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))

        with frozen(self.discriminator):
            verdict = self.discriminator(filled)
        fooled = binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
        error = (filled - truth).square().mean()
        yield "generator", self.recipe.reconstruction_weight * error + self.recipe.adversarial_weight * fooled

    def hole_size(self, inputs: Tensor) -> int:
        """Return the hole's side in pixels: `hole` times the image's side, or the least that the discriminator takes."""
        share: float = self.recipe.hole
        return max(self.discriminator.smallest, round(inputs.shape[-1] * share))

    def inside(self, batch: Batch) -> Tensor:
        """Return a mask of the hole, bool (N, 1, H, W)."""
        side, place = self.hole_size(batch["inputs"]), torch.arange(batch["inputs"].shape[-1], device=batch["inputs"].device)
        start = batch["corner"][:, :, None]
        rows, columns = ((place >= start) & (place < start + side)).unbind(dim=1)
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def fill(self, batch: Batch) -> Tensor:
        """Return the generator's image (N, C, H, W) in [-1, 1] for inputs whose hole is set to zero."""
        return torch.tanh(self.output(self.trunk(batch["inputs"].masked_fill(self.inside(batch), 0.0))))

    def cut(self, images: Tensor, corner: Tensor) -> Tensor:
        """Return the square at each image's hole, (N, C, side, side)."""
        offsets = torch.arange(self.hole_size(images), device=images.device)
        rows, columns = (corner[:, :, None] + offsets).unbind(dim=1)
        image = torch.arange(len(images), device=images.device)
        return images.permute(0, 2, 3, 1)[image[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def repair(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return preprocessed images with the hole, filled, and true, each as uint8 (N, 3, H, W)."""
        batch = self.make_batch(images, generator)
        with random_inference(self, self.recipe.statistics, generator):
            filled = torch.where(self.inside(batch), self.fill(batch), batch["inputs"])
        holed = batch["inputs"].masked_fill(self.inside(batch), 0.0)
        shown = self.trunk.preprocessing.shown
        return shown(holed), shown(filled), shown(batch["inputs"])

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return PSNR and SSIM of the filled image against the true one, both preprocessed."""
        _, filled, truth = self.repair(images, generator)
        return {"psnr": colour.psnr(filled, truth), "ssim": colour.ssim(filled, truth)}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return images with the hole, filled images and true images."""
        holed, filled, truth = self.repair(images, generator)
        return {"hole": holed, "learned": filled, "truth": truth}
