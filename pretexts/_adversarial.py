"""The base of adversarial pretext tasks: a generator (trunk and output layer), a discriminator, and what each of them loses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from bench.contract import Pretext
from bench.models.discriminator import PatchDiscriminator

GanLoss = Literal["bce", "lsgan", "hinge", "wgan-gp"]
"""Goodfellow et al. 2014 with the generator's loss that does not saturate, https://arxiv.org/abs/1406.2661; Mao et al. 2017,
https://arxiv.org/abs/1611.04076; Lim and Ye 2017, https://arxiv.org/abs/1705.02894; Gulrajani et al. 2017,
https://arxiv.org/abs/1704.00028."""


class Adversarial(Pretext):
    """A pretext task with an `output` layer on the trunk and a `discriminator`."""

    output: nn.Module
    discriminator: PatchDiscriminator

    @property
    def discriminator_lr(self) -> float:
        """The discriminator's learning rate: that of the recipe, like the generator's."""
        lr: float = self.recipe.lr
        return lr

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the discriminator's and the generator's, Adam by default."""
        return {
            "discriminator": self.optimizer(self.discriminator, lr=self.discriminator_lr),
            "generator": self.optimizer(self.trunk, self.output),
        }


def loss_of_real(kind: GanLoss, logits: Tensor) -> Tensor:
    """Return the discriminator's loss on what is real, a mean over patches and images."""
    if kind == "bce":
        return binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
    if kind == "lsgan":
        return (logits - 1).square().mean()
    return relu(1 - logits).mean() if kind == "hinge" else -logits.mean()


def loss_of_fakes(kind: GanLoss, logits: Tensor) -> Tensor:
    """Return the discriminator's loss on what was generated, a mean over patches and images."""
    if kind == "bce":
        return binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    if kind == "lsgan":
        return logits.square().mean()
    return relu(1 + logits).mean() if kind == "hinge" else logits.mean()


def loss_of_generator(kind: GanLoss, logits: Tensor) -> Tensor:
    """Return the generator's loss for the discriminator's logits on what it generated."""
    return loss_of_real(kind, logits) if kind in ("bce", "lsgan") else -logits.mean()


def gradient_penalty(judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of (|gradient| - 1)^2 over images, at random places between real and fake images (N, C, H, W).

    Gulrajani et al. 2017, equation 3. The gradient is that of the sum of an image's logits, as in the released code of pix2pix
    and ChromaGAN. It is computed in float32 under any autocast, since it is differentiated twice.
    """
    with torch.autocast(real.device.type, enabled=False):
        share = torch.rand((len(real), 1, 1, 1), device=real.device)
        between = torch.lerp(fake.detach().float(), real.float(), share).requires_grad_()
        (slope,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
        penalty: Tensor = (slope.flatten(start_dim=1).norm(dim=1) - 1).square().mean()
    return penalty
