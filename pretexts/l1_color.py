"""Colorization without an adversary: U-Net and dropout of cgan_color, with the mean absolute error on ab as the only loss.

A control that shows what the GAN adds in Treneska et al. 2022, https://doi.org/10.3390/s22041599 (the paper's equation 2 alone).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from bench.contract import Batch
from pretexts._colorization import Colorization


class L1Color(Colorization):
    """L1 colorization: the paper's generator and L1 loss, without the discriminator."""

    paper: ClassVar[str] = "Isola et al. 2017, https://arxiv.org/abs/1611.07004"

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the generator's."""
        return {"generator": self.optimizer(self)}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the mean absolute error of the chroma."""
        yield "generator", l1_loss(self.generate(batch["lightness"]), batch["chroma"])
