"""Split-brain autoencoder: half of a network tells ab from L, the other half L from ab, and a downstream task gets both.

Zhang et al. 2017, https://arxiv.org/abs/1611.09842: reported there with AlexNet VOC 2007 classification 67.1 % mAP, detection
46.7 % mAP, VOC 2012 segmentation 36.0 % mIoU. A run here, whose rows all have the divided trunk that this task needs:

    bench run --pretext random_init,split_brain --downstream voc_cls

Each half has half of the channels at every level and no weight in common with the other. What a half tells is linear in its
hypercolumns, since the bottleneck of a U-Net has too few places for a map. A step costs less than one of the whole encoder. It
should name more colours, and more lightnesses, than the most frequent one would be right for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, interpolate, mse_loss

from bench.contract import Batch, PreprocessingName, Pretext, Recipe, Trains
from bench.models.modes import inference
from bench.models.unet import UNet
from pretexts._ab_bins import AbBins, in_gamut
from pretexts._colorization import Colorization
from pretexts._hypercolumn import Hypercolumn, channels_of


class SplitBrainRecipe(Recipe):
    """The losses as in Zhang et al.; epochs, batch size and rate as for the other colorization tasks, for comparison."""

    form: Literal["classification", "regression"] = "classification"  # section 4.1: (cl, cl), the best there, and (L2, L2)
    lightnesses: int = Field(default=100, ge=2)  # bins of L; section 4.1
    reduction: int = Field(default=4, ge=1)  # how many times the target's side is smaller; as in class_color, 15 in the paper


class SplitBrain(Colorization):
    """Cross-channel prediction by two disjoint halves of an encoder."""

    paper: ClassVar[str] = "Zhang et al. 2017, https://arxiv.org/abs/1611.09842"
    trains: ClassVar[Trains] = "encoder"
    preprocessing: ClassVar[tuple[PreprocessingName, ...]] = ("l+ab",)
    targets: ClassVar[tuple[str, ...]] = ("colours", "lightnesses")
    Recipe = SplitBrainRecipe
    output: Any
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {name: Pretext.presets[name] for name in ("demo", "small")}

    def make_output(self) -> nn.Module:
        """Return a linear layer on the hypercolumns of each half: to colours, and to lightnesses."""
        size = self.trunk.trained_at or self.trunk.smallest
        with inference(self.trunk):
            halves = cast(UNet, self.trunk).halves(torch.zeros(1, 3, size, size))
        self.bins = AbBins(1, 1.0)
        counts = (len(in_gamut()), self.recipe.lightnesses) if self.recipe.form == "classification" else (2, 1)
        return nn.ModuleList(Hypercolumn(channels_of(half), count) for half, count in zip(halves, counts, strict=True))

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return that of encoder and layers: the decoder is not trained."""
        return {"loss": self.optimizer(self.trunk.down, self.output)}

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return `inputs` (N, 3, H, W) and, at the target's size, `colours` and `lightnesses`: bins (N, h, w) or values."""
        inputs = self.trunk.preprocessing(images)
        colours, lightnesses = self.answers(inputs)
        return {"inputs": inputs, "colours": colours, "lightnesses": lightnesses}

    def answers(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return colours and lightnesses of inputs (N, 3, H, W): int64 bins (N, h, w), or in regression ab and L, float."""
        reduced = adaptive_avg_pool2d(inputs, self.side(inputs))
        lightness, chroma = reduced[:, :1], reduced[:, 1:]
        if self.recipe.form == "regression":
            return chroma, lightness
        levels = ((lightness[:, 0] + 1) / 2 * self.recipe.lightnesses).long()
        return self.bins.encode(chroma)[0][:, 0], levels.clamp(0, self.recipe.lightnesses - 1)

    def side(self, inputs: Tensor) -> int:
        """Return the target's side."""
        return max(1, int(inputs.shape[-1] // self.recipe.reduction))

    def told(self, inputs: Tensor) -> list[Tensor]:
        """Return what each half tells, (N, channels, h, w): scores of colours by L, and of lightnesses by ab, or values."""
        side = self.side(inputs)
        return [layer(half, side).float() for layer, half in zip(self.output, cast(UNet, self.trunk).halves(inputs), strict=True)]

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the sum of the halves' losses; neither has a weight of the other."""
        error = cross_entropy if self.recipe.form == "classification" else mse_loss
        colours, lightnesses = self.told(batch["inputs"])
        yield "loss", error(colours, batch["colours"]) + error(lightnesses, batch["lightnesses"])

    def generate(self, lightness: Tensor) -> Tensor:
        """Return the chroma (N, 2, H, W) for lightness (N, 1, H, W): the mean of the colours' distribution."""
        colours, _ = self.told(self.trunk.preprocessing.grey(lightness))
        chroma = self.bins.decode(colours, 1.0) if self.recipe.form == "classification" else colours.float()
        return interpolate(chroma, size=lightness.shape[-2:], mode="bilinear")

    def judged(self, found: Sequence[Tensor], images: Tensor) -> dict[str, Tensor]:
        """Return how good the found colours and lightnesses are, (N,) each: shares of right bins, or mean squared errors."""
        pairs = list(zip(found, self.answers(self.trunk.preprocessing(images)), strict=True))
        if self.recipe.form == "regression":
            errors = [(one - right).square().mean(dim=(1, 2, 3)) for one, right in pairs]
            return dict(zip(("error", "error_lightness"), errors, strict=True))
        hits = [(one == right).double().mean(dim=(1, 2)) for one, right in pairs]
        return dict(zip(("accuracy", "accuracy_lightness"), hits, strict=True))

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the scores of all colorization tasks, and how often each half is right, or its mean squared error."""
        with self.answering(generator):
            told = self.told(self.trunk.preprocessing(images))
        found = [one.argmax(dim=1) for one in told] if self.recipe.form == "classification" else told
        return {**super().evaluate(images, generator), **self.judged(found, images)}

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores of one colour, and those of the training images' most frequent bins, or mean values."""
        known = self.answers(self.trunk.preprocessing(training_images))
        if self.recipe.form == "classification":
            usual = [one.flatten().mode().values for one in known]
        else:
            usual = [one.mean(dim=(0, 2, 3), keepdim=True) for one in known]
        return {**super().baselines(images, training_images), "most frequent": self.judged(usual, images)}
