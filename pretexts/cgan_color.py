"""Colorization by a conditional GAN: a U-Net colours a grey image, and a PatchGAN judges grey image and colours together.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, after Isola et al. 2017, https://arxiv.org/abs/1611.07004. Reported there
on COCO test images at 256 px: PSNR 20.94, SSIM 0.85; 20 epochs of COCO 2014 train took 24 h on a GTX 1660 SUPER.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss

from bench.contract import Batch, Pretext, Recipe, Trunk
from bench.models.discriminator import PatchDiscriminator
from bench.models.modes import frozen
from pretexts._adversarial import Adversarial
from pretexts._colorization import Colorization


class CganRecipe(Recipe):
    """Defaults are from the paper's text or its released code; each names its source."""

    l1_weight: float = Field(default=100.0, ge=0)  # the released code; the paper's text gives no value for lambda
    discriminator_weight: float = Field(default=0.5, gt=0)  # the released code
    discriminator_width: int = Field(default=64, ge=1)  # the paper's text
    discriminator_blocks: str = Field(default="text", pattern="^(text|code)$")  # 70x70 patches, or the code's fourth stride
    discriminator_steps: Literal["together", "apart"] = "together"  # usual practice; the code has one for each


class CganColor(Adversarial, Colorization):
    """Conditional-GAN colorization: binary cross-entropy on patches + lambda * L1."""

    paper: ClassVar[str] = "Treneska et al. 2022, https://doi.org/10.3390/s22041599"
    Recipe = CganRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **Pretext.presets,
        "small": {**Pretext.presets["small"], "discriminator_width": 16},
        "demo": {**Pretext.presets["demo"], "discriminator_width": 16},
        "paper-code": {**Pretext.presets["paper-code"], "discriminator_blocks": "code", "discriminator_steps": "apart"},
    }

    def __init__(self, recipe: CganRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.discriminator = PatchDiscriminator(3, recipe.discriminator_width, recipe.discriminator_blocks == "code")

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the discriminator's loss on real and fake colours, then the generator's against the updated discriminator.

        Both use the same fakes. The authors' code makes one discriminator step for real images and another for fakes, as
        `discriminator_steps="apart"` does here. It also draws new fakes for the generator's step, which is not done here.
        """
        fake = self.generate(batch["lightness"])
        real = self.judge(batch, batch["chroma"])
        of_real = binary_cross_entropy_with_logits(real, torch.ones_like(real))
        apart = self.recipe.discriminator_steps == "apart"
        if apart:
            yield "discriminator", self.recipe.discriminator_weight * of_real
        unreal = self.judge(batch, fake.detach())
        of_fakes = binary_cross_entropy_with_logits(unreal, torch.zeros_like(unreal))
        yield "discriminator", self.recipe.discriminator_weight * (of_fakes if apart else of_real + of_fakes)

        with frozen(self.discriminator):
            verdict = self.judge(batch, fake)
        fooled = binary_cross_entropy_with_logits(verdict, torch.ones_like(verdict))
        yield "generator", fooled + self.recipe.l1_weight * l1_loss(fake, batch["chroma"])

    def judge(self, batch: Batch, chroma: Tensor) -> Tensor:
        """Return the discriminator's logits (N, 1, h, w) for chroma (N, 2, H, W) with the batch's lightness."""
        logits: Tensor = self.discriminator(torch.cat([batch["lightness"], chroma], dim=1))
        return logits
