"""A control: lightness through the trunk's bottleneck back to lightness, without skip connections.

After Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647, on the bench's trunk. It sees the images that the
other tasks see and trains the same weights, but its answer is its input: what a task must beat to have taught anything.

    bench run --pretext autoencoder --downstream voc_cls

The decoder gets zeros in place of the encoder's finer features, so all that it knows comes through the bottleneck, and a step
costs what its forward and backward cost. Its weights on skip connections stay as they were drawn. A plain vision transformer has
no skip connections; its bottleneck is so wide that it can copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from bench import colour
from bench.contract import Batch, Family, PreprocessingName, Pretext, Recipe, Trunk
from bench.models.modes import inference_with


class AutoencoderRecipe(Recipe):
    """Epochs, batch size and rate as for the colorization tasks, for comparison."""

    error: Literal["squared", "absolute"] = "squared"  # of the normalised lightness; usual practice


class Autoencoder(Pretext):
    """Reconstruction of lightness through the bottleneck alone."""

    paper: ClassVar[str] = "Hinton and Salakhutdinov 2006, https://doi.org/10.1126/science.1127647"
    family: ClassVar[Family] = "control"
    targets: ClassVar[tuple[str, ...]] = ("truth",)
    preprocessing: ClassVar[tuple[PreprocessingName, ...]] = ("l", "rgb")
    Recipe = AutoencoderRecipe

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.output = trunk.output(1)

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return `lightness`, the input, and `truth`, the answer, which is the same: (N, 1, H, W) in [-1, 1]."""
        lightness = colour.lightness_of(images)
        return {"lightness": lightness, "truth": lightness}

    def training_step(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """Yield the mean squared or absolute error of the lightness."""
        error = functional.mse_loss if self.recipe.error == "squared" else functional.l1_loss
        yield "loss", error(self.reconstruct(batch["lightness"]), batch["truth"])

    def reconstruct(self, lightness: Tensor) -> Tensor:
        """Return the lightness (N, 1, H, W) that the decoder makes of the bottleneck alone."""
        *skips, bottleneck = self.trunk.encode(self.trunk.preprocessing.grey(lightness))
        answer: Tensor = self.output(self.trunk.decode([*map(torch.zeros_like, skips), bottleneck]))
        return answer

    def answer(self, images: Tensor) -> Tensor:
        """Return the reconstructed images, grey, as uint8 (N, 3, H, W)."""
        with inference_with(self, self.recipe.statistics):
            return shown(self.reconstruct(colour.lightness_of(images)))

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return PSNR and SSIM of the reconstructed against the true grey image."""
        return scores(self.answer(images), images)

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores, as in `evaluate`, of the mean grey and of the mean grey image of the training images."""
        mean = colour.lightness_of(training_images).mean(dim=0, keepdim=True)
        answers = {"mean grey": mean.mean().expand_as(mean), "mean image": mean}
        return {name: scores(shown(answer.expand(len(images), -1, -1, -1)), images) for name, answer in answers.items()}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the true grey image and what came through the bottleneck."""
        return {"learned": self.answer(images), "truth": shown(colour.lightness_of(images))}


def shown(lightness: Tensor) -> Tensor:
    """Return lightness (N, 1, H, W), cut to [-1, 1], as grey sRGB images, uint8 (N, 3, H, W)."""
    cut = lightness.float().clamp(-1, 1)
    return colour.join_lab(cut, torch.zeros_like(cut).expand(-1, 2, -1, -1))


def scores(answers: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Return PSNR and SSIM of grey images against the lightness of the true ones, (N,) each."""
    truth = shown(colour.lightness_of(images))
    return {"psnr": colour.psnr(answers, truth), "ssim": colour.ssim(answers, truth)}
