"""Colorization by a conditional GAN: a U-Net colours a grey image, and a PatchGAN judges grey image and colours together.

Treneska et al. 2022, https://doi.org/10.3390/s22041599, after Isola et al. 2017, https://arxiv.org/abs/1611.07004. Reported there
on COCO test images at 256 px: PSNR 20.94, SSIM 0.85; 20 epochs of COCO 2014 train took 24 h on a GTX 1660 SUPER.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import l1_loss

from bench.contract import Batch, Pretext, Recipe, Trunk
from bench.models.discriminator import PatchDiscriminator
from bench.models.modes import frozen
from pretexts._adversarial import Adversarial, GanLoss, gradient_penalty, loss_of_fakes, loss_of_generator, loss_of_real
from pretexts._colorization import Colorization


class CganRecipe(Recipe):
    """Defaults are from the paper's text or its released code; each names its source.

    The discriminator has batch norm as in the paper; none with `adversarial_loss="wgan-gp"`, as Gulrajani et al. 2017 ask for.
    """

    l1_weight: float = Field(default=100.0, ge=0)  # the released code; the paper's text gives no value for lambda
    discriminator_weight: float = Field(default=0.5, gt=0)  # the released code
    discriminator_width: int = Field(default=64, ge=1)  # the paper's text
    discriminator_blocks: str = Field(default="text", pattern="^(text|code)$")  # 70x70 patches, or the code's fourth stride
    discriminator_steps: Literal["together", "apart"] = "together"  # usual practice; the code has one for each
    discriminator_updates: int = Field(default=1, ge=1)  # on each batch, before the generator's; Gulrajani et al. 2017 have 5
    adversarial_loss: GanLoss = "bce"  # the paper's text
    gradient_penalty: float = Field(default=10.0, gt=0)  # of `wgan-gp`; Gulrajani et al. 2017
    spectral_norm: bool = False  # in place of the discriminator's batch norm; not in the paper
    feature_matching: float = Field(default=0.0, ge=0)  # weight of its sum over layers; 10 in Wang et al. 2018, arXiv:1711.11585


class CganColor(Adversarial, Colorization):
    """Conditional-GAN colorization: an adversarial loss on patches + lambda * L1."""

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
        norm = "spectral" if recipe.spectral_norm else "none" if recipe.adversarial_loss == "wgan-gp" else "batch"
        self.discriminator = PatchDiscriminator(3, recipe.discriminator_width, recipe.discriminator_blocks == "code", norm)

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the discriminator's loss on real and fake colours, then the generator's against the updated discriminator.

        Both use the same fakes. The authors' code makes one discriminator step for real images and another for fakes, as
        `discriminator_steps="apart"` does here. It also draws new fakes for the generator's step, which is not done here.
        """
        recipe, real = self.recipe, batch["chroma"]
        fake = self.generate(batch["lightness"])
        apart = recipe.discriminator_steps == "apart"
        for _ in range(recipe.discriminator_updates):
            of_real = loss_of_real(recipe.adversarial_loss, self.judge(batch, real))
            if apart:
                yield "discriminator", recipe.discriminator_weight * of_real
            loss = loss_of_fakes(recipe.adversarial_loss, self.judge(batch, fake.detach()))
            if not apart:
                loss = of_real + loss
            if recipe.adversarial_loss == "wgan-gp":
                loss = loss + recipe.gradient_penalty * gradient_penalty(partial(self.judge, batch), real, fake)
            yield "discriminator", recipe.discriminator_weight * loss

        with frozen(self.discriminator):
            *features, verdict = self.discriminator.features(self.conditioned(batch, fake))
            loss = loss_of_generator(recipe.adversarial_loss, verdict) + recipe.l1_weight * l1_loss(fake, real)
            if recipe.feature_matching:
                with torch.no_grad():
                    wanted = self.discriminator.features(self.conditioned(batch, real))
                errors = [l1_loss(found, right) for found, right in zip(features, wanted, strict=False)]
                loss = loss + recipe.feature_matching * torch.stack(errors).sum()
        yield "generator", loss

    def judge(self, batch: Batch, chroma: Tensor) -> Tensor:
        """Return the discriminator's logits (N, 1, h, w) for chroma (N, 2, H, W) with the batch's lightness."""
        logits: Tensor = self.discriminator(self.conditioned(batch, chroma))
        return logits

    @staticmethod
    def conditioned(batch: Batch, chroma: Tensor) -> Tensor:
        """Return what the discriminator sees, (N, 3, H, W): the batch's lightness and chroma (N, 2, H, W)."""
        return torch.cat([batch["lightness"], chroma], dim=1)
