"""Colorization as classification: lightness in, for each place a distribution over the bins of the ab plane that are in gamut.

Zhang et al. 2016, https://arxiv.org/abs/1603.08511, on the bench's trunk. Reported there after 450,000 steps on ImageNet: 32 % of
its pictures taken for the true ones; with AlexNet VOC 2007 detection 46.9 % mAP, VOC 2012 segmentation 35.6 % mIU.

    bench run --pretext class_color --downstream voc_cls

The output and its loss are at a quarter of the image's side, as in the paper, and the 313 scores of a place are compared with its
5 bins alone, so a step costs little more than the trunk. Unlike the paper's network the trunk has skip connections, no k-means
initialisation, and mostly dropout, which is off when it colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from bench import colour
from bench.contract import Batch, Pretext, Recipe, Trunk
from bench.models.modes import inference_with
from bench.models.unet import initialise
from pretexts._ab_bins import AbBins, in_gamut, is_coloured
from pretexts._colorization import Colorization


class ClassColorRecipe(Recipe):
    """The loss as in Zhang et al.; epochs, batch size and rate as for the other colorization tasks, for comparison."""

    neighbours: int = Field(default=5, ge=1, le=32)  # bins that a colour is shared among; section 2.1
    sigma: float = Field(default=5.0, gt=0)  # of the Gaussian by distance in ab, for shares and priors; sections 2.1 and 2.2
    rebalancing: float = Field(default=0.5, gt=0, le=1)  # the uniform part of what weights invert, lambda; section 2.2; 1: none
    temperature: float = Field(default=0.38, gt=0, le=1)  # of the annealed mean that colours the picture; section 2.3
    reduction: int = Field(default=4, ge=1)  # how many times the target's side is smaller; 224 to 56 px in the released code


class ClassColor(Colorization):
    """Colorization as classification of each place among 313 bins, with rare colours weighted up."""

    paper: ClassVar[str] = "Zhang et al. 2016, https://arxiv.org/abs/1603.08511"
    targets: ClassVar[tuple[str, ...]] = ("bins", "shares", "coloured")
    Recipe = ClassColorRecipe
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "demo": Pretext.presets["demo"],
        "small": Pretext.presets["small"],
        "paper": {  # section 3 and the released solver; 450,000 steps of 40 images are 14 epochs of ImageNet
            "epochs": 14, "batch_size": 40, "lr": 3e-5, "beta1": 0.9, "beta2": 0.99, "weight_decay": 1e-3,
            "lr_schedule": "step", "lr_drops": (200 / 450, 375 / 450), "lr_drop_factor": 0.1**0.5,
        },
    }  # fmt: skip

    def __init__(self, recipe: ClassColorRecipe, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.bins = AbBins(recipe.neighbours, recipe.sigma)

    def make_output(self) -> nn.Module:
        """Return the 1x1 convolution from the last decoder activation to the bins' scores."""
        return initialise(nn.Conv2d(self.trunk.channels, len(in_gamut()), 1))

    def prepare(self, batches: Iterator[Tensor]) -> None:
        """Measure how frequent the bins are among the colours that the loss will see, those of images that are not grey."""
        counts = torch.zeros(len(self.bins), dtype=torch.int64, device=self.bins.prior.device)
        for images in batches:
            chroma = colour.split_lab(images)[1]
            counts += self.bins.count(self.reduced(chroma[is_coloured(chroma)]))
        self.bins.set_prior(counts)

    def reduced(self, chroma: Tensor) -> Tensor:
        """Return the mean chroma (N, 2, H / reduction, W / reduction) of each place of the target."""
        return functional.avg_pool2d(chroma, self.recipe.reduction)

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return `lightness` (N, 1, H, W), the targets' `bins` and their `shares` (N, neighbours, h, w), and `coloured` (N,)."""
        lightness, chroma = colour.split_lab(images)
        bins, shares = self.bins.encode(self.reduced(chroma))
        return {"lightness": lightness, "bins": bins, "shares": shares, "coloured": is_coloured(chroma)}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the cross-entropy, weighted by the most probable bin of the target: the mean over places of coloured images."""
        likelihood = self.scores(batch["lightness"]).float().log_softmax(dim=1).gather(1, batch["bins"])
        weight = self.bins.weights(self.recipe.rebalancing)[batch["bins"][:, 0]]
        entropy = -weight * (likelihood * batch["shares"]).sum(dim=1)
        coloured = batch["coloured"].float()
        yield "loss", (entropy.mean(dim=(1, 2)) * coloured).sum() / coloured.sum().clamp(min=1)

    def scores(self, lightness: Tensor) -> Tensor:
        """Return the bins' scores (N, 313, H / reduction, W / reduction) before the softmax, for lightness (N, 1, H, W)."""
        activation = self.trunk(self.trunk.preprocessing.grey(lightness))
        side = lightness.shape[-1] // self.recipe.reduction
        scores: Tensor = self.output(functional.interpolate(activation, size=side, mode="area"))
        return scores

    def generate(self, lightness: Tensor) -> Tensor:
        """Return the annealed mean of the bins, enlarged: chroma (N, 2, H, W) for lightness (N, 1, H, W)."""
        return enlarged(self.bins.decode(self.scores(lightness), self.recipe.temperature), lightness)

    def answering(self, generator: torch.Generator) -> AbstractContextManager[None]:
        """Return the mode in which it colours: without dropout, which the paper's network does not have."""
        return inference_with(self, self.recipe.statistics)

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the scores of all colorization tasks, and how often the most probable bin is the target's (`accuracy`).

        For the accuracy the loss's weights are taken out of the scores again: they favour rare bins, which are rarely right.
        """
        lightness, chroma = colour.split_lab(images)
        with self.answering(generator):
            logits = self.scores(lightness)
        answers = enlarged(self.bins.decode(logits, self.recipe.temperature), lightness)
        likely = logits.float() - self.bins.weights(self.recipe.rebalancing).log()[:, None, None]
        right = likely.argmax(dim=1) == self.nearest(chroma)
        return {**self._scores(colour.join_lab(lightness, answers), images), "accuracy": right.double().mean(dim=(1, 2))}

    def nearest(self, chroma: Tensor) -> Tensor:
        """Return the target's most probable bin (N, h, w) of chroma (N, 2, H, W)."""
        return self.bins.encode(self.reduced(chroma))[0][:, 0]

    def flat_colours(self, training_images: Tensor) -> dict[str, Tensor]:
        """Return those of all colorization tasks, and the centre of the bin that the training images have most."""
        counts = self.bins.count(self.reduced(colour.split_lab(training_images)[1]))
        frequent = self.bins.centres[counts.argmax()].view(1, 2, 1, 1) / 128
        return {**super().flat_colours(training_images), "most frequent bin": frequent}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores, as in `evaluate`, of one colour for all places."""
        scores, truth = super().baselines(images, training_images), self.nearest(colour.split_lab(images)[1])
        for name, flat in self.flat_colours(training_images).items():
            scores[name]["accuracy"] = (truth == self.bins.encode(flat)[0][:, 0]).double().mean(dim=(1, 2))
        return scores

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the grey image, the annealed mean, the most probable bins (`top bin`), the target's bins, and the truth."""
        lightness, chroma = colour.split_lab(images)
        with self.answering(generator):
            probable = self.scores(lightness).argmax(dim=1)
        rows = super().visualize(images, generator)
        for name, bins in {"top bin": probable, "target": self.nearest(chroma)}.items():
            rows[name] = colour.join_lab(lightness, enlarged(self.bins.centres[bins].permute(0, 3, 1, 2) / 128, lightness))
        return {name: rows[name] for name in ("grey", "learned", "top bin", "target", "truth")}


def enlarged(chroma: Tensor, lightness: Tensor) -> Tensor:
    """Return the target's chroma (N, 2, h, w) at the size of the lightness."""
    return functional.interpolate(chroma, size=lightness.shape[-2:], mode="bilinear")
