"""Colorization from hypercolumns: of some pixels, histograms of hue and chroma are told from all levels of the encoder.

Larsson et al. 2016, https://arxiv.org/abs/1603.06668, and 2017, https://arxiv.org/abs/1703.04044: reported there with VGG-16 VOC
2012 segmentation 50.2 % mIoU, with ResNet-152 60.0 %. A run here: `bench run --pretext hypercolumn_color --downstream voc_cls`.

The loss looks at some pixels of an image, so its memory does not grow with the image, and a step costs little more than one of
the encoder, which it trains alone. Hue and chroma are those of CIELAB, the angle and the length of ab; the paper's are those of
HSL. It should have a lower `loss` than the mean histograms of training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from bench import colour
from bench.contract import Batch, Pretext, Recipe, Trains
from bench.models.modes import inference
from bench.models.unet import initialise
from pretexts._colorization import Colorization
from pretexts._hue_chroma import colours, divergence, histograms
from pretexts._hypercolumn import Hypercolumn, channels_of


class HypercolumnRecipe(Recipe):
    """Histograms and network as in Larsson et al.; epochs, batch size and rate as for the other colorization tasks."""

    bins: int = Field(default=32, ge=2)  # of hue, and of chroma; 2016, section 4.2
    window: int = Field(default=7, ge=1)  # the side in pixels of what a histogram is made of; 2016, section 4.2
    hue_weight: float = Field(default=5.0, ge=0)  # of the hue's divergence, times the pixel's chroma; 2016, section 4.2
    samples: int = Field(default=128, ge=1)  # pixels of an image in a step; 2016, section 5
    width: int = Field(default=1024, ge=1)  # of the layer on hypercolumns; 2016, section 5
    reduction: int = Field(default=4, ge=1)  # how many times smaller the grid is that a whole image is coloured on


class HypercolumnColor(Colorization):
    """Histograms of hue and chroma from hypercolumns, by their Kullback-Leibler divergence from the true ones."""

    paper: ClassVar[str] = "Larsson et al. 2016, https://arxiv.org/abs/1603.06668"
    trains: ClassVar[Trains] = "encoder"
    targets: ClassVar[tuple[str, ...]] = ("hues", "chromas", "strength")
    Recipe = HypercolumnRecipe
    output: Any
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": {**Pretext.presets["demo"], "width": 256},
        "small": {**Pretext.presets["small"], "width": 256, "epochs": 3, "visualize_epochs": (1, 2, 3)},
    }

    def make_output(self) -> nn.Module:
        """Return the layers on hypercolumns: `bins` scores of hue, then as many of chroma."""
        size = self.trunk.trained_at or self.trunk.smallest
        with inference(self.trunk):
            levels = self.trunk.encode(torch.zeros(1, self.trunk.preprocessing.channels, size, size))
        last = initialise(nn.Linear(self.recipe.width, 2 * self.recipe.bins))
        return nn.ModuleDict({"column": Hypercolumn(channels_of(levels), self.recipe.width), "last": last})

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return that of encoder and layers: the decoder is not trained."""
        return {"loss": self.optimizer(self.trunk.down, self.output)}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return `lightness` (N, 1, H, W), `places` (N, S, 2), and there `hues`, `chromas` (N, S, bins) and `strength` (N, S)."""
        lightness, chroma = colour.split_lab(images)
        side = chroma.shape[-1]
        pixels = torch.randint(side, (len(images), self.recipe.samples, 2), generator=generator, device=images.device)
        hues, chromas, strength = histograms(chroma, pixels, self.recipe.window, self.recipe.bins)
        places = (2 * pixels + 1) / side - 1
        return {"lightness": lightness, "places": places, "hues": hues, "chromas": chromas, "strength": strength}

    def logarithms(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the histograms of hue and chroma, (..., bins) each, for the first layer's outputs."""
        scores = self.output["last"](relu(column)).float()
        hues, chromas = (part.log_softmax(dim=-1) for part in scores.chunk(2, dim=-1))
        return hues, chromas

    def loss(self, batch: Batch, hues: Tensor, chromas: Tensor) -> Tensor:
        """Return each image's loss (N,): the divergence of chroma, and that of hue as far as a pixel has any."""
        weight = self.recipe.hue_weight * batch["strength"]
        loss: Tensor = (divergence(batch["chromas"], chromas) + weight * divergence(batch["hues"], hues)).mean(dim=1)
        return loss

    def told(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the histograms that are told at a batch's places."""
        features = self.trunk.encode(self.trunk.preprocessing.grey(batch["lightness"]))
        return self.logarithms(self.output["column"].at(features, batch["places"]))

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the mean loss of the batch's images."""
        yield "loss", self.loss(batch, *self.told(batch)).mean()

    def generate(self, lightness: Tensor) -> Tensor:
        """Return the chroma (N, 2, H, W) for lightness (N, 1, H, W), coloured on a coarser grid."""
        features = self.trunk.encode(self.trunk.preprocessing.grey(lightness))
        column = self.output["column"](features, max(1, lightness.shape[-1] // self.recipe.reduction))
        hues, chromas = self.logarithms(column.permute(0, 2, 3, 1))
        coarse = colours(hues.exp(), chromas.exp()).permute(0, 3, 1, 2)
        return interpolate(coarse, size=lightness.shape[-2:], mode="bilinear")

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the scores of all colorization tasks, and the `loss` on pixels that are always the same."""
        batch = self.make_batch(images, torch.Generator(images.device).manual_seed(0))
        with self.answering(generator):
            loss = self.loss(batch, *self.told(batch))
        return {**super().evaluate(images, generator), "loss": loss}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores of one colour, and the loss of the best constant histograms on the pixels of `evaluate`."""
        asked, known = (
            self.make_batch(some, torch.Generator(images.device).manual_seed(0)) for some in (images, training_images)
        )
        weight = known["strength"][..., None]
        means = (known["hues"] * weight).sum(dim=(0, 1)) / weight.sum().clamp(min=1e-6), known["chromas"].mean(dim=(0, 1))
        hues, chromas = (mean.clamp(min=1e-6).log() for mean in means)
        return {**super().baselines(images, training_images), "mean histogram": {"loss": self.loss(asked, hues, chromas)}}
