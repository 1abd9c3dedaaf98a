"""Colorization by transfer: a decoder learns to colour what a frozen encoder sees; `@LABEL` names the encoder's weights.

After "Image colorization using transfer learning" (Shashank and Sarkar), which freezes a VGG-16 trained on ImageNet's labels and
trains the decoder by the squared error of ab. Reported there on landscapes at 224 px, with (images, epochs): PSNR 25.4, SSIM 0.94
(700, 200); 25.4, 0.93 (700, 500); 23.0, 0.92 (1000, 500). A run here, which trains on any other encoder of timm as well:

    bench run --init vgg=timm:vgg16.tv_in1k --pretext frozen_color@vgg,frozen_color --downstream voc_seg

It should be better than the mean colour. Without `@LABEL` the encoder is random and shows what the decoder learns alone. A step
costs a forward pass of the encoder, and forward and backward of the decoder. Unlike there, the decoder has skip connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from bench import colour
from bench.contract import Batch, Pretext, Trains
from bench.models import batch_norm
from bench.models.modes import use_statistics
from pretexts._colorization import Colorization

BATCHES = 32
"""The most batches that statistics are measured on."""


class FrozenColor(Colorization):
    """Colorization by the squared error, with a frozen encoder."""

    paper: ClassVar[str] = "Shashank and Sarkar, Image colorization using transfer learning"
    trains: ClassVar[Trains] = "decoder"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        **Pretext.presets,
        "small": {**Pretext.presets["small"], "epochs": 2, "visualize_epochs": (1, 2)},  # more learn the images by heart
        "paper": {"images": 700, "epochs": 200},
    }

    def train(self, mode: bool = True) -> Self:
        """Put all but the encoder into training mode, whose batch norms keep their statistics."""
        super().train(mode)
        self.trunk.down.eval()
        return self

    def prepare(self, batches: Iterator[Tensor]) -> None:
        """Measure the statistics of the encoder's batch norms that no training batch went through: those of a random encoder."""
        norms = batch_norm.never_used(self.trunk.down)
        if norms:
            some = islice(batches, BATCHES)
            batch_norm.measure(self.trunk, norms, lambda images: self.encode(colour.lightness_of(images)), some)

    @contextmanager
    def answering(self, generator: torch.Generator) -> Iterator[None]:
        """Colour as the base does, but with the statistics of the frozen encoder's batch norms, whatever those of the rest."""
        with super().answering(generator):
            use_statistics(self.trunk.down.eval(), "running")
            yield

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return that of decoder and output layer."""
        return {"generator": self.optimizer(self.trunk.up, self.output)}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the mean squared error of the chroma."""
        yield "generator", mse_loss(self.generate(batch["lightness"]), batch["chroma"])

    def encode(self, lightness: Tensor) -> list[Tensor]:
        """Return the frozen encoder's features, finest first, of lightness (N, 1, H, W)."""
        with torch.no_grad():
            return self.trunk.encode(self.trunk.preprocessing.grey(lightness))

    def generate(self, lightness: Tensor) -> Tensor:
        """Return the chroma (N, 2, H, W) in [-1, 1] for lightness (N, 1, H, W)."""
        return torch.tanh(self.output(self.trunk.decode(self.encode(lightness))))
