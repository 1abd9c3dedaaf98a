"""The base of adversarial pretext tasks: a generator (trunk and output layer) and a discriminator, each with its own Adam."""

from __future__ import annotations

import torch
from torch import nn

from bench.contract import Pretext
from bench.models.discriminator import PatchDiscriminator


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
