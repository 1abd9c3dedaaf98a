"""The base of colorization tasks: lightness in, ab out, and the scores and images of the paper's Table 3 and Figure 7."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench import colour
from bench.contract import Batch, Pretext, Trunk
from bench.models.modes import random_inference


class Colorization(Pretext):
    """A generator, trunk and output layer, from lightness to the two colour channels in [-1, 1]."""

    def __init__(self, recipe: Any, trunk: Trunk) -> None:
        super().__init__(recipe, trunk)
        self.output = trunk.output(2)

    def make_batch(self, images: Tensor, generator: torch.Generator) -> Batch:
        """Return `lightness` (N, 1, H, W) and the true `chroma` (N, 2, H, W), both in about [-1, 1]."""
        lightness, chroma = colour.split_lab(images)
        return {"lightness": lightness, "chroma": chroma}

    def generate(self, lightness: Tensor) -> Tensor:
        """Return the generator's chroma (N, 2, H, W) in [-1, 1] for lightness (N, 1, H, W)."""
        return torch.tanh(self.output(self.trunk(self.trunk.preprocessing.grey(lightness))))

    def colorize(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images uint8 (N, 3, H, W) of their own lightness and the generator's colours; dropout is on, as in the paper."""
        lightness, _ = colour.split_lab(images)
        with random_inference(self, self.recipe.statistics, generator):
            return colour.join_lab(lightness, self.generate(lightness))

    def evaluate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return PSNR and SSIM in sRGB against the true image, as in Table 3, and the colourfulness of result and truth."""
        return self._scores(self.colorize(images, generator), images)

    @staticmethod
    def _scores(answers: Tensor, images: Tensor) -> dict[str, Tensor]:
        return {
            "psnr": colour.psnr(answers, images),
            "ssim": colour.ssim(answers, images),
            "colourfulness": colour.colourfulness(answers),
            "colourfulness_truth": colour.colourfulness(images),
        }

    def baselines(self, images: Tensor, training_images: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the scores of the grey image, and of lightness with the mean ab of the training images, as in `evaluate`."""
        lightness, chroma = colour.split_lab(images)
        mean = colour.split_lab(training_images)[1].mean(dim=(0, 2, 3), keepdim=True)
        answers = {"grey image": torch.zeros_like(chroma), "mean colour": mean.expand_as(chroma)}
        return {name: self._scores(colour.join_lab(lightness, answer), images) for name, answer in answers.items()}

    def visualize(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the grey image, the learned colours and the truth, as in Figure 7."""
        lightness, chroma = colour.split_lab(images)
        return {
            "grey": colour.join_lab(lightness, torch.zeros_like(chroma)),
            "learned": self.colorize(images, generator),
            "truth": images,
        }
