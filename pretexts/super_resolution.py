"""Super-resolution: an image of a quarter of the side, enlarged by bicubic interpolation, is to get its details back.

After SRGAN (Ledig et al. 2017, https://arxiv.org/abs/1609.04802), four times in each direction, on the bench's trunk. Reported
there with and without the adversary: PSNR 29.40 and 32.05 on Set5 (bicubic 28.43). As a pretext task:

    bench run --pretext super_resolution --downstream voc_seg
    bench run --pretext super_resolution --downstream voc_seg --set super_resolution.adversarial_weight=0

The trunk's input is the enlarged image, so its finest skip connection has nearly the answer: `psnr_skips_alone` says how good the
answer is with the bottleneck hidden from the decoder. The trivial answer is the input. Without an adversary it should be nearly
1 dB above it; the adversary costs PSNR, and at 64 px the paper's weight costs more than that. SRGAN's loss on features of a
VGG-19, which was trained with labels, is left out; its squared error on pixels stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import interpolate, mse_loss

from bench import colour
from bench.contract import Batch, Family, Pretext, Recipe, Trunk
from bench.models.discriminator import PatchDiscriminator
from bench.models.modes import frozen, inference_with
from pretexts._adversarial import Adversarial, loss_of_fakes, loss_of_generator, loss_of_real


class SuperResolutionRecipe(Recipe):
    """Factor and weight are SRGAN's; epochs, batch size and rate as for the colorization tasks, for comparison."""

    factor: int = Field(default=4, ge=2)  # section 3
    adversarial_weight: float = Field(default=1e-3, ge=0)  # equation 3, with BCE; 0: no adversary, as SRResNet
    discriminator_width: int = Field(default=64, ge=1)  # section 2.1.1; here of a PatchGAN, as for cgan_color


class SuperResolution(Adversarial):
    """Regression of an image from its own quarter, with an adversary that sees the whole image."""

    paper: ClassVar[str] = "Ledig et al. 2017, https://arxiv.org/abs/1609.04802"
    family: ClassVar[Family] = "classic"
    targets: ClassVar[tuple[str, ...]] = ("truth",)
    Recipe = SuperResolutionRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**Pretext.presets["demo"], "discriminator_width": 16, "adversarial_weight": 1e-4},
        "small": {**Pretext.presets["small"], "discriminator_width": 16, "adversarial_weight": 1e-4},
        "paper": {"batch_size": 16, "lr": 1e-4, "beta1": 0.9},  # section 3.2
    }

    def __init__(self, recipe: SuperResolutionRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.output = trunk.output(trunk.preprocessing.channels)
        if recipe.adversarial_weight:
            self.discriminator = PatchDiscriminator(trunk.preprocessing.channels, recipe.discriminator_width)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the discriminator's and the generator's, or without an adversary the generator's alone."""
        if self.recipe.adversarial_weight:
            return super().optimizers()
        return {"generator": self.optimizer(self.trunk, self.output)}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return the `truth`, preprocessed (N, C, H, W), and `enlarged`: reduced with antialiasing, and back, both bicubic."""
        truth = self.trunk.preprocessing(images)
        side = max(1, truth.shape[-1] // self.recipe.factor)
        small = interpolate(truth, (side, side), mode="bicubic", antialias=True)
        return {"truth": truth, "enlarged": interpolate(small, truth.shape[-2:], mode="bicubic")}

    def answer(self, enlarged: Tensor, skips_alone: bool = False) -> Tensor:
        """Return images (N, C, H, W) with details: enlarged ones, and what the trunk adds; the bottleneck may be hidden."""
        *skips, bottleneck = self.trunk.encode(enlarged)
        decoded = self.trunk.decode([*skips, torch.zeros_like(bottleneck) if skips_alone else bottleneck])
        detailed: Tensor = enlarged + self.output(decoded)
        return detailed

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the discriminator's loss on true and generated images, then the generator's for the same images."""
        recipe, truth, fake = self.recipe, batch["truth"], self.answer(batch["enlarged"])
        loss = mse_loss(fake, truth)
        if recipe.adversarial_weight:
            of_real = loss_of_real("bce", self.discriminator(truth))
            yield "discriminator", of_real + loss_of_fakes("bce", self.discriminator(fake.detach()))
            with frozen(self.discriminator):
                fooled = loss_of_generator("bce", self.discriminator(fake))
            loss = loss + recipe.adversarial_weight * fooled
        yield "generator", loss

    def answers(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return preprocessed images by name: `enlarged`, `learned`, learned from `skips` alone, and the `truth`."""
        batch = self.make_batch(images, generator)
        with inference_with(self, self.recipe.statistics):
            learned, skips = (self.answer(batch["enlarged"], alone) for alone in (False, True))
        return {"enlarged": batch["enlarged"], "learned": learned, "skips": skips, "truth": batch["truth"]}

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return PSNR and SSIM against the true preprocessed image, and the PSNR with the bottleneck hidden."""
        shown = {name: self.trunk.preprocessing.shown(found) for name, found in self.answers(images, generator).items()}
        scores = {"psnr": colour.psnr(shown["learned"], shown["truth"]), "ssim": colour.ssim(shown["learned"], shown["truth"])}
        return {**scores, "psnr_skips_alone": colour.psnr(shown["skips"], shown["truth"])}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return PSNR and SSIM of the enlarged image itself."""
        batch = self.make_batch(images, torch.Generator(images.device))
        enlarged, truth = (self.trunk.preprocessing.shown(batch[name]) for name in ("enlarged", "truth"))
        return {"bicubic": {"psnr": colour.psnr(enlarged, truth), "ssim": colour.ssim(enlarged, truth)}}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the enlarged image, the one with learned details, and the true one."""
        rows = self.answers(images, generator)
        return {name: self.trunk.preprocessing.shown(rows[name]) for name in ("enlarged", "learned", "truth")}
